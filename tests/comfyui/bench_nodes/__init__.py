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
    word_text_encoder,
)
from . import template_stand_ins as stand_ins


class BenchExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        eyes = [hardship, neighbours, observation, pairs, positions, raw_sampler, saving]
        inputs = [noise_inputs, noise_text_encoder, texts, word_text_encoder]
        return [node for part in [clips, experts, *inputs, *eyes, stand_ins] for node in part.NODES]


async def comfy_entrypoint() -> BenchExtension:
    return BenchExtension()
