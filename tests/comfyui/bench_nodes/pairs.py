"""Pairs of noise for a MODEL, what a MODEL carries beside its weights, and gradients against finite differences."""

from __future__ import annotations

import copy
import json
import sys
from contextlib import nullcontext
from types import ModuleType

import comfy.model_management
import torch
from comfy_api.latest import io, ui

EPSILONS = (1e-4, 1e-5, 1e-6)


def of_pack(name: str) -> ModuleType:
    """A module of the pack under test, which ComfyUI has loaded under a name made from its path."""
    return next(module for key, module in sys.modules.items() if key.endswith(f"DualReal.{name}"))


class BenchPair(io.ComfyNode):
    """An untrained pair that fits a MODEL, or one of noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchPair",
            display_name="Bench Pair",
            category="bench",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("kind", options=["lora", "bottleneck"]),
                io.Float.Input("spread", default=0.1, min=0.0, max=10.0),
                io.Int.Input("seed", default=0, min=0, max=2**31),
                io.Boolean.Input("has_controller", default=True),
                io.Int.Input("num_groups", default=0, min=0, max=100, optional=True),
            ],
            outputs=[io.Custom("DUALREAL_PAIR").Output()],
        )

    @classmethod
    def execute(cls, model: object, kind: str, spread: float, seed: int, has_controller: bool, num_groups: int = 0) -> io.NodeOutput:
        sizes = {"identity_kind": kind, "motion_kind": kind, "rank": 4, "alpha": 4.0, "bottleneck_dim": 8, "scale": 2.0}
        sizes |= {"num_groups": num_groups} if num_groups else {}
        pair = of_pack("dualreal_core.method.pair").new_pair(model.model.diffusion_model, seed, **sizes, has_controller=has_controller)
        generator = torch.Generator().manual_seed(seed)
        for parameter in pair.parameters() if spread else ():
            parameter.data = spread * torch.randn(parameter.shape, generator=generator)
        return io.NodeOutput(of_pack("nodes.types").TrainedPair(pair.requires_grad_(False)))


class BenchCarried(io.ComfyNode):
    """Sizes, devices and dtypes of the models that ComfyUI loads along with a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Model.Input("model"), io.AnyType.Input("after", optional=True)]
        return io.Schema(node_id="BenchCarried", category="bench", is_output_node=True, inputs=inputs, outputs=[])

    @classmethod
    def execute(cls, model: object, after: object = None) -> io.NodeOutput:
        carried = [
            {"size": other.model_size(), "dtypes": sorted({str(weight.dtype) for weight in other.model.sides.parameters()})}
            for other in model.get_nested_additional_models()
        ]
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(carried)))


class BenchStateless(io.ComfyNode):
    """What a pair does where no sampler calls, and where a second DiT is called: facts that are all to be true."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Model.Input("model"), io.Latent.Input("latent"), io.Conditioning.Input("conditioning")]
        return io.Schema(node_id="BenchStateless", category="bench", is_output_node=True, inputs=inputs, outputs=[])

    @classmethod
    def execute(cls, model: object, latent: dict, conditioning: list) -> io.NodeOutput:
        training_model, attach = of_pack("nodes.training_model"), of_pack("dualreal_core.method.attach")
        comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
        dit, noise, sigma = model.model.diffusion_model, latent["samples"], torch.tensor([0.6])
        base = of_pack("nodes.comfy_base").ComfyBase(model, None)
        text = base.batch_texts([base.conds(conditioning, noise[0])])
        (applied,) = of_pack("nodes.patching").applied_pairs(model)
        options = {**training_model.call_options(model), "sigmas": sigma}
        before = [(type(module), *vars(module)) for module in dit.modules()]
        found, again = (model.model.apply_model(noise, sigma, transformer_options=dict(options), **text) for _ in range(2))
        plain = model.model.apply_model(noise, sigma, transformer_options={"sigmas": sigma}, **text)
        with attach.Attachment(dit, applied.pair) as attachment:
            attachment.stage = applied.schedule.stage(float(sigma))
            expected = model.model.apply_model(noise, sigma, transformer_options={"sigmas": sigma}, **text)
        state, other = applied.start(model), applied.start(model)
        place = noise.device, model.model.get_dtype_inference()
        first, second = state.attachment(dit, *place), state.attachment(copy.deepcopy(dit), *place)
        facts = {
            "as hooked by hand": found.equal(expected) and again.equal(expected) and not found.equal(plain),
            "nothing stays": [(type(module), *vars(module)) for module in dit.modules()] == before,
            "one for each DiT": state.attachment(dit, *place) is first and first.pair is applied.pair,
            "a second device has weights of its own": second.pair is not first.pair,
            "and blends by its own": second.blend.controller is second.pair.controller is not first.pair.controller,
            "each sampling hooks anew": other.attachment(dit, *place) is not first and other.record is not state.record,
        }
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(facts)))


class BenchGradients(io.ComfyNode):
    """Relative errors of a pair's gradients along a random direction, in float64, against central differences."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchGradients",
            display_name="Bench Gradients",
            category="bench",
            is_output_node=True,
            inputs=[
                io.Model.Input("model"),
                io.Latent.Input("latent"),
                io.Conditioning.Input("conditioning"),
                io.Combo.Input("kind", options=["lora", "bottleneck"]),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, model: object, latent: dict, conditioning: list, kind: str) -> io.NodeOutput:
        with of_pack("nodes.training_model").ready_to_train(model) as patcher:
            make_double(patcher.model.diffusion_model)
            base = of_pack("nodes.comfy_base").ComfyBase(patcher, None)
            sizes = {"identity_kind": kind, "motion_kind": kind, "rank": 2, "alpha": 2.0, "bottleneck_dim": 4, "scale": 2.0}
            pair = of_pack("dualreal_core.method.pair").new_pair(base.transformer, **sizes).double()
            generator = torch.Generator().manual_seed(3)
            for parameter in pair.parameters():
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            directions = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in pair.parameters()]
            errors = {}
            with of_pack("dualreal_core.method.attach").Attachment(base.transformer, pair) as attachment:
                text = base.conds(conditioning, latent["samples"][0].clone())
                clean, timestep = latent["samples"].clone().double(), base.objective.sample_timesteps(1, generator)

                def loss() -> torch.Tensor:
                    return base.predict(clean, timestep, base.batch_texts([text])).square().mean()

                measured = [slope_of(loss, pair, directions, epsilon) for epsilon in EPSILONS]
                for name, slope in (("plain", False), ("checkpointed", True)):
                    exact = gradient_along(loss, base, attachment, directions, is_checkpointed=slope)
                    errors[name] = min(abs(value - exact) / abs(exact) for value in measured)
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(errors)))


def make_double(dit: torch.nn.Module) -> None:
    """The whole DiT in float64, but for Wan's patch embedding, whose input ComfyUI casts to float32."""
    dit.double()
    dit.dtype = torch.float64
    for module in dit.modules():
        if isinstance(getattr(module, "dtype", None), torch.dtype):
            module.dtype = torch.float64
    if hasattr(dit, "patch_embedding"):
        dit.patch_embedding.float()


def gradient_along(loss: object, base: object, attachment: object, directions: list[torch.Tensor], is_checkpointed: bool) -> float:
    checkpointing = of_pack("dualreal_core.training.checkpointing")
    attachment.pair.zero_grad(set_to_none=True)
    rerun = checkpointing.checkpointed(base.transformer, attachment) if is_checkpointed else nullcontext()
    with checkpointing.safe_saving(base.family), rerun:
        loss().backward()
    gradients = [parameter.grad for parameter in attachment.pair.parameters()]
    return sum(float((gradient * direction).sum()) for gradient, direction in zip(gradients, directions, strict=True))


@torch.no_grad()
def slope_of(loss: object, pair: torch.nn.Module, directions: list[torch.Tensor], epsilon: float) -> float:
    """Central difference along the directions; the pair is as before afterwards."""
    kept = [parameter.clone() for parameter in pair.parameters()]
    values = []
    for sign in (1, -1):
        for parameter, weight, direction in zip(pair.parameters(), kept, directions, strict=True):
            parameter.copy_(weight + sign * epsilon * direction)
        values.append(float(loss()))
    for parameter, weight in zip(pair.parameters(), kept, strict=True):
        parameter.copy_(weight)
    return (values[0] - values[1]) / (2 * epsilon)


class BenchFingerprint(io.ComfyNode):
    """Of the weights of a DiT as deep as Wan 1.3B, in number, those whose change the trainer does not notice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="BenchFingerprint", category="bench", is_output_node=True, inputs=[], outputs=[])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        fingerprint = of_pack("nodes.comfy_base")._fingerprint
        weights = torch.nn.ParameterList(torch.zeros(40, 30) for _ in range(825))
        before, unnoticed = fingerprint(weights), []
        for index, weight in enumerate(weights):
            weight.data.add_(0.1)
            unnoticed += [index] if fingerprint(weights) == before else []
            weight.data.zero_()
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(unnoticed)))


NODES: list[type[io.ComfyNode]] = [BenchPair, BenchCarried, BenchStateless, BenchGradients, BenchFingerprint]
