"""What every trial is asked for: the fusion itself, the identity with known motions, and the motion with other subjects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..toyworld import world
from ..toyworld.trial import SUBJECT, Trial
from ..toyworld.world import Look

KNOWN_MOTIONS = (("circle", "mint"), ("bounce", "sky"), ("right", "sand"))
"""Motions the base knows, and backgrounds."""
OTHER_SUBJECTS = ((Look("square", "red"), "white"), (Look("heart", "blue"), "pink"), (Look("triangle", "green"), "sand"))
"""Looks the base knows, and backgrounds."""
ALL_REQUESTS = ("fused", "known_motion", "other_subject")
"""Names of the sets of requests."""


@dataclass(frozen=True)
class Request:
    """One prompt and what it asks for.

    Attributes:
        look: the other subject; None where the figure is asked for.
    """

    prompt: str
    motion: str
    background: str
    look: Look | None = None


def requests(trial: Trial) -> dict[str, list[Request]]:
    """'fused', 'known_motion' and 'other_subject', in the order that videos are sampled in.

    'fused' are the trial's own prompts and come first, so that they start from the same noise as elsewhere.
    """

    def figure(motion: str, backgrounds: Iterable[str]) -> list[Request]:
        return [Request(world.caption(SUBJECT, motion, background), motion, background) for background in backgrounds]

    return {
        "fused": figure(trial.motion, world.BACKGROUNDS),
        "known_motion": [request for motion, background in KNOWN_MOTIONS for request in figure(motion, [background])],
        "other_subject": [
            Request(world.caption(look.phrase, trial.motion, background), trial.motion, background, look)
            for look, background in OTHER_SUBJECTS
        ],
    }
