"""Peers that came after the paper: methods that train a subject and a motion for one video DiT, as far as this base has what they need."""

from __future__ import annotations

from .methods import Method

PEER_METHODS = (
    Method(
        "jointtuner",
        "JointTuner style",
        "one gated LoRA of twice the rank on photos and clips, the clips' predictions shifted by noise that all frames share",
        ("jointtuner",),
        joiner="jointtuner",
        settings={"learning_rate": 4e-3},
        alternatives={"learning_rate": (2e-3,), "identity_batch": (8,)},
        is_baseline=True,
    ),
    Method(
        "smrabooth",
        "SMRABooth style",
        "both sides trained alone on layers of their own (q, k and the first of the feed-forward; v, out and both of it), added up, the "
        "identity at a lower weight early in denoising and twice that later",
        ("sparse-identity", "sparse-motion"),
        joiner="smrabooth",
        settings={"learning_rate": 2e-3, "identity_early": 0.7, "switch": 0.3},
        alternatives={"learning_rate": (4e-3,), "identity_early": (0.4, 0.5, 1.0), "switch": (0.5,), "identity_batch": (8,)},
        is_baseline=True,
    ),
)
"""Beside them stand K-LoRA, TIES and DARE, which join two sides that were trained alone (`two_loras`)."""
