"""Which of two experts a file is for, and which file is its partner, by names; and both experts' LoRAs in one file, by their keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

EXPERTS = ("high-noise", "low-noise")
"""Experts of models that have two; the first one runs where there is more noise."""
HIGH, LOW = EXPERTS
DECISIVE = {"highnoise": HIGH, "lownoise": LOW}
"""Words that name an expert in any file, as `words_of` spells high_noise and low_noise."""
PLAIN = {"high": HIGH, "low": LOW, "hn": HIGH, "ln": LOW}
"""Words that name an expert where the rest of the name does not give them another sense."""
OTHER_SENSES = {
    "model": re.compile(r"bits?|cost|cpu|latency|mem|memory|power|precision|quality|ram|res|resolution|vram"),
    "LoRA": re.compile(
        r"(?:altitude|angle|bit|budget|contrast|cost|cut|def|definition|density|detail|detailed|dynamic|end|energy|fantasy|fashion|fi|"
        r"fidelity|five|fps|freq|frequency|gloss|heel|jump|key|kick|latency|light|lighting|mem|memory|motion|neck|octane|pass|poly|polygon|"
        r"pony|ponytail|power|precision|quality|ram|res|resolution|ride|rider|rise|saturation|school|score|shot|speed|tech|temp|tide|top|"
        r"view|vram|waist)s?"
    ),
}
"""Words behind 'high' or 'low' with which it says nothing about noise: low_vram, high_quality, low_poly."""
TECHNICAL = re.compile(r"\d+|and|b|bf|dim|e|ep|epoch|expert|final|fp|i|loras?|model|r|rank|s|steps?|t|ti|transformer|v|wan|x")
"""Words behind a 'high' or 'low' that begins the name of a LoRA, with which it still names an expert: high_lora_v2."""
MARKS = (("high", "low"), ("hn", "ln"), ("h", "l"), ("transformer", "transformerlow"), ("transformerhigh", "transformerlow"))
"""Words that tell the high-noise expert from the low-noise one where names differ in them alone."""
LOOKED_FOR = "high_noise/low_noise, HIGH/LOW, _h/_l, hn/ln, transformer/transformer_2"
_SPELLINGS = (
    (re.compile(r"high[ ._-]*noise", re.IGNORECASE), " highnoise "),
    (re.compile(r"low[ ._-]*noise", re.IGNORECASE), " lownoise "),
    (re.compile(r"(?<=\d[bv])(high|low)(?![a-z])", re.IGNORECASE), r" \1 "),
    (re.compile(r"transformer[ ._-]?1(?!\d)", re.IGNORECASE), " transformerhigh "),
    (re.compile(r"transformer[ ._-]?2(?!\d)", re.IGNORECASE), " transformerlow "),
)
_BOTH = re.compile(r"\b(?:(?:high|highnoise and|high and) low|(?:low|lownoise and|low and) high)")
_WAN22 = re.compile(r"wan[ ._-]*2[ ._-]?2|(?<!\d)2[._-]2(?!\d)|a14b", re.IGNORECASE)
_WAN21 = re.compile(r"wan[ ._-]*2[ ._-]?1", re.IGNORECASE)
_SUFFIX = re.compile(r"\.(?:safetensors|sft|gguf|pth?|ckpt|bin)$", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")
_DIT = r"(?:transformer|dit|unet|model|diffusion_model|denoiser)"
_KEY_OF_EXPERT = re.compile(
    r"(?P<before>(?:.*\.)?|lora_(?:unet_)?)"
    rf"(?:(?P<high>(?:transformer|dit|unet)_?1|(?:{_DIT}_)?high(?:_?noise)?(?:_{_DIT}|_expert)?)"
    rf"|(?P<low>(?:transformer|dit|unet)_?2|(?:{_DIT}_)?low(?:_?noise)?(?:_{_DIT}|_expert)?))[._](?P<rest>.+)"
)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Partners:
    """The files that may belong to a file of one expert, all equally likely, and which expert that file is for."""

    files: tuple[str, ...]
    expert: str | None


def partners_of(file: str, files: Iterable[str]) -> Partners:
    """The other expert's file, by name alone: of those that differ in marks of the experts and in nothing else.

    Letters of either case and any separators count as equal. Files of the same folder come first, then those of folders that differ in
    such marks alone, as `high/` and `low/`; among these, one that is spelled alike. Other folders may be about other things.

    Args:
        file: as lists show it, with folders.
        files: all that there are.
    """
    own = PurePath(file.replace("\\", "/"))
    tiers: list[dict[str, str]] = [{}, {}]
    for other in files:
        path = PurePath(other.replace("\\", "/"))
        expert = _expert_against(_path_words(own), _path_words(path))
        if expert:
            tiers[path.parent != own.parent][other] = expert
    found = next((tier for tier in tiers if tier), {})
    alike = [other for other in found if other.lower() in _swapped(file)]
    chosen = alike if len(alike) == 1 else list(found)
    experts = {found[other] for other in chosen}
    return Partners(tuple(chosen), experts.pop() if len(experts) == 1 else None)


def named_expert(file: str | None) -> str | None:
    """The expert that a model's name speaks of beyond doubt; None where by none, or by both.

    So does `high_noise` in any spelling, and in names of Wan 2.2 the words high, low, HN and LN as well.
    """
    return _spoken_of(file, "model")


def lora_expert(file: str | None) -> str | None:
    """The expert that a LoRA's name speaks of beyond doubt; None where by none, or by both.

    As for a model, but also without Wan 2.2 in the name: `walk_high`, not `low_poly` and not `high_dance`.
    """
    return _spoken_of(file, "LoRA")


def words(name: str) -> list[str]:
    """Words and numbers of a name, small, spellings of the experts as 'high' and 'low'."""
    return [word.removesuffix("noise") if word in DECISIVE else word for word in words_of(name)]


def words_of(name: str) -> list[str]:
    """Words and numbers of a name, small, `high_noise` in any spelling as one."""
    for pattern, spelled in _SPELLINGS:
        name = pattern.sub(spelled, name)
    return [word.lower() for word in _WORD.findall(name)]


def split_experts(tensors: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """What a LoRA file holds for each expert, by keys as of one DiT; empty where its keys name no expert.

    `transformer_2.` is the low-noise expert of diffusers, beside `transformer.`, and of ai-toolkit, beside `transformer_1.`; `dit2.` of
    DiffSynth-Studio, beside `dit.`; `low_noise_model.` of Wan's own code, beside `high_noise_model.`.
    """
    parts: dict[str, dict[str, Value]] = {}
    unmarked = {}
    for key, value in tensors.items():
        match = _KEY_OF_EXPERT.fullmatch(key)
        if match is None:
            unmarked[key] = value
            continue
        before = {"": "transformer.", "lora_": "lora_transformer_"}.get(match["before"], match["before"])
        parts.setdefault(HIGH if match["high"] else LOW, {})[before + match["rest"]] = value
    if parts and unmarked:
        other = next((expert for expert in (HIGH, LOW) if expert not in parts), HIGH)
        parts.setdefault(other, {}).update(unmarked)
    return parts


def _spoken_of(file: str | None, kind: str) -> str | None:
    """By the file's own name, else by the nearest folder that says anything."""
    path = (file or "").replace("\\", "/")
    is_wan21 = bool(_WAN21.search(path))
    is_wan22 = bool(_WAN22.search(path)) and not is_wan21
    for place, part in enumerate(reversed(PurePath(path).parts)):
        spoken = _without_other_senses(words_of(_SUFFIX.sub("", part)), OTHER_SENSES[kind], begins=not is_wan22)
        is_about_experts = not place or len(spoken) == 1 or bool(_WAN22.search(part))  # a folder may be named for anything
        counted = {**DECISIVE, **PLAIN} if is_about_experts and (is_wan22 or (kind == "LoRA" and not is_wan21)) else DECISIVE
        found = {DECISIVE[word] for word in spoken if word in DECISIVE} or {counted[word] for word in spoken if word in counted}
        if found:
            return found.pop() if len(found) == 1 and not _BOTH.search(" ".join(spoken)) else None
    return None


def _without_other_senses(spoken: list[str], other_senses: re.Pattern[str], begins: bool) -> list[str]:
    """Words without such a 'high' or 'low' as has another sense, by the word behind it or as it begins a name.

    Args:
        begins: whether a 'high' or 'low' that begins the name goes with an ordinary word behind it.
    """
    following = [*spoken[1:], ""]
    adjectives = ("high", "low")
    kept = [word for word, after in zip(spoken, following, strict=True) if word not in adjectives or not other_senses.fullmatch(after)]
    if begins and len(kept) > 1 and kept[0] in adjectives and kept[1] not in {*PLAIN, *DECISIVE} and not TECHNICAL.fullmatch(kept[1]):
        return kept[1:]
    return kept


def _path_words(path: PurePath) -> list[str]:
    return [word for part in path.with_suffix("").parts for word in (*words(part), "/")]


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
