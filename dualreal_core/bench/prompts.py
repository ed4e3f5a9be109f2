"""What every trial is asked for: the fusion itself, either side alone, and prompts that name neither."""

from __future__ import annotations

from dataclasses import dataclass

from ..toyworld import world
from ..toyworld.trial import NAMELESS, SUBJECT, Trial
from ..toyworld.world import Look

KNOWN_MOTIONS = (("circle", "mint"), ("bounce", "sky"), ("right", "sand"))
MORE_KNOWN_MOTIONS = (
    ("left", "white"), ("rise", "pink"), ("fall", "mint"), ("dive", "sky"), ("sway", "sand"), ("jump", "white"), ("still", "pink"),
)  # fmt: skip
"""Motions the base knows, and backgrounds. Those of `KNOWN_MOTIONS` and these are all of them."""
OTHER_SUBJECTS = ((Look("square", "red"), "white"), (Look("heart", "blue"), "pink"), (Look("triangle", "green"), "sand"))
"""Looks the base knows, and backgrounds."""
NEITHER = (
    (Look("square", "red"), "circle", "sky"),
    (Look("heart", "blue"), "bounce", "white"),
    (Look("triangle", "green"), "right", "mint"),
    (Look("circle", "purple"), "left", "sand"),
    (Look("star", "yellow"), "rise", "white"),
    (Look("ring", "black"), "fall", "pink"),
    (Look("cross", "blue"), "dive", "mint"),
    (Look("diamond", "red", "stripes", "black"), "sway", "sky"),
    (Look("square", "green", "sides", "yellow"), "jump", "pink"),
    (Look("heart", "purple", "feet", "yellow"), "still", "sand"),
)
"""Looks and motions the base knows, and backgrounds."""
UNTRIGGERED = (("circle", "sand"), ("left", "sky"), ("jump", "mint"), ("fall", "white"), ("sway", "pink"))
"""Motions the base knows, and backgrounds, for a figure that is not called by the trigger."""


@dataclass(frozen=True)
class Request:
    """One prompt and what it asks for.

    Attributes:
        look: the other subject; None where a figure is asked for.
    """

    prompt: str
    motion: str
    background: str
    look: Look | None = None


def requests(trial: Trial) -> dict[str, list[Request]]:
    """The sets of `request_sets.ALL_REQUESTS`, in the order that videos are sampled in.

    'fused' are the trial's own prompts and come first, so that they start from the same noise as elsewhere; sets that came later
    come last, so that the former ones start from the noise that they always did.
    """

    def figure(motion: str, background: str, subject: str = SUBJECT) -> Request:
        return Request(world.caption(subject, motion, background), motion, background)

    def other(look: Look, motion: str, background: str) -> Request:
        return Request(world.caption(look.phrase, motion, background), motion, background, look)

    return {
        "fused": [figure(trial.motion, background) for background in world.BACKGROUNDS],
        "known_motion": [figure(*asked) for asked in KNOWN_MOTIONS],
        "other_subject": [other(look, trial.motion, background) for look, background in OTHER_SUBJECTS],
        "more_known_motions": [figure(*asked) for asked in MORE_KNOWN_MOTIONS],
        "neither": [other(*asked) for asked in NEITHER],
        "untriggered": [figure(*asked, NAMELESS) for asked in UNTRIGGERED],
    }
