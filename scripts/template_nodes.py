"""Nodes that several templates share, and what a file needs so that the page can offer it."""

from __future__ import annotations

from canvas_format import Output, Sheet

TALL, SQUARE, WIDE = 300, 420, 460


def download(source: str, directory: str, name: str) -> dict[str, object]:
    """Properties of a loader: the page offers a file that is missing."""
    return {"models": [{"name": name, "url": f"{source}/{name}", "directory": directory}]}


def save_video(sheet: Sheet, images: Output, fps: float, prefix: str, audio: Output | None = None) -> None:
    video = sheet.node("CreateVideo", images=images, fps=fps, **({} if audio is None else {"audio": audio}))
    sheet.node("SaveVideo", extra_height=SQUARE, video=video["VIDEO"], filename_prefix=prefix, format="auto", format__codec="auto")
