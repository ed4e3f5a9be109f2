"""A text that may be wired into an input of any type, as selectors of other packs do."""

from __future__ import annotations

from comfy_api.latest import io


class BenchText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchText",
            display_name="Bench Text",
            category="bench",
            inputs=[io.String.Input("text")],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        return io.NodeOutput(text)


NODES: list[type[io.ComfyNode]] = [BenchText]
