"""The node pack."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from . import (
    adapters,
    blend,
    blend_presets,
    compare_blends,
    curves,
    datasets,
    embedded,
    evaluate,
    experts,
    folders,
    former_inputs,
    prompt_gate,
    save_lora,
    train,
    training_settings,
    two_loras,
)

NODES: list[type[io.ComfyNode]] = [
    *embedded.NODES,
    *adapters.NODES,
    *save_lora.NODES,
    *folders.NODES,
    *datasets.NODES,
    *training_settings.NODES,
    *train.NODES,
    *prompt_gate.NODES,
    *two_loras.NODES,
    *blend.NODES,
    *curves.NODES,
    *experts.NODES,
    *compare_blends.NODES,
    *evaluate.NODES,
]


class DualRealExtension(ComfyExtension):
    """All nodes of the pack."""

    async def on_load(self) -> None:
        former_inputs.register(PromptServer.instance.add_on_prompt_handler)
        blend_presets.register(PromptServer.instance.routes)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> DualRealExtension:
    """What ComfyUI calls to learn of the nodes."""
    return DualRealExtension()
