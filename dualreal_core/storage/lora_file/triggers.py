"""Words that a LoRA was trained on, as far as its metadata name them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

PHRASE_FIELDS = (
    "modelspec.trigger_phrase", "modelspec.trigger_word", "trigger_phrase", "trigger_word", "trigger", "activation text", "activation_text",
)  # fmt: skip
"""Fields that hold a phrase."""
JSON_FIELDS = ("trigger_words", "trained_words", "trainedWords", "tags", "instance_prompt", "ss_trigger_words")
TAGS_FIELD = "ss_tag_frequency"
_REPEATS = re.compile(r"(\d+)_(.+)")
_NOT_A_TRIGGER = re.compile(r"(?i)(?:img|image|images|video|videos|clips?|dataset|train|data|reg|\d+)")
LONGEST, MOST = 200, 3


def triggers_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words, those that are named as triggers first; then tags of every caption, and names of kohya's folders."""
    found = [*_phrases(metadata), *_of_software(metadata)]
    return tuple(dict.fromkeys(found or _of_tags(metadata)))[:MOST]


def _phrases(metadata: Mapping[str, str]) -> Iterator[str]:
    for field in PHRASE_FIELDS:
        yield from _texts(metadata.get(field))
    for field in JSON_FIELDS[:3] + JSON_FIELDS[4:]:
        yield from _texts(metadata.get(field))


def _of_software(metadata: Mapping[str, str]) -> Iterator[str]:
    """Of configurations that trainers keep whole: ai-toolkit's, OneTrainer's, SimpleTuner's."""
    for field in ("training_info", "config", "software", "ot_config", "dr_config"):
        fields = _json(metadata.get(field))
        if isinstance(fields, Mapping):
            for name in ("trigger_word", "instance_prompt", "trigger"):
                yield from _texts(fields.get(name))


def _of_tags(metadata: Mapping[str, str]) -> list[str]:
    folders = _json(metadata.get(TAGS_FIELD))
    if not isinstance(folders, Mapping):
        return []
    common, named = [], []
    for folder, counts in folders.items():
        match = _REPEATS.fullmatch(str(folder))
        name = (match[2] if match else "").replace("_", " ").strip()
        if name and not _NOT_A_TRIGGER.fullmatch(name):
            named.append(name)
        if isinstance(counts, Mapping):
            numbers = {str(tag).strip(): number for tag, number in counts.items() if isinstance(number, (int, float)) and str(tag).strip()}
            top = max(numbers.values(), default=0)
            common += [tag for tag, number in numbers.items() if number == top and top > 1][:MOST]
    tokens = [tag for tag in common if len(tag) <= LONGEST]
    return [*named, *(tag for tag in tokens if tag not in named)]


def _texts(value: object) -> Iterator[str]:
    loaded = _json(value) if isinstance(value, str) and value.strip()[:1] in ("[", '"', "{") else value
    if isinstance(loaded, list):
        for one in loaded:
            yield from _texts(one)
    elif isinstance(loaded, str) and loaded.strip() and loaded.strip().lower() not in ("none", "null") and len(loaded) <= LONGEST:
        yield loaded.strip()


def _json(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None
