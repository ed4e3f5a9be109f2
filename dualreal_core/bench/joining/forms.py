"""Forms of blend curves that the two-LoRA benchmark compares; the dial `early` is the identity's weight in noise."""

from __future__ import annotations

from ...method.curves import BlendCurves, parse_curves

FORMS = {
    "level late": "identity sigma 1:{early:g} 0.818:{early:g} 0.667:1.4 0:1.4; motion sigma 1:1.2 0.818:1.2 0.667:0.6 0:0.6",
    "identity alone late": "identity sigma 1:{early:g} 0.818:{early:g} 0.667:1.2 0.4:1 0:1; "
    "motion sigma 1:1.2 0.818:1.2 0.667:0.4 0.4:0 0:0",
}
"""Text of the curves by name. Between noise levels .818 and .667, stages .4 and .6 of a schedule of shift 3, the motion hands over;
in the second form it leaves by .4, and the identity is back at the weight that it was trained at."""
BEST_FORM = "identity alone late"
"""On the tuning pairs."""


def curves_of(form: str, early: float) -> BlendCurves:
    """The curves of a form at a setting of the dial."""
    return parse_curves(FORMS[form].format(early=early))
