"""The ranking: what each method keeps of the motion against what it keeps of the identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files.atomic import atomic_path
from ..plots.typography import ROLE_COLOURS
from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS, OTHERS, BARS = (tuple(part / 255 for part in rgb) for rgb in (ROLE_COLOURS["identity"], (96, 104, 116), (176, 182, 190)))
AXES = {"retention_identity": "retention of the identity", "retention_motion": "retention of the motion"}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError('The benchmark draws with matplotlib, which is not installed: pip install "dualreal[plots]".') from error
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def can_rank(summary: Summary) -> bool:
    """Whether both retentions are defined."""
    return all(summary.estimates[measure].mean is not None for measure in AXES)


def ranking_plot(summaries: Sequence[Summary], title: str) -> Figure:
    """A numbered dot with interval bars for each method that has both retentions, best first; names stand beside the axes.

    Raises:
        InputError: matplotlib is not installed.
        ValueError: no method has both retentions.
    """
    shown = [summary for summary in summaries if can_rank(summary)]
    if not shown:
        raise ValueError("A ranking needs at least one method with both retentions.")
    shown.sort(key=lambda summary: -min(summary.estimates[measure].mean for measure in AXES))
    figure = new_figure(9, 6)
    axes, names = figure.subplots(1, 2, width_ratios=(5, 3))
    for number, summary in reversed(list(enumerate(shown, 1))):
        x, y = (summary.estimates[measure] for measure in AXES)
        is_ours, order = summary.method == "ours", 3 * (len(shown) - number)
        colour, bars = (OURS, OURS) if is_ours else (OTHERS, BARS)
        if x.low is not None:
            axes.hlines(y.mean, x.low, x.high, bars, linewidth=1.8, zorder=2)
        if y.low is not None:
            axes.vlines(x.mean, y.low, y.high, bars, linewidth=1.8, zorder=2)
        axes.scatter(x.mean, y.mean, 150, [colour], edgecolors="white", zorder=order + 3)
        axes.text(x.mean, y.mean, str(number), color="white", size=8, ha="center", va="center_baseline", zorder=order + 4)
        style = {"color": colour, "weight": "bold"} if is_ours else {"color": "black"}
        line = 1 - number / max(len(shown), 20)
        names.text(0.02, line, str(number), ha="right", **style)
        names.text(0.08, line, summary.title, **style)
    names.set_axis_off()
    names.set(xlim=(0, 1), ylim=(0, 1))
    axes.set(xlabel=AXES["retention_identity"], ylabel=AXES["retention_motion"])
    axes.grid(color="0.9")
    axes.axhline(1, color="0.6", linewidth=0.8, linestyle="dashed", zorder=1)  # as much as the side alone
    axes.axvline(1, color="0.6", linewidth=0.8, linestyle="dashed", zorder=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.02, ha="left", weight="bold")
    return figure


def write_png(path: Path, figure: Figure) -> None:
    """Writes a figure atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
