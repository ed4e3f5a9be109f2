"""What the pack does when the user cancels, or where memory is scarce."""

from __future__ import annotations

import copy
from unittest import mock

import comfy.model_management
import torch
from comfy_api.latest import io, ui

from .pairs import of_pack

LITTLE = 1000


class BenchCancel(io.ComfyNode):
    """Shows how often the DiT was called for a prediction that was asked for after a cancel."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchCancel",
            category="bench",
            is_output_node=True,
            inputs=[io.Model.Input("model"), io.Latent.Input("latent"), io.Conditioning.Input("conditioning")],
            outputs=[],
        )

    @classmethod
    def execute(cls, model: object, latent: dict, conditioning: list) -> io.NodeOutput:
        calls: list[torch.nn.Module] = []
        with of_pack("nodes.training_model").ready_to_train(model) as patcher, torch.no_grad():
            base = of_pack("nodes.comfy_base").ComfyBase(patcher, None)
            text = base.batch_texts([base.conds(conditioning, latent["samples"][0].clone())])
            clean, timestep = latent["samples"].clone(), base.objective.sample_timesteps(1, torch.Generator().manual_seed(0))
            base.transformer.register_forward_pre_hook(lambda module, args: calls.append(module))
            base.predict(clean, timestep, text)
            comfy.model_management.interrupt_current_processing()
            try:
                base.predict(clean, timestep, text)
            except comfy.model_management.InterruptProcessingException:
                return io.NodeOutput(ui=ui.PreviewText(f"stopped after {len(calls)} calls"))
            finally:
                comfy.model_management.interrupt_current_processing(False)
        return io.NodeOutput(ui=ui.PreviewText(f"went on to {len(calls)} calls"))


class BenchScarceEvaluate(io.ComfyNode):
    """Runs Evaluate where ComfyUI has next to no memory left."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchScarceEvaluate",
            category="bench",
            is_output_node=True,
            inputs=[io.Image.Input("images"), io.Video.Input("motion")],
            outputs=[],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, motion: object) -> io.NodeOutput:
        evaluate = of_pack("nodes.evaluate").Evaluate
        with mock.patch.object(comfy.model_management, "get_free_memory", lambda *args, **kwargs: LITTLE):
            evaluate.execute([images], [images], [motion], ["toy world"])
        return io.NodeOutput(ui=ui.PreviewText("evaluated"))


class BenchFailingCoders(io.ComfyNode):
    """A VAE or text encoder in which something goes wrong that only its programmer understands."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchFailingCoders",
            category="bench",
            inputs=[io.Vae.Input("vae"), io.Clip.Input("clip"), io.Combo.Input("fails", options=["vae", "clip"])],
            outputs=[io.Vae.Output(), io.Clip.Output()],
        )

    @classmethod
    def execute(cls, vae: object, clip: object, fails: str) -> io.NodeOutput:
        vae, clip = copy.copy(vae), copy.copy(clip)
        if fails == "vae":
            vae.encode = lambda frames: {}["latent_rgb_factors"]
        else:
            clip.tokenize = lambda text: len(None)
        return io.NodeOutput(vae, clip)


NODES: list[type[io.ComfyNode]] = [BenchCancel, BenchScarceEvaluate, BenchFailingCoders]
