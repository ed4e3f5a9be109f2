"""VIDEOs by the folder, and ones whose frames cannot be had."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import Input, InputImpl, Types, io


class Unreadable(Input.Video):
    """What another pack may hand on: its decoder fails with an error of its own."""

    def get_components(self) -> Types.VideoComponents:
        raise KeyError("stream 0")

    def save_to(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError

    def as_trimmed(self, *args: object, **kwargs: object) -> Input.Video:
        return self


class BenchClips(io.ComfyNode):
    """Every file of an input folder by name, as Load Video gives it; behind them, where asked for, what is no readable VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchClips",
            category="bench",
            inputs=[io.String.Input("folder"), io.Boolean.Input("with_unreadable", default=False)],
            outputs=[io.Video.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, folder: str, with_unreadable: bool) -> io.NodeOutput:
        files = sorted((Path(folder_paths.get_input_directory()) / folder).iterdir())
        videos: list[object] = [InputImpl.VideoFromFile(str(file)) for file in files]
        if with_unreadable:
            empty = Types.VideoComponents(images=torch.zeros(0, 8, 8, 3), frame_rate=8)
            videos += [Unreadable(), None, InputImpl.VideoFromComponents(empty)]
        return io.NodeOutput(videos)


class BenchBrokenVision(io.ComfyNode):
    """An image encoder that knows no such output."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="BenchBrokenVision", category="bench", inputs=[], outputs=[io.ClipVision.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(cls())

    def encode_image(self, image: torch.Tensor, crop: bool = True) -> dict:
        return {}["image_embeds"]


NODES: list[type[io.ComfyNode]] = [BenchClips, BenchBrokenVision]
