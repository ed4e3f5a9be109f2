"""The pack on ComfyUI's own patchers and samplers without a server; `patcher_cases` lists the cases, `run_patcher_checks` runs them.

Each check raises where the pack is at fault, and returns a reason where it cannot be tried.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import comfy.model_management
import comfy.sample
import comfy.sd
import torch
import torch._dynamo
from architectures import ARCHITECTURES
from checkpoint_forms import in_form
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from dualreal_pack.dualreal_core.errors import InputError
from dualreal_pack.dualreal_core.families import family_of
from dualreal_pack.dualreal_core.method.attach import Attachment
from dualreal_pack.dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_pack.dualreal_core.training.loop import train
from dualreal_pack.dualreal_core.training.settings import TrainSettings
from dualreal_pack.dualreal_core.training.state import RunState
from dualreal_pack.nodes.comfy_base import ComfyBase
from dualreal_pack.nodes.patching import Strengths, applied_pairs, apply_pair
from dualreal_pack.nodes.training_model import ready_to_train
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_checkpoint
from torch._dynamo.utils import counters
from torch.autograd.graph import saved_tensors_hooks

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "cast to float8": torch.float8_e4m3fn}
QUANTIZED = "float8_e4m3fn"
STEPS, SAMPLING_STEPS, COMPILED_STEPS = 4, 2, 6


@cache
def models() -> Path:
    """A folder for tiny checkpoints."""
    return Path(tempfile.mkdtemp(prefix="patcher-checks-"))


def load(name: str, form: str = "fp32") -> ModelPatcher:
    """A fresh MODEL by ComfyUI's own loader, as a node calls it; forms other than fp32 compute in bfloat16."""
    file = write_checkpoint(ARCHITECTURES[name], models())
    if form == QUANTIZED:
        quantized, metadata = in_form(load_file(file), QUANTIZED)
        file = models() / f"{QUANTIZED}.safetensors"
        save_file(quantized, file, metadata)
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": TYPES[form]} if form in TYPES else {})
    if form != "fp32":
        model.set_model_compute_dtype(torch.bfloat16)
    return model


def noise(seed: int, *shape: int) -> torch.Tensor:
    """The same numbers for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioning(name: str, seed: int) -> list:
    """CONDITIONING of noise."""
    architecture = ARCHITECTURES[name]
    extras = {"pooled_output": noise(seed + 1, 1, architecture.pooled_dim)} if architecture.pooled_dim else {}
    if architecture.needs_text_mask:
        extras["attention_mask"] = torch.ones(1, 16, dtype=torch.long)
    return [[noise(seed, 1, 16, architecture.text_dim), extras]]


def make_pair(transformer: torch.nn.Module, kind: str = "lora", spread: float = 0.0) -> AdapterPair:
    """A pair of small sizes, with noise for weights where there is a spread."""
    with torch.inference_mode(False):
        pair = new_pair(
            transformer, 0, identity_kind=kind, motion_kind=kind, rank=4, alpha=4.0, bottleneck_dim=8, scale=2.0, num_groups=2
        )
        for seed, weight in enumerate(pair.parameters() if spread else ()):
            weight.data = spread * noise(seed, *weight.shape)
        return pair


def with_pair(model: ModelPatcher, kind: str = "lora", spread: float = 0.2) -> ModelPatcher:
    """The MODEL with a pair of noise on the rows of the prompt."""
    return apply_pair(model, make_pair(model.model.diffusion_model, kind, spread).requires_grad_(False), Strengths())


def sampled(name: str, model: ModelPatcher, steps: int = SAMPLING_STEPS) -> torch.Tensor:
    """A guided latent, on the CPU."""
    latent, prompts = noise(5, 1, *ARCHITECTURES[name].latent_shape), [conditioning(name, seed) for seed in (11, 12)]
    with torch.inference_mode():
        done = comfy.sample.sample(
            model, latent, steps, 3.0, "euler", "simple", *prompts, latent * 0, disable_pbar=True, seed=0
        )
    return done.float().cpu()


def losses(name: str, model: ModelPatcher, **settings: object) -> list[float]:
    """Trains a pair on a MODEL for some steps, from inside a node."""
    shape = ARCHITECTURES[name].latent_shape
    chosen = TrainSettings(**{"steps": STEPS, "motion_batch": 1, "warmup_steps": 0, "preservation_ratio": 0.5, "seed": 3, **settings})
    with torch.inference_mode(), ready_to_train(model) as patcher:
        base = ComfyBase(patcher, None)
        clips = {"identity": noise(20, 2, shape[0], 1, *shape[2:]), "motion": noise(21, 2, *shape)}
        items = {role: base.prepare(role, [{"samples": clip}], [conditioning(name, 30)]).items for role, clip in clips.items()}
        pair = make_pair(base.transformer).to(base.device)
        before = [weight.detach().clone() for weight in pair.parameters()]
        with Attachment(base.transformer, pair) as attachment:
            found = [done.loss for done in train(base, attachment, items, chosen, RunState.start(pair, chosen))]
        assert all(weight.isfinite().all() and weight.dtype == torch.float32 for weight in pair.parameters())
        assert not all(map(torch.equal, pair.parameters(), before)), "nothing was learned"
    return found


def assert_near(values: Sequence[float], expected: Sequence[float], relative: float) -> None:
    assert len(values) == len(expected)
    far = [pair for pair in zip(values, expected, strict=True) if not abs(pair[0] - pair[1]) <= relative * abs(pair[1])]
    assert not far, f"{values} is not {expected}"


def distance(latent: torch.Tensor, expected: torch.Tensor) -> float:
    return float((latent - expected).norm() / expected.norm())


def samples_exactly_as_the_base_where_the_pair_does_nothing(name: str, form: str, kind: str) -> None:
    model = load(name, form)
    plain = sampled(name, model)
    assert plain.isfinite().all()
    assert sampled(name, with_pair(model, kind, spread=0.0)).equal(plain), "an untrained pair changes the latent"
    blended = with_pair(model, kind)
    first = sampled(name, blended)
    assert first.isfinite().all() and not first.equal(plain), "the pair does not act"
    assert sampled(name, blended).equal(first), "not the same again"
    (applied,) = applied_pairs(blended)
    assert len(applied.parts[-1].record.calls) == SAMPLING_STEPS, "a call of the model was not recorded"
    assert sampled(name, model).equal(plain), "something stays"
    kept = [module for module in model.model.diffusion_model.modules() if "_interceptors" in vars(module)]
    assert not kept, "interceptors stay"


def trains_also_with_blocks_run_again(name: str, form: str) -> None:
    model = load(name, form)
    plain = sampled(name, model)
    kept = losses(name, model)
    assert_near(losses(name, model, gradient_checkpointing=True), kept, 1e-3 if form == "fp32" else 0.02)
    assert sampled(name, model).equal(plain), "the MODEL has changed"


def samples_then_trains_then_samples_on_one_model(name: str, form: str) -> None:
    """The pair that the MODEL carries acts in training too."""
    model = load(name, form)
    blended = with_pair(model)
    before = sampled(name, blended)
    assert losses(name, blended) != losses(name, model), "the pair that the MODEL carries is left out of training"
    assert sampled(name, blended).equal(before)


def float8_weights_train_and_sample_nearly_as_full_ones(form: str) -> None:
    exact, model = load("wan"), load("wan", form)
    assert_near(losses("wan", model), losses("wan", exact), 0.1)
    plain = sampled("wan", model)
    assert sampled("wan", with_pair(model, spread=0.0)).equal(plain)
    found = sampled("wan", with_pair(model))
    assert not found.equal(plain) and distance(found, sampled("wan", with_pair(exact))) < 0.3


def weights_made_for_a_call_are_not_kept(name: str, form: str) -> None:
    """Those of float8 layers, cast for each call, would fill memory in full precision."""
    with torch.inference_mode(), ready_to_train(load(name, form)) as patcher:
        base = ComfyBase(patcher, None)
        shapes = {tuple(weight.shape) for weight in base.transformer.parameters() if weight.ndim == 2}
        shapes |= {shape[::-1] for shape in shapes}
        clips = [{"samples": noise(21, 1, *ARCHITECTURES[name].latent_shape)}]
        (item,) = base.prepare("motion", clips, [conditioning(name, 30)]).items
        latents, sigma, text = item.latents[None].to(base.device), torch.tensor([0.5], device=base.device), base.batch_texts([item.text])

        def passed() -> tuple[int, torch.Tensor]:
            """Weights that one call keeps, and all gradients."""
            kept: list[torch.Tensor] = []
            pair = make_pair(base.transformer, spread=0.2).to(base.device)
            with Attachment(base.transformer, pair) as attachment:
                attachment.stage = 0.5
                with saved_tensors_hooks(lambda one: (kept.append(one), one)[1], lambda one: one):
                    output = base.predict(latents, sigma, text)
                output.float().square().mean().backward()
            made = [one for one in kept if not isinstance(one, torch.nn.Parameter) and one.dtype == base.compute_dtype]
            return sum(tuple(one.shape) in shapes for one in made), torch.cat([weight.grad.flatten() for weight in pair.sides.parameters()])

        found, gradients = passed()
        for module in base.transformer.modules():
            vars(module).pop("forward", None)
        found_without, expected = passed()
    assert found == 0 and found_without > 10, f"{found} weights are kept, and {found_without} without"
    assert distance(gradients, expected) < 0.02


@contextmanager
def little_memory() -> Iterator[None]:
    """Inside, weights stay in main memory and are copied to the device layer by layer."""
    kept = comfy.model_management.vram_state
    comfy.model_management.unload_all_models()
    comfy.model_management.vram_state = comfy.model_management.VRAMState.NO_VRAM
    try:
        yield
    finally:
        comfy.model_management.vram_state = kept


def weights_in_main_memory_sample_as_loaded_ones(form: str) -> str | None:
    """And they are loaded in full to train, or training is refused in a sentence."""
    if comfy.model_management.get_torch_device().type == "cpu":
        return "on the CPU all weights are in main memory"
    model = load("wan", form)
    blended = with_pair(model)
    expected, expected_losses = sampled("wan", blended), losses("wan", blended)
    with little_memory():
        found = sampled("wan", blended)
        places = {weight.device.type for weight in model.model.diffusion_model.parameters()}
        assert "cpu" in places, "all weights were on the device, so this shows nothing"
        try:
            losses("wan", blended)
        except InputError as refusal:
            assert "left weights" in str(refusal)
        else:
            raise AssertionError("it trains with weights in main memory")
    assert distance(found, expected) < 1e-3
    assert_near(losses("wan", blended), expected_losses, 1e-3)
    return None


def no_site_waits_for_the_device(kind: str) -> str | None:
    if comfy.model_management.get_torch_device().type != "cuda":
        return "only CUDA counts what this asks for"
    model, counts = load("wan", "bf16"), []
    for num_blocks in (1, len(model.model.diffusion_model.blocks)):
        pair = make_pair(model.model.diffusion_model, kind, 0.2).requires_grad_(False)
        for side in pair.sides.values():
            for key in [key for key in side if int(key.partition("-")[0]) >= num_blocks]:
                del side[key]
        blended = apply_pair(model, pair, Strengths(adapts_negative=True))
        counts.append(waits(lambda blended=blended: sampled("wan", blended)))
    assert counts[0] == counts[1], f"with the pair in one block sampling waits {counts[0]} times, in all {counts[1]} times"
    return None


def waits(call: Callable[[], object]) -> int:
    """How often the second call makes the host wait for the device."""
    call()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(one.message) for one in seen)


def compiled_code_has_the_pair_in_it(name: str, first: str, part: str) -> None:
    """The whole DiT, or each block, as one graph where it is one without the pair, and not anew from step to step."""
    model = load(name)
    expected = sampled(name, with_pair(model), steps=COMPILED_STEPS)

    def counted(found: ModelPatcher) -> tuple[torch.Tensor, int, int]:
        torch._dynamo.reset()
        counters.clear()
        latent = sampled(name, found, steps=COMPILED_STEPS)
        return latent, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())

    plain, graphs, breaks = counted(compiled(model, part))
    assert plain.equal(sampled(name, model, steps=COMPILED_STEPS)) and graphs, "the plain model is not compiled, so this shows nothing"
    both = with_pair(compiled(model, part)) if first == "compiled" else compiled(with_pair(model), part)
    latent, graphs_with_pair, breaks_with_pair = counted(both)
    assert distance(latent, expected) < 1e-6, "another latent"
    assert (graphs_with_pair, breaks_with_pair) == (graphs, breaks), "the pair breaks a graph, or has it compiled anew"
    assert sampled(name, model, steps=COMPILED_STEPS).equal(plain), "something stays"


def compiled(model: ModelPatcher, part: str) -> ModelPatcher:
    """As compile nodes make it, without the step that would round otherwise."""
    behind = model.clone(disable_dynamic=True)
    lists = family_of(model.model.diffusion_model).block_lists
    blocks = [f"{one.path}.{number}" for one in lists for number in range(len(model.model.diffusion_model.get_submodule(one.path)))]
    keys = ["diffusion_model"] if part == "whole" else [f"diffusion_model.{block}" for block in blocks]
    set_torch_compile_wrapper(behind, backend="eager", keys=keys)
    return behind


def one_graph_holds_model_and_pair(name: str, kind: str) -> None:
    """The DiT alone, which is not allowed a break."""
    model = load(name)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        base = ComfyBase(model, None)
        latents = noise(5, 2, *ARCHITECTURES[name].latent_shape)
        text = base.batch_texts([base.conds(conditioning(name, seed), latents[0]) for seed in (11, 12)])
        transformer = model.model.diffusion_model
        sigmas = torch.linspace(0.95, 0.05, 20)
        outputs: dict[str, list[torch.Tensor]] = {}
        try:
            for way in ("plain", "eager", "compiled"):
                if way == "compiled":
                    torch._dynamo.reset()
                    counters.clear()
                    transformer.compile(backend="eager", fullgraph=True)
                with nullcontext() if way == "plain" else Attachment(transformer, make_pair(transformer, kind, 0.2)) as attachment:
                    outputs[way] = []
                    for sigma in sigmas if way != "plain" else sigmas[:1]:
                        if attachment is not None:
                            attachment.stage, attachment.row_strengths = 1 - float(sigma), (0.0, 1.0)
                        outputs[way].append(base.predict(latents, sigma.expand(2), text))
                        if attachment is not None:
                            attachment.finish_call()
        finally:
            transformer._compiled_call_impl = None
    assert not outputs["eager"][0].equal(outputs["plain"][0]), "the pair does not act"
    assert max(float((one - other).abs().max()) for one, other in zip(outputs["eager"], outputs["compiled"], strict=True)) < 1e-6
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
