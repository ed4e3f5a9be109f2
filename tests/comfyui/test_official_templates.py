"""ComfyUI's own video templates, opened in its page, with a pair behind their model loaders, on tiny models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canvas_page import CanvasPage, browser_absence_reason, find_chromium
from comfy_host import ComfyHost
from comfy_run import RunFailed
from comfy_server import ComfyServer
from official_templates import TEMPLATES
from template_runs import ABSENT, TemplateRun, convert, furnish, run_template

REFUSED = {
    "h3_int8": "MiniMaxH3Model is no known video DiT",
    "ltx23": "LTXAVModel is made from LTXVModel, but runs its blocks in another way",
    "ltx25": "LTXAVModel is made from LTXVModel, but runs its blocks in another way",
    "wan_animate2": "WanAnimate2Model is made from WanModel, but runs its blocks in another way",
}
RUNNING = [name for name, template in TEMPLATES.items() if template.variant not in REFUSED]


@pytest.fixture(scope="module")
def canvas(server: ComfyServer, comfy_host: ComfyHost) -> Iterator[CanvasPage]:
    if reason := browser_absence_reason():
        pytest.skip(reason)
    from canvas_page import CHROMIUM_ARGS
    from playwright.sync_api import sync_playwright

    furnish(server, comfy_host)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        page = CanvasPage(browser, server.url)
        page.open()
        yield page
        browser.close()


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


@pytest.mark.parametrize("name", RUNNING)
def test_official_graph_runs_with_a_pair_behind_its_loaders(runs: Runs, name: str) -> None:
    """It acts in every sampling, one that was not trained changes no bit, and the video is saved."""
    run = runs[name]
    assert run.is_neutral
    assert run.acts
    assert run.videos
    assert all(part.isfinite().all() for latents in run.trained for part in latents.values())


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in RUNNING])
def test_model_that_no_pair_fits_is_refused_in_a_sentence(runs: Runs, name: str) -> None:
    with pytest.raises(RunFailed) as failed:
        runs[name]
    assert failed.value.node_type == "DualRealApplyStageBlender"
    assert failed.value.message.startswith(REFUSED[TEMPLATES[name].variant])
