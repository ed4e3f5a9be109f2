"""What must hold of a pair on every model of `variants`: each check by its column in the matrix. `run_variant_checks` runs them.

A check raises AssertionError where the pack is at fault, and InputError where it refuses the model; it returns a reason where
the model has nothing that could be tried.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import comfy.model_management
import comfy.nested_tensor
import comfy.samplers
import comfy.sd
import torch
from blending_checks import compared, two_loras
from checkpoint_forms import LARGEST
from comfy.model_patcher import ModelPatcher
from dualreal_pack.dualreal_core.method.attach import Attachment
from dualreal_pack.dualreal_core.method.blend import FixedBlend
from dualreal_pack.dualreal_core.method.curves import parse_curves
from dualreal_pack.dualreal_core.method.pair import AdapterPair
from dualreal_pack.dualreal_core.training.checkpointing import checkpointed, safe_saving
from dualreal_pack.dualreal_core.training.loop import train
from dualreal_pack.dualreal_core.training.settings import TrainSettings
from dualreal_pack.dualreal_core.training.state import RunState
from dualreal_pack.nodes.comfy_base import FLOW_TYPES, ComfyBase
from dualreal_pack.nodes.denoising_stage import NoiseSchedule
from dualreal_pack.nodes.patching import Strengths, applied_pairs
from dualreal_pack.nodes.training_model import ready_to_train
from export_checks import exported
from gate_checks import gate, text
from safetensors.torch import load_file
from variant_bench import PROMPT_ONLY, Bench, distance, make_pair
from variant_inputs import STEPS, conditioning, noise

KINDS = ("lora", "bottleneck")
NEAR = 1e-4
"""Relative distance of what must be the same but for rounding in float32."""
QUANTIZED_NEAR = 0.15
"""Of a LoRA's effect: the stock loader rounds the sum of weight and LoRA to the format, we do not."""
TRAIN_STEPS, SAVED_AT = 4, 2
SMALL_SPREAD, STEP_SIZES, GRADIENT_NEAR, NUM_DIRECTIONS = 0.05, (0.04, 0.02), 1e-3, 2
"""Of central differences in float32, extrapolated from two steps."""
EVERYWHERE = Strengths(adapts_negative=True, audio=1.0)


def does_its_part(bench: Bench, **how: object) -> None:
    """An untrained pair changes no bit, a trained one something."""
    stock = bench.stock(**how)
    assert bench.sampled(bench.with_pair(spread=0.0), **how).equal(stock), "an untrained pair changes the latent"
    found = bench.sampled(bench.with_pair(), **how)
    assert found.isfinite().all() and not found.equal(stock), "the pair does not act"


def untrained(bench: Bench) -> None:
    for kind, strengths in (("lora", PROMPT_ONLY), ("lora", EVERYWHERE), ("bottleneck", EVERYWHERE)):
        found = bench.sampled(bench.with_pair(kind, 0.0, strengths))
        assert found.equal(bench.stock()), f"an untrained {kind} pair changes the latent"


def acts(bench: Bench) -> None:
    for kind in KINDS:
        blended = bench.with_pair(kind)
        found = bench.sampled(blended)
        assert found.isfinite().all() and distance(found, bench.stock()) > NEAR, f"a {kind} pair does not act"
    assert bench.sampled(blended).equal(found), "not the same again"
    assert not bench.sampled(bench.with_pair(kind, strengths=EVERYWHERE)).equal(found), "the negative prompt is adapted always"
    nothing = bench.with_pair(strengths=Strengths(identity=0.0, motion=0.0))
    assert bench.sampled(nothing).equal(bench.stock()), "at strength 0 it acts"


def negative(bench: Bench) -> None:
    """Negative: plain base. Predictions of both prompts at the first step, without and with the pair."""
    (plain_positive, plain_negative), (positive, adapted) = (first_step(bench, model) for model in (bench.model, bench.with_pair()))
    assert adapted.equal(plain_negative), "the pair acts on the negative prompt"
    assert not positive.equal(plain_positive), "the pair does not act on the prompt"


def first_step(bench: Bench, model: ModelPatcher, **how: object) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model predicts for the prompt and for the negative one."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(given: dict) -> torch.Tensor:
        kept.append((given["cond_denoised"], given["uncond_denoised"]))
        return given["denoised"]

    watched = model.clone()
    watched.set_model_sampler_post_cfg_function(keep)
    bench.sampled(watched, **how)
    return kept[0]


def cfg_1(bench: Bench) -> None:
    does_its_part(bench, cfg=1.0)
    alone, beside = (first_step(bench, bench.with_pair(), cfg=cfg)[0] for cfg in (1.0, 3.0))
    assert distance(alone, beside) < NEAR, "the prompt is adapted otherwise where the negative one is left out"


def batch_2(bench: Bench) -> str | None:
    if bench.variant.max_batch < 2:
        return "it takes one video at a time"
    does_its_part(bench, batch=2)
    return None


def masked(bench: Bench) -> str | None:
    """Also where the mask gives frames or tokens times of their own."""
    if not bench.variant.takes_mask:
        return "ComfyUI itself does not sample it with a mask"
    if bench.variant.sampler == "void":
        return "its sampler takes no mask"
    does_its_part(bench, is_masked=True)
    return None


def sampler(bench: Bench) -> str | None:
    """Calls between the listed sigmas."""
    if bench.variant.sampler == "void":
        return "stock samplers start it from other noise"
    for name, cfg in bench.variant.samplers.items():
        does_its_part(bench, sampler=name, cfg=cfg, steps=STEPS + 1)
    return None


def sound(bench: Bench) -> str | None:
    """Its strength is one of its own; and where the sound's latent may be absent, its layers are never called."""
    if not bench.variant.audio_shape:
        return "it makes no sound"
    if bench.variant.samples_without_sound:
        does_its_part(bench, with_audio=False)
    silent, loud = (bench.sampled(bench.with_lora(Strengths(audio=factor))) for factor in (0.0, 1.0))
    assert loud.isfinite().all() and not loud.equal(silent), "audio_strength has no effect"
    return None


def stage(bench: Bench) -> None:
    """The record has each step at its place in denoising, by its sigma, and curves go by the noise there."""
    curves = parse_curves("identity sigma 1:2 0:0")
    blended = bench.with_pair(blend=curves.blend(bench.pair().config))
    bench.sampled(blended, steps=STEPS + 1)
    (applied,) = applied_pairs(blended)
    record, sampling = applied.parts[-1].record, blended.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS + 1)[:-1].tolist()
    schedule = NoiseSchedule.of(sampling.percent_to_sigma, 0.0, 1.0)
    assert record.positions() == sorted({schedule.stage(sigma) for sigma in sigmas}), "the stage does not follow sigma"
    is_flow = bench.model.model.model_type.name in FLOW_TYPES
    levels = torch.tensor([sigma if is_flow else (sigma**2 / (1 + sigma**2)) ** 0.5 for sigma in sigmas])
    expected = applied.pair.config.scale * torch.stack([levels, torch.full_like(levels, 0.5)], dim=-1)[:, None].expand(-1, 2, -1)
    torch.testing.assert_close(record.table(), expected, rtol=0, atol=1e-5)


def blends(bench: Bench) -> None:
    """Weights decide how much of each side acts."""
    sides = [bench.sampled(bench.with_pair(blend=FixedBlend(*weights))) for weights in ((2.0, 0.0), (0.0, 2.0))]
    assert not sides[0].equal(sides[1]) and not any(one.equal(bench.stock()) for one in sides), "a side does not act"
    alone = bench.sampled(bench.with_pair(strengths=Strengths(motion=0.0), blend=FixedBlend(2.0, 1.0)))
    assert distance(alone, sides[0]) < NEAR, "strength 0 is not weight 0"
    assert bench.sampled(bench.with_pair(blend=FixedBlend(0.0, 0.0))).equal(bench.stock()), "at weights 0 it acts"


def lora(bench: Bench) -> None:
    """A LoRA of every layer that a pair may change, merged by ComfyUI's own loader, and as one side at an even blend."""
    with torch.inference_mode():
        merged = comfy.sd.load_lora_for_models(bench.model, None, load_file(bench.lora_file), 1.0, 0.0)[0]
    plain, stock, found = (first_step(bench, model)[0] for model in (bench.model, merged, bench.with_lora(EVERYWHERE)))
    effect = distance(stock, plain)
    near = QUANTIZED_NEAR * effect if bench.variant.form in LARGEST else NEAR
    assert effect > 10 * NEAR, "the LoRA has no effect"
    assert distance(found, stock) < near, f"it is {distance(found, stock)} off, of an effect of {effect}"


def detached(bench: Bench) -> None:
    """After all the others: the stock MODEL samples what it did, bit for bit, and nothing is left on it."""
    bench.sampled(bench.with_pair())
    kept = [module for module in bench.transformer.modules() if "_interceptors" in vars(module) or "forward" in vars(module)]
    kept += [module for module in bench.transformer.modules() if module._forward_hooks or module._forward_pre_hooks]
    for how, expected in list(bench.stock_results.items())[:: max(1, len(bench.stock_results) - 1)]:  # the first and the last
        assert bench.sampled(bench.model, **dict(how)).equal(expected), f"something stays, seen with {how}"
    assert not kept, f"something stays on {type(kept[0]).__name__}"


@contextmanager
def training(bench: Bench) -> Iterator[tuple[ComfyBase, dict[str, list]]]:
    """The MODEL made ready to train, from inside a node, and two samples for each side."""
    variant = bench.variant
    channels, frames, height, width = variant.latent_shape
    with torch.inference_mode(), ready_to_train(bench.model) as patcher:
        base = ComfyBase(patcher, None)
        shapes = {"identity": (channels, frames if variant.extras else 1, height, width), "motion": (channels, frames, height, width)}
        items = {}
        for seed, (role, shape) in enumerate(shapes.items()):
            latents = [{"samples": noise(20 + seed, 2, *shape)}]
            items[role] = base.prepare(role, latents, [conditioning(variant, 30)]).items
        yield base, items


def predicted(base: ComfyBase, item: object) -> torch.Tensor:
    """A prediction in training, at a timestep and of noise that are always the same."""
    timestep = base.objective.sample_timesteps(1, torch.Generator().manual_seed(6))
    noisy = base.objective.add_noise(item.latents[None], noise(7, 1, *item.latents.shape), timestep)
    return base.predict(noisy.to(base.device), timestep.to(base.device), base.batch_texts([item.text]))


def step_0(bench: Bench) -> None:
    """An untrained pair changes no bit of a prediction in training."""
    with training(bench) as (base, items):
        item = items["motion"][0]
        plain = predicted(base, item)
        for kind in KINDS:
            with Attachment(base.transformer, make_pair(base.transformer, kind, 0.0).to(base.device)) as attachment:
                attachment.stage = 0.4
                assert predicted(base, item).equal(plain), f"an untrained {kind} pair changes the prediction"


def gradients(bench: Bench) -> None:
    """Autograd against central differences along parts of the gradient, or for quantized weights, which make steps, against full ones."""
    full = None
    if bench.variant.quantizes:
        full = Bench(bench.variant.quantizes, bench.folder)
        full.variant = replace(full.variant, extras=bench.variant.extras)
    for kind in KINDS:
        with training(bench) as (base, items), torch.inference_mode(False):
            item, pair = items["motion"][0], make_pair(base.transformer, kind, SMALL_SPREAD).to(base.device)
            with Attachment(base.transformer, pair) as attachment:
                attachment.stage = 0.4
                whole = gradient(base, item, pair)
                with checkpointed(base.transformer, attachment):
                    off = distance(gradient(base, item, pair), whole)
                assert whole.isfinite().all() and whole.norm() > 0, "no gradient"
                assert off < NEAR, f"{kind}: with blocks run again gradients are {off} off"
                for seed in range(0 if full else NUM_DIRECTIONS):
                    direction = whole * (noise(seed, len(whole)) > 0)
                    direction /= direction.norm()
                    slope, found = float(whole @ direction), differences(base, item, pair, direction)
                    assert abs(found - slope) < GRADIENT_NEAR * slope, f"{kind}: {slope} by autograd, {found} by differences"
        if full:
            with training(full) as (base, items), torch.inference_mode(False):
                pair = make_pair(base.transformer, kind, SMALL_SPREAD).to(base.device)
                with Attachment(base.transformer, pair) as attachment:
                    attachment.stage = 0.4
                    off = distance(whole, gradient(base, items["motion"][0], pair))
            assert off < QUANTIZED_NEAR, f"{kind}: gradients are {off} off those of full precision"


def gradient(base: ComfyBase, item: object, pair: AdapterPair) -> torch.Tensor:
    """Of a loss of a prediction, by autograd, flat."""
    with torch.enable_grad(), safe_saving(base.family):
        pair.zero_grad()
        predicted(base, item).double().square().mean().backward()
    return torch.cat([weight.grad.double().flatten() for weight in pair.parameters()])


@torch.no_grad()
def differences(base: ComfyBase, item: object, pair: AdapterPair, direction: torch.Tensor) -> float:
    """The slope of that loss in a direction, by central differences at two step sizes."""
    start = torch.cat([weight.double().flatten() for weight in pair.parameters()])

    def loss_at(weights: torch.Tensor) -> float:
        for weight, part in zip(pair.parameters(), weights.split([one.numel() for one in pair.parameters()]), strict=True):
            weight.copy_(part.view_as(weight))
        return float(predicted(base, item).double().square().mean())

    slopes = [(loss_at(start + step * direction) - loss_at(start - step * direction)) / (2 * step) for step in STEP_SIZES]
    loss_at(start)
    return slopes[1] + (slopes[1] - slopes[0]) / 3


def resumes(bench: Bench) -> None:
    """A run that was saved half way and is taken up by another process ends with the same bits."""
    chosen = TrainSettings(steps=TRAIN_STEPS, motion_batch=1, warmup_steps=0, preservation_ratio=0.5, learning_rate=0.01, seed=3)

    def run(saved: bytes | None) -> tuple[bytes, list[float], list[torch.Tensor]]:
        """From the start, or from where it was saved: what is saved half way, the losses after that, and the pair's weights."""
        with training(bench) as (base, items), torch.inference_mode(False), torch.enable_grad():
            pair = make_pair(base.transformer, "lora", 0.0).to(base.device)
            before = [weight.detach().clone() for weight in pair.parameters()]
            with Attachment(base.transformer, pair) as attachment:
                state, losses = RunState.start(pair, chosen), []
                if saved:
                    state.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True), pair)
                for done in train(base, attachment, items, chosen, state):
                    if done.step == SAVED_AT:
                        kept = io.BytesIO()
                        torch.save(state.state_dict(pair), kept)
                        saved = kept.getvalue()
                    elif done.step > SAVED_AT:
                        losses.append(done.loss)
            assert not all(map(torch.equal, pair.parameters(), before)), "nothing was learned"
            return saved, losses, [weight.detach().clone() for weight in pair.parameters()]

    saved, losses, whole = run(None)
    _, again, resumed = run(saved)
    assert again == losses and all(map(torch.equal, whole, resumed)), "it does not resume exactly"


APPLY: dict[str, Callable[[Bench], str | None]] = {
    "untrained": untrained,
    "acts": acts,
    "negative": negative,
    "cfg 1": cfg_1,
    "batch 2": batch_2,
    "mask": masked,
    "samplers": sampler,
    "sound": sound,
    "stage": stage,
    "LoRA": lora,
    "export": exported,
}
BLEND: dict[str, Callable[[Bench], str | None]] = {
    "blend": blends,
    "two LoRAs": two_loras,
    "compared": compared,
    "gate": gate,
    "text": text,
}
TRAIN: dict[str, Callable[[Bench], str | None]] = {"step 0": step_0, "gradients": gradients, "resumes": resumes}
LAST: dict[str, Callable[[Bench], str | None]] = {"detached": detached}
CHECKS = {**APPLY, **BLEND, **TRAIN, **LAST}


def checkpoint_folder() -> Path:
    """A folder of this process."""
    return Path(tempfile.mkdtemp(prefix="variant-checks-"))
