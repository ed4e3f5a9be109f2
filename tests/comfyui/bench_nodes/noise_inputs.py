"""CONDITIONING, LATENT and CLIP_VISION_OUTPUT of seeded noise, as lists, without any encoder."""

from __future__ import annotations

import comfy.clip_vision
import torch
from comfy_api.latest import io


def noise(seed: int, index: int, *shape: int) -> torch.Tensor:
    """The same numbers for the same (seed, index), so that a list and a single item agree."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + index))


class BenchConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchConditioning",
            display_name="Bench Conditioning",
            category="bench",
            inputs=[
                io.Int.Input("text_dim", default=4096, min=1, max=65536),
                io.Int.Input("tokens", default=16, min=1, max=4096),
                io.Int.Input("seed", default=0, min=0, max=2**31),
                io.Int.Input("pooled_dim", default=0, min=0, max=65536, tooltip="0 leaves pooled_output out"),
                io.Boolean.Input("has_mask", default=False, tooltip="adds attention_mask, which LTX-Video cannot run without"),
                io.Int.Input("count", default=1, min=0, max=1000),
            ],
            outputs=[io.Conditioning.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, text_dim: int, tokens: int, seed: int, pooled_dim: int, has_mask: bool, count: int) -> io.NodeOutput:
        extras = [{} for _ in range(count)]
        for index, extra in enumerate(extras):
            if pooled_dim:
                extra["pooled_output"] = noise(seed + 7919, index, 1, pooled_dim)
            if has_mask:
                extra["attention_mask"] = torch.ones(1, tokens, dtype=torch.long)
        return io.NodeOutput([[[noise(seed, index, 1, tokens, text_dim), extra]] for index, extra in enumerate(extras)])


class BenchLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchLatents",
            display_name="Bench Latents",
            category="bench",
            inputs=[
                io.Int.Input("channels", default=16, min=1, max=1024),
                io.Int.Input("frames", default=3, min=1, max=1024, tooltip="latent frames"),
                io.Int.Input("height", default=6, min=1, max=1024, tooltip="latent cells"),
                io.Int.Input("width", default=8, min=1, max=1024, tooltip="latent cells"),
                io.Int.Input("seed", default=0, min=0, max=2**31),
                io.Int.Input("count", default=1, min=0, max=1000),
                io.Combo.Input("fill", options=["noise", "zeros", "nan"]),
            ],
            outputs=[io.Latent.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, channels: int, frames: int, height: int, width: int, seed: int, count: int, fill: str) -> io.NodeOutput:
        samples = [noise(seed, index, 1, channels, frames, height, width) for index in range(count)]
        if fill != "noise":
            samples = [torch.full_like(sample, float(fill.replace("zeros", "0"))) for sample in samples]
        return io.NodeOutput([{"samples": sample} for sample in samples])


class BenchReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchReferences",
            display_name="Bench References",
            category="bench",
            inputs=[
                io.Int.Input("embedding_dim", default=1024, min=1, max=65536),
                io.Int.Input("seed", default=0, min=0, max=2**31),
                io.Int.Input("count", default=1, min=0, max=1000),
            ],
            outputs=[io.ClipVisionOutput.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, embedding_dim: int, seed: int, count: int) -> io.NodeOutput:
        references = [comfy.clip_vision.Output() for _ in range(count)]
        for index, reference in enumerate(references):
            reference["image_embeds"] = noise(seed, index, 1, embedding_dim)
        return io.NodeOutput(references)


NODES: list[type[io.ComfyNode]] = [BenchConditioning, BenchLatents, BenchReferences]
