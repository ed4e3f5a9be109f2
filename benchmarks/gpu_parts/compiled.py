"""torch.compile of the core's base with a pair: as one graph, that the pair acts as promised, and what compiling saves."""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from outcome import Outcome, run_part
from shapes import SHAPES, RandomBase, tiny
from speed import measure, noisy_pair

from dualreal_core.method.attach import Attachment
from dualreal_core.training.recipes import DUALREAL

MOST_TIME = 1.3
"""A call of the compiled base with a pair takes at most so many times as long as one of it alone."""
NUM_BLOCKS = 6
"""Of the model that is compiled, as a whole one takes minutes."""
MOST_ERROR = 0.05


def main(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Compiles a part of Wan 1.3B and attaches a pair to it."""
    shape = SHAPES["wan-1.3b"]
    shape = tiny(shape) if arguments.tiny else replace(shape, config={**shape.config, "num_layers": NUM_BLOCKS})
    base = RandomBase(shape, arguments.device, torch.bfloat16)
    pair = noisy_pair(base, DUALREAL).requires_grad_(False).to(base.compute_dtype)
    item = base.clip()
    inputs = [value.to(base.device) for value in (item.latents[None], torch.tensor([500]), item.text[None])]

    @torch.no_grad()
    def predict() -> torch.Tensor:
        return base.predict(*inputs)

    figures = {"base": measure(base, predict)}
    plain = predict()
    with Attachment(base.transformer, pair) as attachment:
        attachment.stage = 0.5
        expected, figures["base with a pair"] = predict(), measure(base, predict)
    base.transformer.compile(backend="inductor" if base.device.type == "cuda" else "eager", fullgraph=True)
    figures["compiled base"] = measure(base, predict)
    outcome.check("the compiled base gives what it gave", distance(predict(), plain) < MOST_ERROR, f"{distance(predict(), plain):.4f}")
    with Attachment(base.transformer, pair) as attachment:
        attachment.stage = 0.5
        figures["compiled base with a pair"] = measure(base, predict)
        error = distance(predict(), expected)
        outcome.check("a pair acts in the compiled base as in the other", error < MOST_ERROR, f"{error:.4f}")
    if not arguments.tiny:
        ratio = figures["compiled base with a pair"].ms / figures["compiled base"].ms
        outcome.check(f"a pair takes at most {MOST_TIME} times as long as the compiled base alone", ratio <= MOST_TIME, f"{ratio:.2f}")
    outcome.check("the compiled base is as before", distance(predict(), plain) < MOST_ERROR)
    for name, measured in figures.items():
        ratio, called = measured.ms / figures["base"].ms, f"{name} (wan-1.3b, {shape.config['num_layers']} blocks)"
        outcome.rows.append({"one call of": called, "ms": round(measured.ms, 1), "ms / base": round(ratio, 3)})


def distance(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, of outputs (B, C, f, h, w)."""
    return float((output.float() - expected.float()).norm() / expected.float().norm())


if __name__ == "__main__":
    run_part(main, __doc__)
