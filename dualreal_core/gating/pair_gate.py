"""A prompt gate for a pair: words, examples of them, their texts, and what the gate goes by in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..bases.base import Base, Progress
from ..bases.two_experts import attach
from ..errors import InputError
from ..files.cache_folder import latent_cache
from ..method.pair import ROLES, AdapterPair, with_gate
from .base_texts import encode_prompts
from .examples import make_examples
from .fitting import FittedGate, fit_gate
from .words import SideWords, identity_words, motion_words


@dataclass(frozen=True)
class GateWords:
    """Attributes:
    identity, motion: what names each side.
    captions: of the photos and clips, which are examples as well.
    """

    identity: SideWords
    motion: SideWords
    captions: tuple[str, ...] = ()

    @classmethod
    def told(
        cls,
        identity: str = "",
        motion: str = "",
        trigger: str = "",
        photo_captions: Sequence[str] = (),
        clip_captions: Sequence[str] = (),
    ) -> GateWords:
        """The words that are given for a side, several ones parted by commas; else those that trigger and captions tell.

        Raises:
            InputError: nothing tells them; it says what to give.
        """
        of_identity = identity_words(identity, trigger, photo_captions)
        return cls(of_identity, motion_words(motion, clip_captions), (*photo_captions, *clip_captions))

    @classmethod
    def of_header(cls, header: Mapping[str, object], identity: str = "", motion: str = "") -> GateWords:
        """The words that are given, else those of an earlier gate, of captions or of triggers, by a pair's header.

        Raises:
            InputError: see `told`.
        """
        prompts, earlier = header.get("prompts") or {}, header.get("prompt_gate")
        captions = {role: [str(prompts[role])] if prompts.get(role) else [] for role in ROLES}
        sides = earlier["sides"] if isinstance(earlier, Mapping) and isinstance(earlier.get("sides"), Mapping) else {}
        former = {role: SideWords(**{name: tuple(words) for name, words in side.items()}) for role, side in sides.items()}
        trigger = str(prompts.get("trigger") or "")
        return cls(
            former["identity"] if "identity" in former and not identity else identity_words(identity, trigger, captions["identity"]),
            former["motion"] if "motion" in former and not motion else motion_words(motion, captions["motion"]),
            tuple(caption for role in ROLES for caption in captions[role]),
        )


@dataclass(frozen=True)
class GateReport:
    """Attributes:
    words: that the gate goes by.
    fitted: the gate and how well it does on wordings that it was not fitted to.
    num_examples: prompts that it was fitted to, those held out included.
    """

    words: GateWords
    fitted: FittedGate
    num_examples: int

    def recorded(self) -> dict[str, object]:
        """What a pair's header keeps of it."""
        sides = dict(zip(ROLES, (self.words.identity, self.words.motion), strict=True))
        accuracy = {role: round(share, 4) for role, share in zip(ROLES, self.fitted.accuracy, strict=True)}
        shown = {role: list(words.names) for role, words in sides.items()}
        return {**shown, "accuracy": accuracy, "sides": {role: asdict(words) for role, words in sides.items()}}

    def line(self) -> str:
        """What the gate goes by, for people."""
        sides = (
            f"the {role} acts where a prompt names {' or '.join(map(repr, words.names[:3]))}{' ...' * (len(words.names) > 3)}"
            for role, words in zip(ROLES, (self.words.identity, self.words.motion), strict=True)
        )
        right = " and ".join(f"{share:.0%}" for share in self.fitted.accuracy)
        return f"prompt gate: {', '.join(sides)} (right on {right} of wordings that it has not seen)"


def fit_prompt_gate(
    base: Base, pair: AdapterPair, words: GateWords, cache: Path | None = None, progress: Progress | None = None
) -> tuple[AdapterPair, GateReport]:
    """The pair with a gate fitted to its words: each side acts where a prompt names it. Sides and blend are shared with the one given.

    It takes a base's texts alone, and no weights of the DiT.

    Args:
        cache: of the texts of generic prompts; default: `latent_cache`.
        progress: called with (prompts encoded, prompts in all); the fit that follows takes seconds.

    Raises:
        InputError: the pair lacks a side, so that nothing is to be told apart, or was made for another base.
    """
    missing = next((role for role in ROLES if role not in pair.sides), None)
    if missing is not None:
        raise InputError(f"The pair has no {missing} side: a prompt gate tells two sides apart, so give a pair that has both.")
    attach(base, pair).detach()
    examples = make_examples(words.identity, words.motion, words.captions)
    texts = encode_prompts(base, [example.prompt for example in examples], cache or latent_cache(), progress)
    names = torch.tensor([example.names for example in examples])
    fitted = fit_gate(texts, names, [example.wording for example in examples])
    gate = fitted.gate.to(next(pair.parameters()).device)
    return with_gate(pair, gate), GateReport(words, fitted, len(examples))
