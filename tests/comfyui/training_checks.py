"""Training on ComfyUI's own patchers, of every model that trains, without a server; `run_training_checks` runs the checks.

Each check raises where the pack is at fault.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfy.nested_tensor
import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from dualreal_pack.dualreal_core.errors import InputError
from dualreal_pack.dualreal_core.method.attach import Attachment
from dualreal_pack.dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_pack.dualreal_core.training.checkpointing import checkpointed, safe_saving
from dualreal_pack.dualreal_core.training.loop import train
from dualreal_pack.dualreal_core.training.settings import TrainSettings
from dualreal_pack.dualreal_core.training.state import RunState
from dualreal_pack.nodes.comfy_base import ComfyBase
from dualreal_pack.nodes.embedded_model import load_model
from dualreal_pack.nodes.training_experts import both_experts
from dualreal_pack.nodes.training_model import ready_to_train
from tiny_checkpoints import write_checkpoint
from variant_inputs import conditioning, noise
from variants import VARIANTS

STEPS = 4
EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6)
SINGLE_EPSILONS = (3e-2, 1e-2, 3e-3, 1e-4)
ONLY_SINGLE = ("MiniMaxH3",)
"""Models that compute in float32 at most."""
SIZES = {"rank": 2, "alpha": 2.0, "bottleneck_dim": 4, "scale": 2.0, "num_groups": 2}
def first_frame_mask(shape: Sequence[int]) -> torch.Tensor:
    """(1, 1, f, h, w), 0 at the first frame of latents (C, f, h, w), as the stock nodes make it."""
    mask = torch.ones(1, 1, *shape[1:])
    mask[:, :, 0] = 0
    return mask


IMAGES: dict[str, dict[str, object]] = {
    "hunyuan_i2v": {"concat_latent_image": noise(1, 1, 16, 3, 6, 8), "concat_mask": first_frame_mask((16, 3, 6, 8))},
}
"""First frames as our dataset nodes give them, where a model's own conditioning has another form of them."""
NO_IMAGE = "The model wants an image beside the noise (image to video), and motion_conditioning has none: switch on image_to_video"
OF_LTX2 = "wire gemma_3_12B (LTX-2.5: gemma4-12b with its projection), by Load LTXV Audio Text Encoder"
REFUSALS: dict[str, tuple[str, dict[str, object], str]] = {
    "no first frame": ("wan22_i2v", {"concat_latent_image": None}, NO_IMAGE),
    "no first frame of HunyuanVideo": ("hunyuan_i2v", {"concat_latent_image": None}, NO_IMAGE),
    "no first frame of CogVideoX": ("cogvideox_i2v", {"concat_latent_image": None}, NO_IMAGE),
    "a first frame for a control video": (
        "wan21_fun", {"concat_latent_image": noise(1, 1, 16, 3, 6, 8)},
        "The image of motion_conditioning has 16 channels, and the model reads 32 beside the noise: it wants more than a first frame",
    ),
    **{
        f"a first frame for {title}": (
            model, {"concat_latent_image": noise(1, 1, 16, 3, 6, 8)},
            f"motion_conditioning gives a first frame, which this model ({VARIANTS[model].detected}) does not read: switch off",
        )
        for model, title in {
            "wan_vace": "VACE", "wan22_s2v": "S2V", "wan_humo": "HuMo", "wan_scail": "SCAIL", "wan_scail2": "SCAIL-2",
        }.items()
    },
    "an image of another length": (
        "wan22_i2v", {"concat_latent_image": noise(1, 1, 16, 2, 6, 8)},
        "The image of motion_conditioning is made for 2 latent frames, and a sample has 3: give each sample its own",
    ),
    "an image of one frame": (
        "wan22_i2v", {"concat_latent_image": noise(1, 1, 16, 1, 6, 8)},
        "The image of motion_conditioning is made for 1 latent frames, and a sample has 3: give each sample its own",
    ),
    "another image encoder": (
        "wan21_i2v", {"clip_vision_output": SimpleNamespace(penultimate_hidden_states=noise(1, 1, 5, 1024))},
        "The image embedding of motion_conditioning is 1024 wide, and the model reads 1280: wire the image encoder of the model",
    ),
    "a clip that is given whole": ("wan22_5b", {}, "Sample 1 of the motion latents is given whole (noise mask 0): nothing is left"),
    "two samples at a time": ("h3", {}, "MiniMax-H3 computes one sample at a time: set identity_batch and motion_batch to 1"),
    "text for HunyuanVideo": (
        "hunyuan15", {"text": 4096},
        "this HunyuanVideo 1.5 model reads text of width 3584 (as of Qwen2.5-VL): wire qwen_2.5_vl_7b and byt5_small_glyphxl",
    ),
    "text for LTX-Video": ("ltx23", {"text": 4096}, f"this LTX-2 model reads text of width 96: {OF_LTX2}"),
    "text for LTX-2.5": ("ltx25", {"text": 3840}, OF_LTX2),
    "text for LTX-Video, where LTX-2 joins it": ("ltx20", {"text": 4096}, "this LTX-2 model reads text of width 64 or 128: wire gemma_3"),
    "text of no MiniMax-H3": ("h3", {"text": 4096}, "this MiniMax-H3 model reads text of width 80 or 64: wire qwen3vl_32b"),
    "no pooled text": ("kandinsky5", {"pooled_output": None}, "has no pooled output, and this Kandinsky 5 model needs one of width 768"),
}  # fmt: skip
"""What is wrong: the model, changes of its conditioning ("text": its width), and words of the sentence."""
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
    extras = {**IMAGES.get(name, {}), **extras}
    return [[[text, {**values, **extras}]] for ((text, values),) in found]


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
    """The whole DiT in float64, but for Wan's patch embeddings, whose inputs ComfyUI casts to float32."""
    dit.double()
    for module in dit.modules():
        if isinstance(getattr(module, "dtype", None), torch.dtype):
            module.dtype = torch.float64
    for name, module in dit.named_modules():
        if name.rpartition(".")[2].startswith(("patch_embedding", "vace_patch_embedding")):
            module.float()


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
    (((_, extras),),) = texts(name)
    image = extras.get("concat_latent_image")
    if image is None:
        return {}
    return {"concat_latent_image": torch.zeros(1, image.shape[1], 1, height, width), "concat_mask": torch.ones(1, 1, 1, height, width)}


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
        if "time_dim_replace" in ours:  # a given frame that the stock graph puts back behind the sampler
            made, found = made[:, :, 1:], found[:, :, 1:]
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


def what_a_model_cannot_use_is_named(case: str) -> None:
    name, changes, words = REFUSALS[case]
    (((text, extras),),), (clip,) = texts(name), clips(name, 1)
    text = noise(1, 1, 16, changes.pop("text")) if "text" in changes else text
    extras = {key: value for key, value in {**extras, **changes}.items() if value is not None}
    if "whole" in case:
        clip["noise_mask"] = torch.zeros_like(clip["noise_mask"])
    with base_of(load(name)) as base:
        try:
            items = base.prepare("motion", [clip, clip], [[[text, extras]]] * 2).items
            base.batch_texts([item.text for item in items])
        except InputError as refusal:
            assert words in str(refusal), refusal
        else:
            raise AssertionError("it is taken")


def text_to_video_needs_no_image(name: str) -> None:
    """Nor what a stock encoder may leave out; and a model that reads no first frame trains on lists that give one."""
    (((text, extras),),) = texts(name)
    optional = {} if VARIANTS[name].detected != "HunyuanVideo15" else {"pooled_output"}
    left = {key: value for key, value in extras.items() if key not in optional and "concat" not in key and "clip_vision" not in key}
    told = {"concat_latent_image": noise(1, 1, 16, 3, 6, 8), "concat_mask": first_frame_mask((16, 3, 6, 8))}
    sample = {"samples": noise(20, 1, *VARIANTS[name].latent_shape)}
    with base_of(load(name)) as base:
        sets = [base.prepare("motion", [sample], [[[text, left]]])]
        if name in ("wan", "hunyuan"):
            sets.append(base.prepare("motion", [{**sample, "noise_mask": first_frame_mask((16, 3, 6, 8))}], [[[text, {**left, **told}]]]))
        for found in sets:
            (item,) = found.items
            assert base.predict(item.latents[None], torch.tensor([0.5]), base.batch_texts([item.text])).isfinite().all()


def a_sample_without_an_image_borrows_that_of_a_clip(name: str) -> None:
    """For previews, whose prompt has no first frame: they begin with that of the first clip."""
    (((text, extras),),), (clip,) = texts(name), clips(name, 1)
    prompt = [[text, {key: value for key, value in extras.items() if "concat" not in key and "clip_vision" not in key}]]
    with base_of(load(name)) as base:
        (item,) = base.prepare("motion", [clip], [[[text, extras]]]).items
        conds = base.conds(prompt, item.latents, like=item.text)
        assert conds.keys() == item.text.keys()
        assert all(one.cond.equal(conds[key].cond) for key, one in item.text.items() if isinstance(one.cond, torch.Tensor))


def a_given_frame_is_shown_clean_and_has_no_loss(name: str) -> None:
    """The model sees it as it is, at timestep 0 where frames have their own; what it says of it teaches nothing."""
    (clip,) = clips(name, 1)
    with base_of(load(name)) as base, inputs_of(base.transformer) as calls:
        (item,) = base.prepare("motion", [clip], texts(name)).items
        latents, drawn, sigma = item.latents[None], noise(60, *item.latents[None].shape), torch.tensor([0.6])
        said = base.predict(base.objective.add_noise(latents, drawn, sigma), sigma, base.batch_texts([item.text]))
        error = (said - base.objective.target(latents, drawn, sigma)).square()
        assert error[:, :, :1].max() < 1e-8 and error[:, :, 1:].mean() > 1e-2
        shown = next(value for value in calls[0].values() if value.shape == latents.shape)
        assert shown[:, :, :1].equal(latents[:, :, :1]) and not shown[:, :, 1:].equal(latents[:, :, 1:])
        times = next(value for key, value in calls[0].items() if key.startswith("1"))
        assert times.numel() > 1 and float(times.flatten()[0]) == 0 and float(times.flatten()[-1]) > 0


def both_experts_rest_until_they_are_used(name: str) -> None:
    """Neither takes the device from the other: what both need to be told apart is read before."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        models = [load(name) for _ in range(2)]
        high = ComfyBase(stack.enter_context(ready_to_train(models[0])), None)
        both = both_experts(high, models[1], 0.875, stack)
        loaded = {id(one.model.model) for one in comfy.model_management.current_loaded_models}
        assert not loaded & {id(expert.patcher.model) for expert in both.experts}


def the_embedded_model_needs_no_image(_: str) -> None:
    """It reads planes of places beside the noise, which it fills by itself; lists that tell a first frame change nothing."""
    told = {"concat_latent_image": noise(1, 1, 16, 3, 8, 8), "concat_mask": first_frame_mask((16, 3, 8, 8))}
    sample = {"samples": noise(20, 1, 16, 3, 8, 8)}
    with torch.inference_mode():
        model = load_model()
    with base_of(model) as base:
        sets = [base.prepare("motion", [sample], [[[noise(30, 1, 16, 128), extras]]]) for extras in ({}, told)]
        (plain,), (other,) = (found.items for found in sets)
        assert plain.text["c_concat"].cond.any() and plain.text["c_concat"].cond.equal(other.text["c_concat"].cond)
        assert base.predict(plain.latents[None], torch.tensor([0.5]), base.batch_texts([plain.text])).isfinite().all()
