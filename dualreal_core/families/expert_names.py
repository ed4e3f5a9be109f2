"""Which of two experts a file is for, and which file is its partner, by names; and both experts' LoRAs in one file, by their keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

EXPERTS = {
    "high-noise": r"high[ ._-]?noise|a14b.*(?<![a-z])high(?![a-z])",
    "low-noise": r"low[ ._-]?noise|a14b.*(?<![a-z])low(?![a-z])",
}
"""Experts of models that have two, by what stands in the names of their files; the first one runs where there is more noise."""
HIGH, LOW = EXPERTS
PLAIN_MARKS = {"high": HIGH, "low": LOW}
"""Words in the names of files that say by themselves which expert they are for."""
MARKS = (("high", "low"), ("hn", "ln"), ("h", "l"), ("transformer", "transformerlow"), ("transformerhigh", "transformerlow"))
"""Words that tell the high-noise expert from the low-noise one where names differ in them alone."""
LOOKED_FOR = "high_noise/low_noise, HIGH/LOW, _h/_l, hn/ln, transformer/transformer_2"
_SPELLINGS = (
    (re.compile(r"(high|low)[ ._-]*noise", re.IGNORECASE), r" \1 "),
    (re.compile(r"transformer[ ._-]?1(?!\d)", re.IGNORECASE), " transformerhigh "),
    (re.compile(r"transformer[ ._-]?2(?!\d)", re.IGNORECASE), " transformerlow "),
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")
_KEY_OF_EXPERT = re.compile(r"(?P<before>(?:.*\.)?|lora_(?:unet_)?)transformer_(?P<number>[12])(?P<separator>[._])(?P<rest>.+)")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Partners:
    """The files that may belong to a file of one expert, all equally likely, and which expert that file is for."""

    files: tuple[str, ...]
    expert: str | None


def partners_of(file: str, files: Iterable[str]) -> Partners:
    """The other expert's file, by name alone: of those that differ in marks of the experts and in nothing else.

    Letters of either case and any separators count as equal. Files of the same folder come first, then those whose folders differ in
    such marks too, then those of any folder; among these, one that is spelled alike.

    Args:
        file: as lists show it, with folders.
        files: all that there are.
    """
    own = PurePath(file.replace("\\", "/"))
    tiers: list[dict[str, str]] = [{}, {}, {}]
    for other in files:
        path = PurePath(other.replace("\\", "/"))
        whole = _expert_against(words(str(own.with_suffix(""))), words(str(path.with_suffix(""))))
        name = _expert_against(words(own.stem), words(path.stem))
        place = 0 if name and path.parent == own.parent else 1 if whole else 2 if name else None
        if place is not None:
            tiers[place][other] = whole if place == 1 else name
    found = next((tier for tier in tiers if tier), {})
    alike = [other for other in found if other.lower() in _swapped(file)]
    chosen = alike if len(alike) == 1 else list(found)
    experts = {found[other] for other in chosen}
    return Partners(tuple(chosen), experts.pop() if len(experts) == 1 else None)


def marked_expert(file: str) -> str | None:
    """The expert that a file's name speaks of by 'high' or 'low'; None where by none, or by both."""
    found = {PLAIN_MARKS[word] for word in words(PurePath(file.replace("\\", "/")).stem) if word in PLAIN_MARKS}
    return found.pop() if len(found) == 1 else None


def named_expert(file: str | None) -> str | None:
    """The expert that a file's name speaks of beyond doubt, as `high_noise` or HIGH; None where by none, or by both."""
    file = file or ""
    found = {expert for expert, pattern in EXPERTS.items() if re.search(pattern, file, re.IGNORECASE)}
    found = found or {PLAIN_MARKS[word.lower()] for word in _WORD.findall(file) if word in ("HIGH", "LOW")}
    return found.pop() if len(found) == 1 else None


def words(name: str) -> list[str]:
    """Words and numbers of a name, small, spellings of the experts as 'high' and 'low'."""
    for pattern, spelled in _SPELLINGS:
        name = pattern.sub(spelled, name)
    return [word.lower() for word in _WORD.findall(name)]


def split_experts(tensors: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """What a LoRA file holds for each expert, by keys as of one DiT; empty where its keys name no expert.

    `transformer_2.` is the low-noise expert of diffusers, beside `transformer.`, and of ai-toolkit, beside `transformer_1.`.
    """
    parts: dict[str, dict[str, Value]] = {}
    unmarked = {}
    for key, value in tensors.items():
        match = _KEY_OF_EXPERT.fullmatch(key)
        if match is None:
            unmarked[key] = value
            continue
        before = {"": "transformer.", "lora_": "lora_transformer_"}.get(match["before"], match["before"])
        parts.setdefault(HIGH if match["number"] == "1" else LOW, {})[before + match["rest"]] = value
    if parts and unmarked:
        other = next((expert for expert in (HIGH, LOW) if expert not in parts), HIGH)
        parts.setdefault(other, {}).update(unmarked)
    return parts


def _expert_against(words_of_one: list[str], words_of_other: list[str]) -> str | None:
    """The expert that the first name is of, where the two names differ in marks of opposite experts and in nothing else."""
    if len(words_of_one) != len(words_of_other):
        return None
    differing = {(one, other) for one, other in zip(words_of_one, words_of_other, strict=True) if one != other}
    if not differing:
        return None
    return HIGH if differing <= set(MARKS) else LOW if {both[::-1] for both in differing} <= set(MARKS) else None


def _swapped(file: str) -> set[str]:
    """Names in small letters with one expert's word in place of the other's."""
    small = file.lower()
    return {small.replace("high", "low"), small.replace("low", "high")} - {small}
