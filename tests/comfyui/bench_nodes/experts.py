"""Pairs and MODELs for two experts."""

from __future__ import annotations

import copy

import torch
from comfy_api.latest import io

from .pairs import of_pack

PairType = io.Custom("DUALREAL_PAIR")


class BenchJoin(io.ComfyNode):
    """A pair for two experts out of one for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [PairType.Input("high"), PairType.Input("low")]
        return io.Schema(node_id="BenchJoin", category="bench", inputs=inputs, outputs=[PairType.Output()])

    @classmethod
    def execute(cls, high: object, low: object) -> io.NodeOutput:
        with torch.inference_mode(False):
            pair = of_pack("dualreal_core.method.experts").join_experts(high.pair, low.pair, 0.875)
        return io.NodeOutput(of_pack("nodes.types").TrainedPair(pair.requires_grad_(False), high.header))


class BenchPlainLatents(io.ComfyNode):
    """A MODEL whose latents are taken and given as they are, so that nothing is rounded between two samplers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="BenchPlainLatents", category="bench", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: object) -> io.NodeOutput:
        plain, patched = copy.copy(model.get_model_object("latent_format")), model.clone()
        plain.process_in = plain.process_out = lambda latent: latent
        patched.add_object_patch("latent_format", plain)
        return io.NodeOutput(patched)


NODES: list[type[io.ComfyNode]] = [BenchJoin, BenchPlainLatents]
