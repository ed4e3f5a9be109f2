"""Part `training`: one optimizer step of a side, against plain LoRA of peft and against the reference's arithmetic; its FLOPs too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from gpu_parts.shapes import RandomBase
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dualreal_core.method.pair import ROLES, Role
from dualreal_core.training.loop import train
from dualreal_core.training.recipes import DUALREAL, PAPER
from dualreal_core.training.state import RunState

from .measuring import Row, take_turns
from .models import TRAINED, Size, attach, inject_plain_lora, is_conditioned, item_of, make_base, make_pair, twin
from .reference import ReferencePair

PLAIN, REFERENCE = "peft, LoRA 32", "reference's arithmetic"
SHORT = {PLAIN: "peft", REFERENCE: "reference"}
OURS = {"LoRA 32": DUALREAL, "bottleneck 64": DUALREAL, "paper's form": PAPER}
"""Pairs that are trained, and the recipes whose settings that happens by."""


@dataclass(frozen=True)
class Step:
    """An optimizer step: `take` does one; `modules` hold all weights that it reads."""

    take: Callable[[], object]
    modules: list[nn.Module]


def run(quick: bool, rounds: int) -> Iterator[Row]:
    """A line for each arm, side and size."""
    for size in TRAINED:
        size = size.tiny if quick else size
        for role in ROLES:
            steps: dict[str, Step] = {}
            timings = take_turns({name: partial(_taken, steps, name, make) for name, make in arms(size, role).items()}, rounds)
            flops = {name: _flops(step) for name, step in steps.items() if name in timings.seconds}
            for name in arms(size, role):
                ratios = {other: timings.ratio(name, other) if name != other else None for other in (PLAIN, REFERENCE)}
                counted = {other: flops[name] / flops[other] for other in ratios if name in flops and other in flops}
                shown = {f"/ {SHORT[other]}": ratio and ratio.text() for other, ratio in ratios.items()}
                shown |= {f"FLOPs / {SHORT[other]}": f"{counted[other]:.3f}" if other in counted else None for other in ratios}
                number = len(timings.seconds.get(name, []))
                yield Row(
                    {"model": size.title, "step": role, "arm": name, **shown, "rounds": number, "note": timings.reasons.get(name, "")},
                    {
                        "ratios": {other: asdict(ratio) for other, ratio in ratios.items() if ratio},
                        "cpu_s": timings.seconds.get(name),
                        "flops": flops.get(name),
                    },
                )


def arms(size: Size, role: Role) -> Mapping[str, Callable[[], Step]]:
    """What prepares the steps of a side, by name. A photo comes alone, clips in batches."""
    base, batch = make_base(size), 1 if role == "identity" else size.batch
    ours = {f"ours, {name}": partial(_ours, base, role, batch, name) for name in OURS}
    plain = partial(_plain, base, role, batch)
    return {PLAIN: plain, f"{PLAIN}, again": plain, REFERENCE: partial(_reference, base, role, batch), **ours}


def _taken(steps: dict[str, Step], name: str, make: Callable[[], Step]) -> Callable[[], object]:
    steps[name] = make()
    return steps[name].take


def _flops(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step.take()
    return counter.get_total_flops()


def _plain(base: RandomBase, role: Role, batch: int) -> Step:
    base = twin(base)
    weights = inject_plain_lora(base, ("default",))
    return Step(_by_hand(base, weights, role, batch, lambda: None), [base.transformer])


def _reference(base: RandomBase, role: Role, batch: int) -> Step:
    base = twin(base)
    pair = ReferencePair(base)
    pair.condition = item_of(base, role).conditions if role == "motion" else None
    take = _by_hand(base, list(pair.parameters()), role, batch, partial(pair.drop_gradients, role))
    return Step(take, [base.transformer, pair])


def _by_hand(base: RandomBase, weights: list[nn.Parameter], role: Role, batch: int, mask: Callable[[], None]) -> Callable[[], None]:
    """The step that the loop takes, of any weights; `mask` comes between backward pass and clipping."""
    optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    item, generator = item_of(base, role), torch.Generator().manual_seed(0)
    latents, text = item.latents.expand(batch, *item.latents.shape).contiguous(), base.batch_texts([item.text] * batch)

    def take() -> None:
        noise, timestep = torch.randn(latents.shape, generator=generator), base.objective.sample_timesteps(batch, generator)
        output = base.predict(base.objective.add_noise(latents, noise, timestep), timestep, text)
        base.objective.loss_per_sample(output, latents, noise, timestep).mean().backward()
        mask()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take


def _ours(base: RandomBase, role: Role, batch: int, name: str) -> Step:
    base = twin(base)
    pair = make_pair(base, name)
    settings = replace(
        OURS[name].train, steps=1_000_000, motion_ratio=float(role == "motion"), motion_batch=batch, identity_batch=batch,
        preservation_ratio=0.0, warmup_steps=0, evaluate_every=0,
    )  # fmt: skip
    item = item_of(base, role)
    items = {other: [item if is_conditioned(name) else replace(item, conditions=None)] for other in ROLES}
    steps = train(base, attach(base, pair), items, settings, RunState.start(pair, settings))
    return Step(lambda: next(steps), [base.transformer, pair])
