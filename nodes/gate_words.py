"""Which words of a prompt name the sides of a pair: those that are given, or that its header or the captions tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from ..dualreal_core.errors import InputError
from ..dualreal_core.gating.pair_gate import GateWords
from ..dualreal_core.gating.shared_trigger import shared_trigger
from ..dualreal_core.gating.words import SideWords, identity_words, motion_words
from ..dualreal_core.method.pair import ROLES, AdapterPair, Role
from .types import TrainedPair

GATE = "prompt_gate"
"""Entry of a pair's header: the words that name each side that follows the prompt, and the accuracy on wordings held out."""
MOST_NAMED = 3
STAND_IN = SideWords(("zumikalo vendrish",), ("zumikalo vendrish",))
"""In the place of a side that acts on every prompt: no prompt holds it."""


def known_words(pair: TrainedPair, given: Mapping[Role, str]) -> dict[Role, SideWords]:
    """The words of each side for which any are known: those that are given, or that the pair's header has."""
    found: dict[Role, SideWords] = {}
    for role in sides_of(pair.pair):
        words = {**dict.fromkeys(ROLES, STAND_IN.names[0]), role: given[role].strip()}
        with suppress(InputError):
            found[role] = getattr(GateWords.of_header(pair.header, **words), role)
    return found


def words_of_captions(captions: Mapping[Role, Sequence[str]]) -> dict[Role, SideWords]:
    """The words of each side that captions of photos and clips tell."""
    found: dict[Role, SideWords] = {}
    with suppress(InputError):
        found["identity"] = identity_words(trigger=shared_trigger(captions["identity"]), captions=captions["identity"])
    with suppress(InputError):
        found["motion"] = motion_words(captions=captions["motion"])
    return found


def sides_of(pair: AdapterPair) -> list[Role]:
    """Those that a pair has."""
    return [role for role in ROLES if role in pair.sides and len(pair.sides[role])]


def on_gate(pair: AdapterPair, header: Mapping[str, object]) -> str:
    """A sentence on what a pair's gate goes by; empty where there is none."""
    if pair.gate is None:
        return ""
    record = header.get(GATE) or {}
    sides = [f"the {role} acts only on prompts with {named(record[role])}" for role in ROLES if record.get(role)]
    return f"Prompt gate: {', '.join(sides)}." if sides else "Prompt gate: its words are not recorded."


def on_unnamed(words: Mapping[Role, Sequence[str]]) -> str:
    """A sentence on sides that no prompt named, with the words that would."""
    sides = [f"the {role} ({named(own)})" if own else f"the {role}" for role, own in words.items()]
    naming = f"does not name {sides[0]}, so it did nothing"
    if len(sides) > 1:
        naming = f"names neither {' nor '.join(sides)}, so they did nothing"
    return (
        f"The prompt {naming}: write the words into the prompt, or let the pair act on every prompt (switch off follow_prompt of the node "
        "that applies it, or unwire clip of Blend Two LoRAs)."
    )


def named(words: Sequence[str]) -> str:
    """Words as sentences have them; of many the first ones."""
    return " or ".join(map(repr, words[:MOST_NAMED])) + " ..." * (len(words) > MOST_NAMED)
