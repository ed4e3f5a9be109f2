"""ComfyUI's own video templates, opened in its page, with a pair behind their model loaders, on tiny models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canvas_page import CanvasPage, browser_absence_reason, opened_page
from comfy_server import ComfyServer
from official_templates import TEMPLATES
from template_runs import ABSENT, TemplateRun, convert, furnish, run_template

LIKE_ANOTHER = (
    "video_minimax_h3_t2v", "video_ltx2_3_t2v", "video_wan2_2_14B_flf2v", "video_wan2_2_14B_t2v", "image_to_video_wan",
    "video_wan21_scail2_character_replacement",
)  # fmt: skip


@pytest.fixture(scope="module")
def canvas(server: ComfyServer) -> Iterator[CanvasPage]:
    if reason := browser_absence_reason():
        pytest.skip(reason)
    furnish(server)
    with opened_page(server.url) as page:
        yield page


class Runs(dict):
    """Every template, run when it is first asked for."""

    def __init__(self, server: ComfyServer, canvas: CanvasPage) -> None:
        super().__init__()
        self.server, self.canvas = server, canvas

    def __missing__(self, name: str) -> TemplateRun:
        converted = convert(self.canvas, name)
        if converted is None:
            pytest.skip(ABSENT.format(name))
        self[name] = run_template(self.server, name, converted)
        return self[name]


@pytest.fixture(scope="module")
def runs(server: ComfyServer, canvas: CanvasPage) -> Runs:
    return Runs(server, canvas)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.thorough] * (name in LIKE_ANOTHER)) for name in TEMPLATES])
def test_official_graph_runs_with_a_pair_behind_its_loaders(runs: Runs, name: str) -> None:
    """It acts in every sampling, one that was not trained changes no bit, and the video is saved."""
    run = runs[name]
    assert run.is_neutral
    assert run.acts
    assert run.videos
    assert all(part.isfinite().all() for latents in run.trained for part in latents.values())
