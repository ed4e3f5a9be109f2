"""Training steps and sampling calls of ours against the plain base, at the sizes of a real model with random weights."""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from outcome import Outcome, run_part
from peft import LoraConfig, inject_adapter_in_model
from shapes import SHAPES, RandomBase, tiny

from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_core.sampling import SamplingSettings, sample
from dualreal_core.training.loop import train
from dualreal_core.training.recipes import DUALREAL, PAPER, Recipe
from dualreal_core.training.state import RunState

GIB = 2**30
RECIPES = {"LoRA pair": DUALREAL, "bottleneck pair": PAPER}
LORA, RANK = "peft LoRA 32", 32
SETTINGS = SamplingSettings(1, 1, 1, num_steps=2, guidance_scale=1.0)
MOST_TIME = {"sampling": ("base", 1.3), "training": (LORA, 1.5)}
MOST_MEMORY = {"sampling": ("base", 1.0, 2, 1.0), "training": (LORA, 1.3, 4, 1.0)}
"""More than these is a fault: a factor on the time of another kind of run; a factor on its peak memory, how often the pair's size
comes on top, and GiB. docs/gpu.md has what was measured."""


@dataclass(frozen=True)
class Figures:
    """Of one call: milliseconds, peak memory in GiB, how often it waits for the device; None where the device counts nothing."""

    ms: float
    gib: float | None
    waits: int | None


def main(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Fills the table of a model."""
    shape = SHAPES[arguments.name]
    base = RandomBase(tiny(shape) if arguments.tiny else shape, arguments.device, torch.bfloat16)
    text = base.clip().text
    plain = sample(base, [text], text, SETTINGS)
    outcome.check("the base gives numbers", bool(plain.isfinite().all()))
    figures = {("sampling", "base"): measure(base, lambda: sample(base, [text], text, SETTINGS), SETTINGS.num_steps)}
    with trained_through(base) as step:
        figures["training", "base"] = measure(base, step)
    sizes = {}
    for name, recipe in RECIPES.items():
        pair = noisy_pair(base, recipe)
        sizes[name] = sum(weight.nbytes for weight in pair.parameters()) / GIB
        with our_training(base, pair, recipe) as step:
            figures["training", name] = measure(base, step)
        weights = [weight for weight in pair.parameters() if not weight.isfinite().all()]
        with Attachment(base.transformer, pair.requires_grad_(False).to(base.compute_dtype)) as attachment:
            blended = sample(base, [text], text, SETTINGS, attachment)
            call = lambda attachment=attachment: sample(base, [text], text, SETTINGS, attachment)  # noqa: E731
            figures["sampling", name] = measure(base, call, SETTINGS.num_steps)
        acts = bool(blended.isfinite().all()) and not blended.equal(plain) and not weights
        outcome.check(f"the {name} is trained, acts and gives numbers", acts)
        del pair, attachment
    outcome.check("the base is as before once pairs are taken out", sample(base, [text], text, SETTINGS).equal(plain))
    figures |= of_plain_lora(base)
    for kind, name in figures:
        outcome.rows.append(row(arguments.name, base.shape.clip, kind, name, figures))
    for name in () if arguments.tiny or arguments.device.type != "cuda" else RECIPES:
        for kind in MOST_TIME:
            compare(outcome, kind, name, figures, sizes[name])


def measure(base: RandomBase, call: Callable[[], object], num_parts: int = 1) -> Figures:
    """Median of a call, or of each of its equal parts, after one to warm up. It is called `repeats` + 2 times."""
    call()
    counts = base.device.type == "cuda"
    waits = None
    if counts:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            call()
            torch.cuda.set_sync_debug_mode("default")
        waits = sum("called a synchronizing" in str(one.message) for one in seen) // num_parts
        torch.cuda.reset_peak_memory_stats()
    else:
        call()
    seconds = []
    for _ in range(base.shape.repeats):
        if counts:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 1000)
        else:
            begun = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begun)
    return Figures(1000 * statistics.median(seconds) / num_parts, torch.cuda.max_memory_allocated() / GIB if counts else None, waits)


def noisy_pair(base: RandomBase, recipe: Recipe) -> AdapterPair:
    """A pair of the recipe's form with weights of noise, float32, on the base's device."""
    groups = {"num_groups": min(7, base.shape.config["num_layers"])}
    pair = new_pair(base.transformer, 0, **{**recipe.pair, **groups}).to(base.device)
    with torch.no_grad():
        for weight in pair.parameters():
            weight.normal_(std=0.01)
    return pair


@contextmanager
def our_training(base: RandomBase, pair: AdapterPair, recipe: Recipe) -> Iterator[Callable[[], object]]:
    """Steps of the motion side on one clip, by the loop that the command line and the nodes use."""
    settings = replace(
        recipe.train, steps=base.shape.repeats + 2, motion_ratio=1.0, motion_batch=1, warmup_steps=0, evaluate_every=0,
        gradient_checkpointing=base.shape.checkpoints,
    )  # fmt: skip
    with Attachment(base.transformer, pair) as attachment:
        steps = train(base, attachment, {"identity": [], "motion": [base.clip()]}, settings, RunState.start(pair, settings))
        yield lambda: next(steps)
        steps.close()


@contextmanager
def trained_through(base: RandomBase, weights: list[torch.nn.Parameter] | None = None) -> Iterator[Callable[[], object]]:
    """Steps that only go forwards and back to the latents, which training of any adapter does at least; or that train these weights."""
    optimizer = torch.optim.AdamW(weights) if weights else None
    item, generator = base.clip(), torch.Generator().manual_seed(0)
    latents, text = item.latents[None].to(base.device), base.batch_texts([item.text])
    if base.shape.checkpoints:
        base.transformer.enable_gradient_checkpointing()

    def step() -> None:
        noise, timestep = torch.randn_like(latents), base.objective.sample_timesteps(1, generator).to(base.device)
        noisy = base.objective.add_noise(latents, noise, timestep).requires_grad_()
        with torch.autocast(base.device.type, base.dtype):
            output = base.predict(noisy, timestep, text)
        base.objective.loss_per_sample(output, latents, noise, timestep).mean().backward()
        if optimizer is not None:
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    yield step
    if base.shape.checkpoints:
        base.transformer.disable_gradient_checkpointing()


def of_plain_lora(base: RandomBase) -> dict[tuple[str, str], Figures]:
    """One LoRA of peft on the same layers. It stays in the base, so it comes last."""
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=base.family.linear_layers()), base.transformer)
    text = base.clip().text
    sampling = measure(base, lambda: sample(base, [text], text, SETTINGS), SETTINGS.num_steps)
    weights = [weight for name, weight in base.transformer.named_parameters() if "lora_" in name]
    for weight in weights:
        weight.data = weight.data.float()
        weight.requires_grad_()
    with trained_through(base, weights) as step:
        return {("sampling", LORA): sampling, ("training", LORA): measure(base, step)}


def row(model: str, clip: str, kind: str, name: str, figures: dict[tuple[str, str], Figures]) -> dict[str, object]:
    """A line of the table."""
    own, base = figures[kind, name], figures[kind, "base"]
    what = {"sampling": "one call", "training": "one step"}[kind]
    shown = {"model": f"{model} ({clip})", "what": what, "with": name, "ms": round(own.ms, 1), "ms / base": round(own.ms / base.ms, 3)}
    return {**shown, "peak GiB": own.gib and round(own.gib, 2), "waits": own.waits}


def compare(outcome: Outcome, kind: str, name: str, figures: dict[tuple[str, str], Figures], pair_gib: float) -> None:
    """Writes down whether time and memory of a pair keep within what they may be."""
    own, (other, most) = figures[kind, name], MOST_TIME[kind]
    ratio = own.ms / figures[kind, other].ms
    outcome.check(f"{kind} with the {name} takes at most {most} times as long as with {other}", ratio <= most, f"{ratio:.2f}")
    other, factor, pairs, room = MOST_MEMORY[kind]
    bound = factor * figures[kind, other].gib + pairs * pair_gib + room
    outcome.check(f"{kind} with the {name} fits {bound:.2f} GiB", own.gib <= bound, f"{own.gib:.2f}")


if __name__ == "__main__":
    run_part(main, __doc__, tuple(SHAPES))
