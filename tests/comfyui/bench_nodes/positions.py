"""Where sampling places the sigmas of a MODEL in denoising, and where training places them."""

from __future__ import annotations

import json

import torch
from comfy_api.latest import io, ui

from .pairs import of_pack


class BenchPositions(io.ComfyNode):
    """The largest distance between the two, over all sigmas that training can draw."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Model.Input("model", tooltip="With a pair.")]
        return io.Schema(node_id="BenchPositions", category="bench", is_output_node=True, inputs=inputs, outputs=[])

    @classmethod
    def execute(cls, model: object) -> io.NodeOutput:
        objective, sampling = of_pack("nodes.comfy_base")._objective(model), model.get_model_object("model_sampling")
        is_flow = hasattr(objective, "shift")
        timesteps = torch.linspace(0, 1, 2001) if is_flow else torch.arange(len(sampling.sigmas))
        sigmas = timesteps if is_flow else sampling.sigmas
        (applied,) = of_pack("nodes.patching").applied_pairs(model)
        schedule = applied.start(model).schedule
        placed = torch.tensor([schedule.stage(float(sigma)) for sigma in sigmas])
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(float((placed - objective.stage(timesteps)).abs().max()))))


NODES: list[type[io.ComfyNode]] = [BenchPositions]
