"""A CLIP in which every word has a vector of seeded noise, so that what names a side can be told from what does not. No weights."""

from __future__ import annotations

import hashlib

import comfy.model_patcher
import torch
from comfy_api.latest import io, ui

MIN_TOKENS = 16
CPU = torch.device("cpu")


class WordTextEncoder:
    """As much of ComfyUI's CLIP as prompts take; counts what it encodes.

    Args:
        pooled_dim: 0 leaves the pooled output out.
        has_mask: adds an attention mask.
    """

    def __init__(self, text_dim: int, pooled_dim: int = 0, has_mask: bool = False) -> None:
        self.text_dim, self.pooled_dim, self.has_mask = text_dim, pooled_dim, has_mask
        self.cond_stage_model = torch.nn.Module()
        self.patcher = comfy.model_patcher.ModelPatcher(self.cond_stage_model, CPU, CPU)
        self.layer_idx = None
        self.num_encoded = 0

    def tokenize(self, text: str, **_: object) -> list[str]:
        return text.lower().replace(",", " ").split()

    def encode_from_tokens_scheduled(self, tokens: list[str], **_: object) -> list:
        self.num_encoded += 1
        text = torch.zeros(1, max(MIN_TOKENS, len(tokens)), self.text_dim)
        for place, word in enumerate(tokens):
            seed = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)
            text[0, place] = torch.randn(self.text_dim, generator=torch.Generator().manual_seed(seed))
        extras: dict[str, object] = {}
        if self.pooled_dim:
            extras["pooled_output"] = torch.ones(1, self.pooled_dim)
        if self.has_mask:
            extras["attention_mask"] = torch.ones(text.shape[:2], dtype=torch.long)
        return [[text, extras]]


class BenchWords(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchWords",
            category="bench",
            inputs=[
                io.Int.Input("text_dim", default=4096, min=1, max=65536),
                io.Int.Input("pooled_dim", default=0, min=0, max=65536),
                io.Boolean.Input("has_mask", default=False),
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, text_dim: int, pooled_dim: int, has_mask: bool) -> io.NodeOutput:
        return io.NodeOutput(WordTextEncoder(text_dim, pooled_dim, has_mask))


class BenchEncoded(io.ComfyNode):
    """How many prompts such a CLIP has encoded by now."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Clip.Input("clip"), io.AnyType.Input("after")]
        return io.Schema(node_id="BenchEncoded", category="bench", is_output_node=True, not_idempotent=True, inputs=inputs, outputs=[])

    @classmethod
    def execute(cls, clip: WordTextEncoder, after: object) -> io.NodeOutput:
        return io.NodeOutput(ui=ui.PreviewText(str(clip.num_encoded)))


NODES: list[type[io.ComfyNode]] = [BenchWords, BenchEncoded]
