"""Private ComfyUI nodes of the tests: inputs of noise, and eyes on what a MODEL is really given. Never shipped."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    clips,
    experts,
    hardship,
    neighbours,
    noise_inputs,
    noise_text_encoder,
    observation,
    pairs,
    positions,
    raw_sampler,
    saving,
    texts,
)
from . import template_stand_ins as stand_ins


class BenchExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        eyes = [hardship, neighbours, observation, pairs, positions, raw_sampler, saving]
        return [node for part in [clips, experts, noise_inputs, noise_text_encoder, *eyes, stand_ins, texts] for node in part.NODES]


async def comfy_entrypoint() -> BenchExtension:
    return BenchExtension()
