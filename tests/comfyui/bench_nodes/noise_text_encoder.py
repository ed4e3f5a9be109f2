"""A CLIP of seeded noise with the inputs of Load CLIP, so that a graph changes only that node's type. No weights."""

from __future__ import annotations

import hashlib

import torch
from comfy_api.latest import io

TEXT_DIM, TOKENS = 4096, 16


class NoiseTextEncoder:
    """As much of ComfyUI's CLIP as encoding a prompt takes: the same text gives the same noise."""

    def tokenize(self, text: str, **_: object) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str, **_: object) -> list:
        seed = int(hashlib.sha256(tokens.encode()).hexdigest()[:8], 16)
        return [[torch.randn(1, TOKENS, TEXT_DIM, generator=torch.Generator().manual_seed(seed)), {}]]


class BenchTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchTextEncoder",
            display_name="Bench Text Encoder",
            category="bench",
            inputs=[
                io.String.Input("clip_name", default=""),
                io.String.Input("type", default=""),
                io.String.Input("device", default="", optional=True),
            ],
            outputs=[io.Clip.Output("CLIP")],
        )

    @classmethod
    def execute(cls, clip_name: str, type: str, device: str = "") -> io.NodeOutput:
        return io.NodeOutput(NoiseTextEncoder())


NODES: list[type[io.ComfyNode]] = [BenchTextEncoder]
