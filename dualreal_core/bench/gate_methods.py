"""Methods that compare what keeps the sides away from prompts that do not name them: the prompt gate, and what else there is."""

from __future__ import annotations

from .methods import Method
from .recipes import ours

GATE_METHODS = (
    Method("no-gate", "joint, no prompt gate", "ours without the prompt gate: the same sides, which act on every prompt", ("joint",), ours),
    Method(
        "gate-by-loss",
        "joint, gate by the loss",
        "ours, with a gate that learned through the denoising loss instead: on photos, clips, and the base's own of plain captions",
        ("gated-by-loss",),
        ours,
    ),
    Method(
        "sum-gated",
        "separate, summed, gated",
        "both sides trained alone and added up, with a prompt gate",
        ("gated-sum",),
        settings={"identity_share": 0.5},
    ),
    Method(
        "prior-preservation",
        "joint, prior preservation",
        "ours without the prompt gate, every other photo and clip one of the base's own, of plain captions (DreamBooth)",
        ("joint-prior",),
        ours,
        alternatives={"steps": (1600,)},
    ),
    Method(
        "prior-preservation-clips",
        "joint, prior preservation of clips",
        "the same, every other clip alone",
        ("joint-prior-clips",),
        ours,
    ),
)
