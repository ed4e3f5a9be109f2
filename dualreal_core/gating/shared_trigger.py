"""The trigger of an identity by the captions of its photos: what they all hold and other prompts do not."""

from __future__ import annotations

from collections.abc import Sequence

from .generic_prompts import generic_prompts
from .words import words_of

MEDIA = {
    "photo", "photos", "photograph", "image", "picture", "video", "clip", "film", "footage", "portrait", "selfie", "shot", "close-up",
    "closeup", "view", "angle", "style", "drawing", "painting", "illustration", "sketch", "render", "rendering", "cartoon", "anime",
    "realistic", "high", "quality", "detailed",
}  # fmt: skip
"""What captions say of the picture itself."""


def shared_trigger(captions: Sequence[str]) -> str:
    """The first run of words that every caption holds and no generic prompt does, as 'sks' of 'a sks dog on grass'; empty without one."""
    spoken = [words_of(caption) for caption in captions]
    known = {word for template in generic_prompts() for word in words_of(template.text)}
    rare = set.intersection(*map(set, spoken)) - known - MEDIA if spoken else set()
    run: list[str] = []
    for word in spoken[0] if spoken else ():
        if word in rare:
            run.append(word)
        elif run:
            break
    return " ".join(run)
