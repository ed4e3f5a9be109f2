"""Keeps any value that holds tensors (LATENT, CONDITIONING, MASK, lists of them) exactly, as a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io
from safetensors.torch import save_file


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf with its dotted path: the CONDITIONING at index 2 of a list has its tensor at "2.0.0"."""
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    elif type(value).__module__ == "comfy.clip_vision":
        children = vars(value).items()
    elif getattr(value, "is_nested", False):
        children = enumerate(value.unbind())
    else:
        yield path, value
        return
    for key, child in children:
        yield from leaves(child, f"{path}.{key}" if path else str(key))


class BenchSave(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchSave",
            display_name="Bench Save",
            category="bench",
            is_output_node=True,
            is_input_list=True,
            inputs=[io.AnyType.Input("anything"), io.String.Input("filename_prefix", default="bench")],
            outputs=[],
        )

    @classmethod
    def execute(cls, anything: list, filename_prefix: list[str]) -> io.NodeOutput:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix[0], folder_paths.get_output_directory())
        found = dict(leaves(anything))
        tensors = {path: leaf.detach().cpu().clone().contiguous() for path, leaf in found.items() if isinstance(leaf, torch.Tensor)}
        others = {path: leaf for path, leaf in found.items() if path not in tensors}
        file = f"{name}_{counter:05}_.safetensors"
        save_file(tensors, Path(folder) / file, {"others": json.dumps(others, default=str)})
        return io.NodeOutput(ui={"tensors": [{"filename": file, "subfolder": subfolder, "type": "output"}]})


NODES: list[type[io.ComfyNode]] = [BenchSave]
