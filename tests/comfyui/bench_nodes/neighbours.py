"""What other packs put on a MODEL: fused layers, replaced blocks, guidance of their own, and a second device."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from unittest import mock

import comfy.model_management
import comfy.model_patcher
import comfy.multigpu
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io, ui

from .pairs import of_pack

Patcher = comfy.model_patcher.ModelPatcher


class Uncalled(torch.nn.Module):
    """In a layer's place for the length of a call of what holds it; computes what the layer does without calling it."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.compute = layer.forward

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.compute(hidden)


def fuse(model: Patcher, number: int) -> None:
    """A layer of a block is computed without being called, as where ComfyUI joins layers that read the same."""
    kind = type(model.model.diffusion_model.blocks[number].self_attn)

    class Fused(kind):
        def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
            layer, self.q = self.q, Uncalled(self.q)
            try:
                return super().forward(*args, **kwargs)
            finally:
                self.q = layer

    model.add_object_patch(f"diffusion_model.blocks.{number}.self_attn.__class__", Fused)


def ignore_block(args: dict, extra: dict) -> dict:
    return args


def replace_block(model: Patcher, number: int) -> None:
    model.set_model_patch_replace(ignore_block, "dit", "double_block", number)


def halve_batch(model: Patcher, number: int) -> None:
    """The block is run for the last half of the rows alone."""

    def last_half(args: dict, extra: dict) -> dict:
        half = len(args["img"]) // 2
        part = {name: args[name][half:] if name in ("img", "txt", "vec") else value for name, value in args.items()}
        return {"img": torch.cat([args["img"][:half], extra["original_block"](part)["img"]])}

    model.set_model_patch_replace(last_half, "dit", "double_block", number)


def skip_first(model: Patcher, number: int) -> None:
    """Guidance by a skipped layer whose extra call comes before the plain one."""

    def calc_cond_batch(args: dict) -> list[torch.Tensor]:
        skipped = comfy.model_patcher.set_model_options_patch_replace(
            args["model_options"].copy(), ignore_block, "dit", "double_block", number
        )
        given = args["model"], args["conds"], args["input"], args["sigma"]
        comfy.samplers.calc_cond_batch(*given, skipped)
        return comfy.samplers.calc_cond_batch(*given, args["model_options"])

    model.set_model_sampler_calc_cond_batch_function(calc_cond_batch)


def run_alone(model: Patcher, number: int) -> None:
    """The model is never called."""
    model.set_model_unet_function_wrapper(lambda apply_model, args: args["input"])


def need_options(model: Patcher, number: int) -> None:
    """A wrapper that reads what ComfyUI gives along while sampling, as EasyCache and others do."""

    def wrapper(executor: Callable, *args: object, **kwargs: object) -> torch.Tensor:
        options = next(value for value in [*args, *kwargs.values()] if isinstance(value, dict) and "sigmas" in value)
        rows = args[0].shape[0]
        assert rows % len(options["cond_or_uncond"]) == 0 and len(options["uuids"]) == len(options["cond_or_uncond"])
        assert (options["sample_sigmas"] == options["sigmas"][0]).any()
        return executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "reader", wrapper)


NEIGHBOURS = {change.__name__: change for change in (fuse, replace_block, halve_batch, skip_first, run_alone, need_options)}


class BenchNeighbour(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Model.Input("model"), io.Combo.Input("kind", options=[*NEIGHBOURS]), io.Int.Input("number", default=1)]
        return io.Schema(node_id="BenchNeighbour", category="bench", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: Patcher, kind: str, number: int) -> io.NodeOutput:
        changed = model.clone()
        NEIGHBOURS[kind](changed, number)
        return io.NodeOutput(changed)


class BenchSecondDevice(io.ComfyNode):
    """MultiGPU CFG Split, the CPU by another name being the second device: it has a DiT and a thread of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="BenchSecondDevice", category="bench", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: Patcher) -> io.NodeOutput:
        devices = [torch.device("cpu"), torch.device("cpu", 0)]
        with mock.patch.object(comfy.model_management, "get_all_torch_devices", lambda **_: devices):
            return io.NodeOutput(comfy.multigpu.create_multigpu_deepclones(model, 2))


class BenchCopies(io.ComfyNode):
    """Of a pair on a MODEL for several devices: how many copies there are, and whether they share weights or marks of the host."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Model.Input("model"), io.AnyType.Input("after", optional=True)]
        return io.Schema(node_id="BenchCopies", category="bench", is_output_node=True, inputs=inputs, outputs=[])

    @classmethod
    def execute(cls, model: Patcher, after: object = None) -> io.NodeOutput:
        (applied,) = of_pack("nodes.patching").applied_pairs(model)
        devices = [model, *model.get_additional_models_with_key("multigpu")]
        pairs = [patcher.get_additional_models_with_key(applied.key)[0].model for patcher in devices]
        pointers = [{weight.data_ptr() for weight in pair.parameters()} for pair in pairs]
        state = applied.start(model)
        place = torch.device("cpu"), model.model.get_dtype_inference()
        attachments = [state.attachment(patcher.model.diffusion_model, *place) for patcher in devices]
        facts = {
            "pairs": len({id(pair) for pair in pairs}),
            "shared": len(set.intersection(*pointers)),
            "own pair": all(attachment.pair is pair for attachment, pair in zip(attachments, pairs, strict=True)),
            "own blend": all(attachment.blend.controller is attachment.pair.controller for attachment in attachments),
            "equal": all(a.equal(b) for a, b in zip(*(pair.state_dict().values() for pair in pairs), strict=True)),
        }
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(facts)))


class BenchBatchedPredictions(io.ComfyNode):
    """Largest difference between a batch of samples at several sigmas and each of them alone, as training predicts them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Model.Input("model"), io.Latent.Input("latent"), io.Conditioning.Input("conditioning")]
        return io.Schema(node_id="BenchBatchedPredictions", category="bench", is_output_node=True, inputs=inputs, outputs=[])

    @classmethod
    def execute(cls, model: Patcher, latent: dict, conditioning: list) -> io.NodeOutput:
        with of_pack("nodes.training_model").ready_to_train(model) as patcher, torch.no_grad():
            base = of_pack("nodes.comfy_base").ComfyBase(patcher, None)
            noise, sigmas = latent["samples"][:1].clone(), torch.tensor([0.9, 0.4])
            text = base.conds(conditioning, noise[0])
            together = base.predict(noise.repeat(2, 1, 1, 1, 1), sigmas, base.batch_texts([text, text]))
            alone = [base.predict(noise, sigma[None], base.batch_texts([text])) for sigma in sigmas]
            seen: list[torch.Tensor] = []

            def note(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
                seen.append(timestep)
                return base.predict(latents, timestep[None], base.batch_texts([text]))

            hook = base.transformer.time_r_in.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
            base.denoise(note, noise, 3)
            hook.remove()
        embed = of_pack("nodes.comfy_base").timestep_embedding
        steps = [*(float(sigma) for sigma in seen[::2]), 0.0]
        nexts = [embed(torch.tensor([following]), 256, time_factor=1000.0) for _, following in itertools.pairwise(steps)]
        facts = {
            "difference": float((together - torch.cat(alone)).abs().max()),
            "distance": float((alone[0] - alone[1]).abs().max()),
            "next": all(torch.allclose(given.float(), expected, atol=1e-4) for given, expected in zip(seen[1::2], nexts, strict=True)),
        }
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(facts)))


NODES: list[type[io.ComfyNode]] = [BenchNeighbour, BenchSecondDevice, BenchCopies, BenchBatchedPredictions]
