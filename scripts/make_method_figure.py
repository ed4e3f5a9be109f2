"""Draws docs/method.png: the two adapters of a site, the StageBlender over denoising and depth, and the two kinds of training step.

    python scripts/make_method_figure.py     matplotlib is needed

The shares in the heat map are those of the default recipe, read from the code.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dualreal_core.method.stage_blender import share_at
from dualreal_core.training.recipes import SHARE_SCHEDULE

OUT = Path(__file__).resolve().parents[1] / "docs" / "method.png"
INK, FAINT, PAPER = "#20242b", "#8a919c", "#ffffff"
IDENTITY, MOTION, FROZEN, BLOCK = "#0a6fb0", "#d65a05", "#b9bec6", "#eef0f3"
NUM_STEPS, NUM_GROUPS = 20, 7
SHARES = LinearSegmentedColormap.from_list("shares", [MOTION, "#f7f5f2", IDENTITY])


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str = BLOCK, ink: str = INK) -> None:
    """A rounded box with its lower left corner at (x, y) and centred text."""
    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", facecolor=color, edgecolor="none")
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=ink, fontsize=9, linespacing=1.35)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    """A straight arrow."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0})


def panel(axes: Axes, title: str, width: float, height: float) -> None:
    """An empty drawing area of `width` x `height` units."""
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=8)


def draw_site(axes: Axes) -> None:
    """One site of one block: the site's own output plus both weighted adapters."""
    panel(axes, "1  In every block: two adapters", 10, 10)
    axes.text(5, 0.35, "tokens x", ha="center", color=INK, fontsize=9)
    for x, width, text, color, ink in (
        (0.1, 2.9, "identity\nadapter", IDENTITY, PAPER),
        (3.4, 3.2, "attention or\nfeed-forward\n(unchanged)", BLOCK, INK),
        (7.0, 2.9, "motion\nadapter", MOTION, PAPER),
    ):
        middle = x + width / 2
        axes.plot([middle, middle], [1.2, 1.7], color=INK, linewidth=1.2)
        arrow(axes, (middle, 1.6), (middle, 2.3))
        box(axes, x, 2.3, width, 2.2, text, color, ink)
        arrow(axes, (middle, 4.5), (middle, 6.2))
    axes.plot([1.55, 8.45], [1.2, 1.2], color=INK, linewidth=1.2)
    axes.plot([5, 5], [0.9, 1.2], color=INK, linewidth=1.2)
    axes.text(1.8, 5.25, "× $w_{identity}$", color=IDENTITY, fontsize=10, va="center")
    axes.text(8.2, 5.25, "× $w_{motion}$", color=MOTION, fontsize=10, va="center", ha="right")
    box(axes, 0.1, 6.2, 9.8, 1.1, "sum")
    arrow(axes, (5, 7.3), (5, 8.4))
    axes.text(5, 8.75, "to the next part of the block", ha="center", color=INK, fontsize=9)


def draw_blender(axes: Axes) -> None:
    """Identity shares over denoising steps and groups of blocks."""
    axes.set_title("2  StageBlender: stage × depth", loc="left", color=INK, fontsize=11, fontweight="bold", pad=8)
    stages = torch.linspace(0, 1, NUM_STEPS)
    shares = share_at(SHARE_SCHEDULE, stages).expand(NUM_GROUPS, NUM_STEPS)  # (G, S)
    image = axes.imshow(shares, cmap=SHARES, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks([0, NUM_STEPS - 1], ["noise", "clean"], color=INK, fontsize=9)
    axes.set_yticks([0, NUM_GROUPS - 1], ["first\nblocks", "last\nblocks"], color=INK, fontsize=9)
    early, late = SHARE_SCHEDULE[0], SHARE_SCHEDULE[-1]
    axes.set_xlabel(f"denoising: share of the identity, {early} early and {late} late", color=INK, fontsize=9, labelpad=4)
    axes.tick_params(length=0)
    axes.set_xticks([step + 0.5 for step in range(NUM_STEPS - 1)], minor=True)
    axes.set_yticks([group + 0.5 for group in range(NUM_GROUPS - 1)], minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["motion", "even", "identity"], color=INK, fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def draw_steps(axes: Axes) -> None:
    """The two kinds of training step."""
    panel(axes, "3  Training: one side per step", 10, 10)
    for y, role, data, first, second in (
        (5.6, "identity step", "photos", (IDENTITY, "identity\ntrains", PAPER), (FROZEN, "motion\nfrozen", INK)),
        (1.6, "motion step", "clips", (FROZEN, "identity\nfrozen", INK), (MOTION, "motion\ntrains", PAPER)),
    ):
        axes.text(0, y + 2.9, role, color=INK, fontsize=9, fontweight="bold")
        box(axes, 0, y, 1.9, 2.4, data)
        arrow(axes, (1.95, y + 1.2), (2.75, y + 1.2))
        for x, (color, text, ink) in ((2.8, first), (5.1, second)):
            box(axes, x, y, 2.1, 2.4, text, color, ink)
        arrow(axes, (7.25, y + 1.2), (8.05, y + 1.2))
        box(axes, 8.1, y, 1.9, 2.4, "the base's\nown loss")
    axes.text(0, 0.85, "Frozen: no gradient, no update.", color=INK, fontsize=9, va="top")
    axes.text(0, 0.2, "The paper keeps it in the pass; the default leaves it out.", color=INK, fontsize=9, va="top")


def main() -> None:
    """Draws and writes the figure."""
    figure = Figure(figsize=(13, 3.7), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1.15, 1.15))
    draw_site(axes[0])
    draw_blender(axes[1])
    draw_steps(axes[2])
    figure.get_layout_engine().set(wspace=0.08)
    figure.savefig(OUT, dpi=110, facecolor=PAPER, metadata={"Software": None})


if __name__ == "__main__":
    main()
