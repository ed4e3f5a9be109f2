"""Blend Curves: weights of both sides over the noise level and depth, as one text that the page draws."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..dualreal_core.errors import InputError
from ..dualreal_core.method.curves import parse_curves
from ..dualreal_core.method.presets import MOVEMENT_FIRST, PRESETS
from .types import CATEGORY, FOR_BLEND, BlendType


class BlendCurves(io.ComfyNode):
    """Independent curves of both sides."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealBlendCurves",
            display_name="Blend Curves",
            category=CATEGORY,
            description="Draws how strongly identity and motion act, each by curves of its own over denoising and depth.",
            search_aliases=["dualreal", "blend editor", "draw blend", "lora schedule", "curve"],
            inputs=[
                io.String.Input(
                    "curves", default=str(PRESETS[MOVEMENT_FIRST]), multiline=True,
                    tooltip="One line a curve: identity or motion, sigma or depth, points of place:weight. 1 is an even blend's weight, "
                    "0 to 4; sigma runs from 1 (noise) to 0 (clean), depth from 0 (first) to 1 (last blocks). What is not named is 1.",
                )
            ],
            outputs=[BlendType.Output(display_name="blend", tooltip=FOR_BLEND)],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # or the output of another such node with the same text would come from the cache, with that one's id
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, curves: str | None) -> bool | str:
        try:
            parse_curves(curves or "")  # None where it is wired
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, curves: str) -> io.NodeOutput:
        return io.NodeOutput(replace(parse_curves(curves), source=cls.hidden.unique_id))


NODES: list[type[io.ComfyNode]] = [BlendCurves]
