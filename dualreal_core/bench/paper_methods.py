"""The paper's method given its chance on this base: its scale, width, rates and steps tuned, and LoRA instead of its bottleneck."""

from __future__ import annotations

from .methods import Method
from .recipes import paper

_MORE = {"steps": (3200,), "identity_batch": (8,), "identity_share": (0.5,)}
"""At a share of its own the trained pair is sampled at these weights, instead of those of its controller."""

PAPER_METHODS = (
    Method(
        "paper-tuned",
        "DualReal, paper's recipe, tuned",
        "the paper's adapters, placement and joint training, with the scale, width and rates that suit this base; sampled as ours",
        ("joint",),
        paper,
        settings={"scale": 0.5, "bottleneck_dim": 64, "learning_rate": 1e-2, "controller_learning_rate": 1e-4},
        alternatives={
            "scale": (0.2, 1.0),
            "bottleneck_dim": (128,),
            "learning_rate": (4e-3,),
            "controller_learning_rate": (1e-3,),
            **_MORE,
        },
    ),
    Method(
        "paper-neutral",
        "DualReal, paper's recipe, no inner skip",
        "the same, with bottlenecks that lack the inner skip, so that the untrained pair is neutral",
        ("joint",),
        paper,
        pair={"identity_kind": "bottleneck", "motion_kind": "bottleneck"},
        settings={"scale": 2.0, "bottleneck_dim": 64, "learning_rate": 1e-2, "controller_learning_rate": 1e-4},
        alternatives={"bottleneck_dim": (128,), "learning_rate": (2e-3,), "controller_learning_rate": (1e-3,), **_MORE},
    ),
    Method(
        "paper-lora",
        "DualReal, paper's recipe, LoRA",
        "the paper's joint training (both sides always on, free controller, masking) with LoRA instead of the bottleneck; sampled as ours",
        ("joint",),
        paper,
        pair={"identity_kind": "lora", "motion_kind": "lora"},
        settings={"scale": 2.0, "rank": 32, "learning_rate": 2e-3, "controller_learning_rate": 1e-4},
        alternatives={"learning_rate": (4e-3,), "controller_learning_rate": (1e-3,), **_MORE},
    ),
)
