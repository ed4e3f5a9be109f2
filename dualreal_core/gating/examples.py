"""Labelled prompts: neither side, each alone, both, and what comes near, made of generic prompts and of the captions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..method.pair import Role
from .generic_prompts import Template, generic_prompts
from .words import SideWords, words_of

NUM_WORDINGS = 120
"""Generic prompts of which other examples are made: each gives one for either side, for both, and a near miss."""
LONG = 40
"""Words of a long prompt, as the models of today are asked with; all such come first among these, as few others teach them."""
NEAR_MISSES: tuple[Role, ...] = ("identity",)
"""Those of the motion teach a gate to be off, now and then, where the motion is named: it is better off too seldom than there."""
NUM_SCENES = 12
"""Prompts in which nobody acts that are told the sides, too."""
_ORDERS = (
    "{subject} {action} {place}", "{place}, {subject} {action}", "{subject}, {action}, {place}", "{action}, {subject}, {place}",
    "{place}: {action}, {subject}", "a video of {subject} {place}, {action}", "{place}, {action}: {subject}", "{subject} {action}",
)  # fmt: skip
"""Word orders, beside that of the generic prompt."""
_PLACES = ("in a park", "on a beach", "at night", "in the snow", "indoors", "on grey", "in front of a wall", "close-up", "")
_SYLLABLES = ("ka", "lo", "mi", "zu", "tre", "vo", "na", "ri", "shu", "pel", "dax", "fin", "gor", "bly", "qua", "wex", "nu", "tam")
_SIGNS = ("#", "+", "~", "@", "%", "&")

Said = Iterator[tuple[str, int, str]]
"""Prompts, each with its wording and kind."""


@dataclass(frozen=True)
class Example:
    """A prompt and whether it names the identity and the motion.

    Attributes:
        wording: of the generic prompt that it is made of, or of its own, counted on: to be held out as one.
        kind: what it was made to show, for tables.
    """

    prompt: str
    names: tuple[bool, bool]
    wording: int
    kind: str


@dataclass(frozen=True)
class ExampleSettings:
    """What the benchmark varies.

    Attributes:
        num_generic: of how many generic prompts all is made; None: all.
        near_misses: the sides of which prompts are among the examples that only come near to naming them.
    """

    num_wordings: int = NUM_WORDINGS
    num_generic: int | None = None
    near_misses: tuple[Role, ...] = NEAR_MISSES
    seed: int = 0


def make_examples(
    identity: SideWords, motion: SideWords, captions: Sequence[str] = (), settings: ExampleSettings | None = None
) -> list[Example]:
    """Examples for a gate, the same ones from the same seed, each prompt once.

    A prompt that holds one of a side's names counts as naming it, however it came about.

    Args:
        captions: of photos and clips; they and they with parts exchanged are examples as well.
    """
    maker = _Maker(identity, motion, settings or ExampleSettings())
    said = [*maker.generic_prompts(), *maker.with_sides(), *maker.long_prompts(), *maker.scenes(), *maker.short_prompts()]
    said += maker.of_captions(list(dict.fromkeys(captions)))
    found: dict[str, Example] = {}
    for text, wording, kind in said:
        prompt = " ".join(text.split())
        found.setdefault(prompt, Example(prompt, (identity.named_in(prompt), motion.named_in(prompt)), wording, kind))
    return list(found.values())


class _Maker:
    """Draws from one generator, so that its methods are to be called in one order."""

    def __init__(self, identity: SideWords, motion: SideWords, settings: ExampleSettings) -> None:
        self.identity, self.motion, self.near_misses = identity, motion, settings.near_misses
        self.draw = random.Random(settings.seed)
        self.generic = list(generic_prompts())
        if settings.num_generic is not None:
            self.generic = sorted(self.draw.sample(self.generic, settings.num_generic), key=lambda template: template.number)
        self.acting = [template for template in self.generic if template.has_parts]
        long = [template for template in self.acting if _is_long(template)][: settings.num_wordings]
        self.short = [template for template in self.acting if not _is_long(template)]
        self.chosen = long + self.draw.sample(self.short, min(settings.num_wordings - len(long), len(self.short)))

    def generic_prompts(self) -> Said:
        yield from ((template.text, template.number, "neither") for template in self.generic)
        yield "", -1, "neither"

    def with_sides(self) -> Said:
        """Each side, both, and near misses, in the place of subject and action."""
        for count, template in enumerate(self.chosen):
            who, does = self.placed(count)
            yield self.put(template, who, ""), template.number, "identity"
            yield self.put(template, "", does), template.number, "motion"
            yield self.put(template, who, does), template.number, "both"
            other = self.draw.choice(self.acting)
            nearly_who, nearly_does = self.near_identity(other), self.near_motion(does, other)
            if "identity" in self.near_misses:
                yield self.put(template, nearly_who, self.draw.choice(("", does))), template.number, "near identity"
            if "motion" in self.near_misses:
                yield self.put(template, self.draw.choice(("", who)), nearly_does), template.number, "near motion"

    def long_prompts(self) -> Said:
        """Three prompts in a row, of which one names sides."""
        for count, template in enumerate(self.draw.sample(self.short, min(len(self.chosen) // 4, len(self.short)))):
            who, does = self.placed(count)
            sides = self.draw.choice(((who, ""), ("", does), (who, does)))
            parts = [template.with_parts(*sides), *(one.text for one in self.draw.sample(self.generic, 2))]
            self.draw.shuffle(parts)
            yield ". ".join(part.strip(" .") for part in parts), template.number, "long"

    def scenes(self) -> Said:
        """Prompts in which nobody acts, with the sides behind."""
        scenes = [template for template in self.generic if not template.has_parts]
        for template in self.draw.sample(scenes, min(NUM_SCENES, len(scenes))):
            who, does = self.draw.choice(self.identity.placed), self.draw.choice(self.motion.placed)
            for sides in (who, does, f"{who} {does}", f"{does}, {who}"):
                yield f"{template.text}, {sides}", template.number, "scene"

    def short_prompts(self) -> Said:
        """The words alone."""
        near = self.identity.near if "identity" in self.near_misses else ()
        for count, who in enumerate((*self.identity.placed, *near)):
            does = _in_turn(self.motion.placed, count)
            yield from ((said, _own(count), "short") for said in (who, f"{who} {does}", f"{does}, {who}", f"a video of {who}"))
        yield from ((does, _own(0), "short") for does in self.motion.placed)

    def of_captions(self, captions: Sequence[str]) -> Said:
        """Captions, other words in place of the side that they name, and the other side's words added."""
        for count, caption in enumerate(captions):
            wording, (who, does), other = _own(100 + count), self.placed(count), self.draw.choice(self.acting)
            yield caption, wording, "caption"
            of_identity = self.identity, (*self.identity.near, other.subject), does
            of_motion = self.motion, (other.action,), who
            for words, instead, added in (of_identity, of_motion):
                placed = next((one for one in sorted(words.placed, key=len, reverse=True) if one.lower() in caption.lower()), None)
                if placed is not None:
                    before, after = caption[: caption.lower().index(placed.lower())], caption[caption.lower().index(placed.lower()) :]
                    yield from ((before + one + after[len(placed) :], wording, "caption") for one in instead)
                    yield from ((said, wording, "caption") for said in (f"{caption}, {added}", f"{added}, {caption}"))

    def placed(self, count: int) -> tuple[str, str]:
        """How the sides are put this time."""
        return _in_turn(self.identity.placed, count), _in_turn(self.motion.placed, count)

    def put(self, template: Template, subject: str, action: str) -> str:
        """The prompt with these parts, where they are given, in its own word order or in another one."""
        if _is_long(template) or self.draw.random() < 0.5:
            return template.with_parts(subject, action)
        place = template.place if 0 < len(words_of(template.place)) < 12 else self.draw.choice(_PLACES)
        parts = {"subject": subject or template.subject, "action": action or template.action, "place": place}
        return self.draw.choice(_ORDERS).format(**parts).strip(" ,:")

    def near_identity(self, other: Template) -> str:
        """The class without the trigger, or with another one; another subject with a made-up name; a part of a longer name."""
        made_up = "".join(self.draw.sample(_SYLLABLES, 2)) if self.draw.random() < 0.7 else self.draw.choice(_SIGNS)
        noun = self.draw.choice(self.identity.near) if self.identity.near else other.subject
        parts = self.draw.choice(self.identity.names).split()
        part = f"{self.draw.choice(parts)} {made_up}" if len(parts) > 1 else f"{other.subject} {made_up}"
        return self.draw.choice((noun, noun, f"{noun} {made_up}", f"{made_up} {noun}", part, made_up))

    def near_motion(self, does: str, other: Template) -> str:
        """The motion with one of its words left out or taken from another action; of a single word, another action."""
        words, others = does.split(), other.action.split()
        if len(words) == 1:
            return self.draw.choice((other.action, f"{others[0]} {self.draw.choice(_SYLLABLES)}"))
        place = self.draw.randrange(len(words))
        instead = [] if self.draw.random() < 0.3 else [others[0] if place == 0 else others[-1]]
        return " ".join([*words[:place], *instead, *words[place + 1 :]])


def _is_long(template: Template) -> bool:
    return len(words_of(template.text)) >= LONG


def _own(count: int) -> int:
    """The number of a wording that is no generic prompt's."""
    return len(generic_prompts()) + count


def _in_turn(options: Sequence[str], count: int) -> str:
    """The first, which is the usual one, every other time, and else the others in turn."""
    others = options[1:]
    return options[0] if not others or count % 2 == 0 else others[count // 2 % len(others)]
