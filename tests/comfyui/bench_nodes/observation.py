"""A probe that notes what each call of the diffusion model was given, and a report of the model's state as JSON."""

from __future__ import annotations

import gc
import hashlib
import json
import threading
from collections.abc import Callable

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io, ui

CALLS = "bench_calls"


class BenchProbe(io.ComfyNode):
    """Clones share the list of calls, so the report may read it from this MODEL or from any made of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchProbe",
            display_name="Bench Probe",
            category="bench",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: comfy.model_patcher.ModelPatcher) -> io.NodeOutput:
        calls: list[dict] = []

        def note(executor: Callable, x: torch.Tensor, timestep: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            # transformer_options sits at another place in each model.
            given = [*args, *kwargs.values()]
            options = next((value for value in given if isinstance(value, dict) and "sigmas" in value), {})
            prediction = executor(x, timestep, *args, **kwargs)
            where = {"dit_id": id(executor.class_obj), "thread": threading.get_ident()}
            calls.append(facts_of_call(type(executor.class_obj).__name__, x, timestep, args, options, prediction) | where)
            return prediction

        probed = model.clone()
        probed.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "bench_probe", note)
        probed.set_attachments(CALLS, calls)
        return io.NodeOutput(probed)


def facts_of_call(
    dit: str, x: torch.Tensor, timestep: torch.Tensor, args: tuple, options: dict, prediction: torch.Tensor
) -> dict[str, object]:
    """What one call was given. x: (batch, channels, frames, height, width); timestep: (batch, ...)."""
    return {
        "dit": dit,
        "shape": list(x.shape),
        "std": float(x.std()),
        "dtype": str(x.dtype),
        "timestep": [float(value) for value in timestep.flatten()],
        "context_shape": list(args[0].shape) if args and isinstance(args[0], torch.Tensor) else None,
        "cond_or_uncond": options.get("cond_or_uncond"),
        "sigma": [float(value) for value in options.get("sigmas", ())],
        "num_sample_sigmas": len(options.get("sample_sigmas", ())),
        "option_keys": sorted(map(str, options)),
        "is_inference": torch.is_inference_mode_enabled(),
        "has_grad": torch.is_grad_enabled(),
        "prediction_std": float(prediction.std()),
    }


class BenchReport(io.ComfyNode):
    """Shows one JSON object, reads the probe's calls and empties them. Never cached."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchReport",
            display_name="Bench Report",
            category="bench",
            is_output_node=True,
            inputs=[io.Model.Input("model"), io.AnyType.Input("after", optional=True, tooltip="what must have run before")],
            outputs=[],
        )

    @classmethod
    def fingerprint_inputs(cls, model: object = None, after: object = None) -> float:
        return float("nan")

    @classmethod
    def execute(cls, model: comfy.model_patcher.ModelPatcher, after: object = None) -> io.NodeOutput:
        dit = model.model.diffusion_model
        calls = model.get_attachment(CALLS) or []
        own = {"calls": list(calls), "injection_keys": sorted(model.injections), "num_patched_weights": len(model.patches)}
        calls.clear()
        gc.collect()
        own["num_alive"] = sum(type(one) is type(dit) for one in gc.get_objects())
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(own | facts_of_module(dit))))


def facts_of_module(dit: torch.nn.Module) -> dict[str, object]:
    """What somebody may have left on the shared module: hooks, replaced forwards, extra modules, other weights."""
    hooks = {name: len(module._forward_hooks) + len(module._forward_pre_hooks) for name, module in dit.named_modules()}
    digest = hashlib.sha256()
    for key, weight in sorted(dit.state_dict().items()):
        digest.update(key.encode() + weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {
        "dit": type(dit).__name__,
        "hooks": {name: count for name, count in hooks.items() if count},
        "num_hooks": sum(hooks.values()),
        "replaced_forwards": [name for name, module in dit.named_modules() if "forward" in vars(module)],
        "num_modules": len(hooks),
        "weights_sha256": digest.hexdigest(),
    }


NODES: list[type[io.ComfyNode]] = [BenchProbe, BenchReport]
