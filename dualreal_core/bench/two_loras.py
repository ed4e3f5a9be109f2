"""The methods of the two-LoRA benchmark: two sides that were trained apart, joined by what needs no photo or clip of theirs."""

from __future__ import annotations

from collections.abc import Mapping

from .methods import Method

_APART = ("identity", "motion")
_LEVEL = {
    "curves": "level late", "settings": {"identity_early": 0.4}, "alternatives": {"identity_early": (0.0, 0.2, 0.6, 0.8)},
}  # fmt: skip
_ALONE = {
    "curves": "identity alone late", "settings": {"identity_early": 0.4}, "alternatives": {"identity_early": (0.0, 0.2, 0.6, 0.8)},
}  # fmt: skip
_RECONCILED = {"curves": "identity alone late", "settings": {"identity_early": 0.2}}
"""At the dial that its steps were taken at."""


def _joined(name: str, title: str, what: str, settings: Mapping[str, float] | None = None, **changes: object) -> Method:
    """Both sides, put together by the joiner of the method's name."""
    return Method(name, title, what, _APART, joiner=name, settings=settings or {}, **changes)


TWO_LORA_METHODS = {
    method.name: method
    for method in (
        Method(
            "curves",
            "curves, level late",
            "independent curves over noise: motion 1.2 to .6, identity from the dial to 1.4",
            _APART,
            **_LEVEL,
        ),
        Method(
            "curves-alone",
            "curves, identity alone late",
            "motion 1.2 to .4, and out at low noise; identity from the dial to 1.2, and back to 1",
            _APART,
            **_ALONE,
        ),
        _joined(
            "picked",
            "curves, picked by previews",
            "the dial of `curves-alone` that does best in previews (other noise, fewer steps), judged against either side alone",
        ),
        _joined(
            "k-lora",
            "K-LoRA, motion early",
            "at each step each layer takes one side, by its largest entries, the motion early",
            alternatives={"alpha": (0.5, 1.0, 2.5), "beta": (0.25, 0.75, 1.0)},
        ),
        _joined("norm-balance", "equal norms", "both sides scaled to one size in each layer, added up"),
        _joined(
            "ties",
            "TIES",
            "peft's TIES on the layers' whole updates",
            {"density": 0.5, "strength": 1.0},
            alternatives={"density": (0.3, 0.8), "strength": (0.8, 1.5)},
        ),
        _joined(
            "dare",
            "DARE",
            "peft's DARE (linear) on the layers' whole updates",
            {"density": 0.8},
            alternatives={"density": (0.5, 0.9)},
        ),
        _joined("projection", "orthogonal projection", "the identity without what it writes where the motion writes, plus the motion"),
        _joined("peft-linear", "peft, linear", "add_weighted_adapter 'linear': the factors are added up, not their products"),
        _joined("peft-svd", "peft, svd", "add_weighted_adapter 'svd': the best update of rank 32 for the sum"),
        _joined("peft-ties", "peft, ties", "add_weighted_adapter 'ties': TIES on the factors", {"density": 0.5}),
        _joined("peft-dare-linear", "peft, dare_linear", "add_weighted_adapter 'dare_linear': DARE on the factors", {"density": 0.5}),
        _joined(
            "peft-magnitude-prune",
            "peft, magnitude_prune",
            "add_weighted_adapter 'magnitude_prune': the largest entries of the factors",
            {"density": 0.5},
        ),
        Method(
            "reconciled",
            "reconciled identity, curves",
            "a copy of the identity side learns, from both sides' own videos, to leave the motion's prediction as it is; on `curves-alone`",
            ("reconciled", "motion"),
            **_RECONCILED,
        ),
        Method(
            "half-reconciled",
            "half reconciled, curves",
            "half of the identity side and half of its reconciled copy, on `curves-alone`",
            ("identity", "motion", "reconciled"),
            joiner="half-reconciled",
            **_RECONCILED,
        ),
    )
}
