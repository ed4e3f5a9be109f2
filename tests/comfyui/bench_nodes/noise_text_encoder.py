"""A CLIP of seeded noise with the inputs of Load CLIP, so that a graph changes only that node's type. No weights."""

from __future__ import annotations

import hashlib

import torch
from comfy_api.latest import io

TEXT_DIM, TOKENS = 4096, 16
TINY_DIMS = {"ltxv": 96, "minimax": 80}
"""Widths that the tiny models of a type read; the others read 4096."""


class NoiseTextEncoder:
    """As much of ComfyUI's CLIP as encoding a prompt takes: the same text gives the same noise. LoRAs leave it as it is."""

    def __init__(self, type: str = "") -> None:
        self.text_dim = TINY_DIMS.get(type, TEXT_DIM)
        self.cond_stage_model = torch.nn.Module()

    def clone(self) -> NoiseTextEncoder:
        return self

    def add_patches(self, *_: object) -> list[str]:
        return []

    def tokenize(self, text: str, **_: object) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str, **_: object) -> list:
        seed = int(hashlib.sha256(tokens.encode()).hexdigest()[:8], 16)
        return [[torch.randn(1, TOKENS, self.text_dim, generator=torch.Generator().manual_seed(seed)), {}]]


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
        return io.NodeOutput(NoiseTextEncoder(type))


NODES: list[type[io.ComfyNode]] = [BenchTextEncoder]
