"""Training on ComfyUI's own patchers, of every model that trains, without a server; `run_training_checks` runs the checks.

Each check raises where the pack is at fault.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import comfy.nested_tensor
import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from dualreal_pack.dualreal_core.method.attach import Attachment
from dualreal_pack.dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_pack.dualreal_core.training.checkpointing import checkpointed, safe_saving
from dualreal_pack.dualreal_core.training.loop import train
from dualreal_pack.dualreal_core.training.settings import TrainSettings
from dualreal_pack.dualreal_core.training.state import RunState
from dualreal_pack.nodes.comfy_base import ComfyBase
from dualreal_pack.nodes.training_model import ready_to_train
from tiny_checkpoints import write_checkpoint
from variant_inputs import conditioning, noise
from variants import VARIANTS

STEPS = 4
EPSILONS = (1e-3, 1e-4, 1e-5)
SINGLE_EPSILONS = (3e-2, 1e-2, 3e-3)
ONLY_SINGLE = ("MiniMaxH3",)
"""Models that compute in float32 at most."""
SIZES = {"rank": 2, "alpha": 2.0, "bottleneck_dim": 4, "scale": 2.0, "num_groups": 2}
HELD = ("wan22_5b", "ltxv", "ltx20", "ltx23", "ltx25")
"""Models in whose latents a given frame is held clean."""


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="training-checks-"))


def load(name: str) -> ModelPatcher:
    """A fresh MODEL by ComfyUI's own loader, as a node calls it."""
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(write_checkpoint(VARIANTS[name], folder())))


def texts(name: str, count: int = 1, **extras: object) -> list[list]:
    """CONDITIONINGs of noise, with all that the model reads."""
    found = [conditioning(VARIANTS[name], 30 + index) for index in range(count)]
    return [[[text, {**values, **extras}]] for ((text, values),) in found]


def first_frame_mask(shape: Sequence[int]) -> torch.Tensor:
    """(1, 1, f, h, w), 0 at the first frame of latents (C, f, h, w), as the stock nodes make it."""
    mask = torch.ones(1, 1, *shape[1:])
    mask[:, :, 0] = 0
    return mask


def clips(name: str, count: int = 2) -> list[dict]:
    """LATENTs of noise, whose first frame is given where the model holds it."""
    shape = VARIANTS[name].latent_shape
    masks = {"noise_mask": first_frame_mask(shape)} if name in HELD else {}
    return [{"samples": noise(20 + index, 1, *shape), **masks} for index in range(count)]


@contextmanager
def base_of(model: ModelPatcher) -> Iterator[ComfyBase]:
    """A MODEL as the trainer sees it, from inside a node."""
    with torch.inference_mode(), ready_to_train(model) as patcher:
        yield ComfyBase(patcher, None)


def make_pair(base: ComfyBase, spread: float = 0.0, dtype: torch.dtype = torch.float32) -> AdapterPair:
    pair = new_pair(base.transformer, 0, identity_kind="lora", motion_kind="lora", **SIZES).to(dtype)
    for seed, weight in enumerate(pair.parameters() if spread else ()):
        weight.data = (spread * noise(seed, *weight.shape)).to(dtype)
    return pair


def an_untrained_pair_is_neutral_and_gradients_are_right(name: str) -> None:
    """It predicts as the base, bit for bit; a pair's gradients agree with central differences, in float64 where the model can."""
    with base_of(load(name)) as base:
        (item, *_) = base.prepare("motion", clips(name), texts(name, 2)).items
        latents, is_single = item.latents[None], VARIANTS[name].detected in ONLY_SINGLE
        timestep = torch.tensor([0.7] if is_flow(name) else [700])
        plain = base.predict(latents, timestep, base.batch_texts([item.text]))
        assert plain.shape == latents.shape and plain.isfinite().all()
        with Attachment(base.transformer, make_pair(base)) as attachment:
            attachment.stage = base.objective.stage(timestep)
            assert base.predict(latents, timestep, base.batch_texts([item.text])).equal(plain), "an untrained pair changes the prediction"
        dtype = torch.float32 if is_single else torch.float64
        if not is_single:
            make_double(base.transformer)
        latents, text, pair = latents.to(dtype), base.batch_texts([in_dtype(item.text, dtype)]), make_pair(base, 0.2, dtype)
        directions = [noise(90 + seed, *weight.shape).to(dtype) for seed, weight in enumerate(pair.parameters())]
        weights = noise(91, *latents.shape).to(dtype)
        with Attachment(base.transformer, pair) as attachment:
            attachment.stage = base.objective.stage(timestep)

            def loss() -> torch.Tensor:
                return (base.predict(latents, timestep, text).to(dtype) * weights).square().mean()

            slopes = [slope(loss, pair, directions, epsilon) for epsilon in (SINGLE_EPSILONS if is_single else EPSILONS)]
            for is_checkpointed in (False, True):
                pair.zero_grad(set_to_none=True)
                with safe_saving(base.family), checkpointed(base.transformer, attachment) if is_checkpointed else nullcontext():
                    loss().backward()
                along = zip([weight.grad for weight in pair.parameters()], directions, strict=True)
                found = sum(float((gradient * way).sum()) for gradient, way in along if gradient is not None)
                error = min(abs(found - one) for one in slopes) / abs(found)
                assert error < (1e-2 if is_single else 2e-4), f"{'run again' if is_checkpointed else 'kept'}: {found} is not {slopes}"


def slope(loss, pair: AdapterPair, directions: Sequence[torch.Tensor], epsilon: float) -> float:
    """Central difference of a loss along a direction."""
    kept = [weight.detach().clone() for weight in pair.parameters()]
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            for weight, start, way in zip(pair.parameters(), kept, directions, strict=True):
                weight.copy_(start + sign * epsilon * way)
            values.append(float(loss()))
        for weight, start in zip(pair.parameters(), kept, strict=True):
            weight.copy_(start)
    return (values[0] - values[1]) / (2 * epsilon)


def make_double(dit: torch.nn.Module) -> None:
    """The whole DiT in float64, but for Wan's patch embedding, whose input ComfyUI casts to float32."""
    dit.double()
    for module in dit.modules():
        if isinstance(getattr(module, "dtype", None), torch.dtype):
            module.dtype = torch.float64
    if hasattr(dit, "patch_embedding"):
        dit.patch_embedding.float()


def in_dtype(conds: dict, dtype: torch.dtype) -> dict:
    for cond in conds.values():
        if isinstance(cond.cond, torch.Tensor) and cond.cond.is_floating_point():
            cond.cond = cond.cond.to(dtype)
    return conds


def is_flow(name: str) -> bool:
    return VARIANTS[name].sampler != "void"


def a_stopped_run_ends_as_an_undisturbed_one(name: str) -> None:
    batch = min(2, VARIANTS[name].max_batch)
    settings = TrainSettings(
        steps=STEPS, warmup_steps=0, preservation_ratio=0.5, seed=3, gradient_checkpointing=True, identity_batch=batch, motion_batch=batch
    )
    with base_of(load(name)) as base:
        items = {
            "identity": base.prepare("identity", photos(name), texts(name, 2, **unknown_frame(name))).items,
            "motion": base.prepare("motion", clips(name), texts(name, 2)).items,
        }
        ends = []
        for stops in ((STEPS,), (1, STEPS)):
            state, pair, saved = None, make_pair(base), None
            for stop in stops:
                with Attachment(base.transformer, pair) as attachment:
                    state = RunState.start(pair, settings)
                    if saved is not None:
                        state.load_state_dict(saved, pair)
                    for done in train(base, attachment, items, settings, state):
                        if done.step == stop:
                            break
                saved, pair = state.state_dict(pair), make_pair(base)
            ends.append(saved["pair"])
        start = make_pair(base).state_dict()
        assert all(value.equal(ends[1][key]) for key, value in ends[0].items()), "a stopped run ends elsewhere"
        assert not all(value.equal(start[key]) for key, value in ends[0].items()), "nothing was learned"


def photos(name: str) -> list[dict]:
    channels, _, height, width = VARIANTS[name].latent_shape
    return [{"samples": noise(40 + index, 1, channels, 1, height, width)} for index in range(2)]


def unknown_frame(name: str) -> dict[str, torch.Tensor]:
    """Conditioning of photos that says that no frame is given."""
    _, _, height, width = VARIANTS[name].latent_shape
    image = VARIANTS[name].extras.get("concat_latent_image")
    if image is None:
        return {}
    return {"concat_latent_image": torch.zeros(1, image[1], 1, height, width), "concat_mask": torch.ones(1, 1, 1, height, width)}


def the_model_is_called_as_the_sampler_calls_it(name: str) -> None:
    """At one noise level: the same inputs of the DiT, and the same clean latents from what it says."""
    model, (latent,), (text,) = load(name), clips(name, 1), texts(name)
    drawn, flows = noise(60, *latent["samples"].shape), is_flow(name)
    sigmas = torch.tensor([0.7, 0.0]) if flows else model.get_model_object("model_sampling").sigmas[[700, 0]]
    start, given = (nested(one, name) for one in (latent["samples"], drawn))
    with torch.inference_mode(), inputs_of(model.model.diffusion_model) as sampled:
        made = comfy.sample.sample_custom(
            model, given, 1.0, comfy.samplers.sampler_object("euler"), sigmas, text, text, start,
            noise_mask=latent.get("noise_mask"), disable_pbar=True, seed=0,
        )  # fmt: skip
    with base_of(model) as base, inputs_of(base.transformer) as trained:
        (item,) = base.prepare("motion", [latent], [text]).items
        timestep = sigmas[:1] if flows else torch.tensor([700])
        noisy = base.objective.add_noise(item.latents[None], drawn, timestep)
        said = base.predict(noisy, timestep, base.batch_texts([item.text]))
        found = base.patcher.model.process_latent_out(noisy - timestep * said)
        asks_for_next = getattr(base.transformer, "time_r_in", None) is not None  # the sigma after this one, which training has not
    stock, ours = sampled[0], trained[0]
    if not flows:  # whose noisy latents the stock sampler scales otherwise
        stock["0"], ours["0"] = (inputs["0"][:, drawn.shape[1] :] for inputs in (stock, ours))
    assert stock.keys() == ours.keys(), f"{stock.keys() ^ ours.keys()}"
    for key, value in stock.items():
        assert torch.allclose(value, ours[key], rtol=1e-5, atol=1e-6), f"{key} differs by {(value - ours[key]).abs().max()}"
    if flows and not asks_for_next:
        made = made.unbind()[0] if made.is_nested else made
        assert torch.allclose(made, found, rtol=1e-4, atol=1e-4), f"clean latents differ by {(made - found).abs().max()}"


def nested(latent: torch.Tensor, name: str) -> torch.Tensor:
    """With a sound of no length where the model wants one."""
    if VARIANTS[name].detected != "MiniMaxH3":
        return latent
    return comfy.nested_tensor.NestedTensor([latent, latent.new_zeros(1, *VARIANTS[name].audio_shape[:-1], 0)])


@contextmanager
def inputs_of(dit: torch.nn.Module) -> Iterator[list[dict[str, torch.Tensor]]]:
    """Tensors that each call of the DiT gets, by position and name, without options."""
    calls: list[dict[str, torch.Tensor]] = []

    def keep(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        kwargs = {key: value for key, value in kwargs.items() if key not in ("transformer_options", "minimax_payload")}
        calls.append(dict(tensors_in({**dict(enumerate(args)), **kwargs})))

    hook = dit.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def tensors_in(values: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(values, torch.Tensor):
        yield prefix, values.detach().clone().float()
    elif isinstance(values, (dict, list, tuple)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from tensors_in(value, f"{prefix}.{key}" if prefix else str(key))
