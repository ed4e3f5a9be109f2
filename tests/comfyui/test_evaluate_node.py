"""Evaluate on the real host: rows that are called the same."""

from __future__ import annotations

import json

from comfy_server import ComfyServer
from graphs import node

NAMES = ["a dog", "a cat", "a dog", "", "x"]


def test_videos_of_one_name_are_told_apart(server: ComfyServer) -> None:
    graph = {f"name {index}": node("StringConcatenate", string_a=name, string_b="", delimiter="") for index, name in enumerate(NAMES)}
    graph |= {
        "example": node("DualRealExampleData", identity="vex", motion="figure-eight", seed=0),
        "blank": node("EmptyImage", width=32, height=32, batch_size=2, color=0),
        "videos": node("CreateList", **{f"inputs.input{index}": ["blank", 0] for index in range(len(NAMES))}),
        "names": node("CreateList", **{f"inputs.input{index}": [f"name {index}", 0] for index in range(len(NAMES))}),
        "scored": node(
            "DualRealEvaluate", images=["videos", 0], identity_references=["example", 0], motion_references=["example", 2],
            metric="toy world", names=["names", 0],
        ),
        "shown": node("PreviewAny", source=["scored", 4]),
    }  # fmt: skip
    data = json.loads(server.run(graph).text("shown"))
    assert [video["name"] for video in data["videos"]] == ["a dog (video 1)", "a cat", "a dog (video 3)", "video 4", "x"]
