"""The blend editor in a real page: by mouse, by keys, by text; saved, undone, exported, and with what a run used behind it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from canvas_page import CanvasPage, opened_page
from comfy_host import PACK_NAME
from comfy_server import ComfyServer
from editor_page import RENDERERS, EditorPage
from random_curves import PLACES, READ_ALL, expected, texts
from test_curves_node import DRAWN, blended

from dualreal_core.method.curves import parse_curves
from dualreal_core.method.presets import PRESETS, movement_first

ARTIFACTS = Path(os.environ.get("DUALREAL_ARTIFACTS") or Path(__file__).parent / "artifacts")
RUN_TIMEOUT = 300.0
seeds = itertools.count(int(time.time()))
each_renderer = pytest.mark.parametrize("renderer", RENDERERS)
START = str(movement_first())
DENY_CLIPBOARD = """() => {
  navigator.clipboard.readText = navigator.clipboard.writeText = async () => { throw new Error('denied') }
}"""
COPY_SECOND = """() => {
  const { canvas, graph } = window.app
  canvas.selectItems([graph.nodes[1]])
  canvas.copyToClipboard()
  canvas.pasteFromClipboard()
}"""
INTO_SUBGRAPH = """() => {
  const { graph, canvas } = window.app
  const inner = graph.nodes.filter(node => ['DualRealBlendCurves', 'DualRealApplyStageBlender'].includes(node.type))
  canvas.setGraph(graph.convertToSubgraph(new Set(inner)).node.subgraph)
}"""
TO_EDITOR = """() => {
  const { canvas } = window.app
  const node = canvas.graph.nodes.find(one => one.type === 'DualRealBlendCurves')
  canvas.ds.scale = 1
  canvas.ds.offset = [150 - node.pos[0], 130 - node.pos[1]]
  canvas.setDirty(true, true)
}"""
WIRE_TEXT = """text => {
  const { app, LiteGraph } = window
  const source = LiteGraph.createNode('PrimitiveStringMultiline')
  app.graph.add(source)
  source.pos = [700, 110]
  source.widgets[0].value = text
  const node = app.graph.nodes.find(one => one.type === 'DualRealBlendCurves')
  source.connect(0, node, node.inputs.findIndex(input => input.name === 'curves'))
}"""
READ_IN_PAGE = """async ([texts, places, module]) => {
  const { SIDES, AXES, CurvesError, parseCurves, formatCurves, weightAt } = await import(module)
  return (READ_ALL)(texts, places)
}"""


@pytest.fixture(scope="module")
def canvas(server: ComfyServer) -> Iterator[CanvasPage]:
    with opened_page(server.url) as page:
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


@pytest.fixture
def editors(canvas: CanvasPage) -> Iterator[EditorPage]:
    canvas.problems.clear()
    yield EditorPage(canvas)
    assert canvas.problems_of(PACK_NAME) == []


def points(text: str, side: str = "identity", axis: str = "sigma") -> tuple:
    return getattr(parse_curves(text).side(side), axis)


@each_renderer
def test_mouse_keys_presets_and_undo(editors: EditorPage, renderer: str) -> None:
    """At a zoom that is not 1: a drag goes where the pointer goes, and is one step of both undos."""
    editors.show(renderer, scale=0.8)
    assert editors.values() == [START]
    frame = editors.drag("sigma", "identity", 4, right=-0.3, down=0.1)
    (dragged,) = editors.values()
    (level, weight) = points(dragged)[4]
    assert level == 1.0 and weight == pytest.approx(0.4 - 2 * 0.1 * frame["height"] / (frame["height"] - 28 * 0.8), abs=0.03)
    frame = editors.drag("sigma", "identity", 2, right=0.2, down=0)
    (moved,) = editors.values()
    assert points(moved)[2][0] == pytest.approx(0.667 - 0.2 * frame["width"] / (frame["width"] - 48 * 0.8), abs=0.01)
    assert points(moved)[2][1] == 1.2
    assert points(moved, "motion") == points(START, "motion")
    editors.screenshot(ARTIFACTS / f"editor-{renderer}-dragged.png")

    editors.button("undo").click()
    assert editors.values() == [dragged]
    editors.button("undo").click()
    assert editors.values() == [START] and editors.button("undo").is_disabled()
    editors.button("redo").click()
    assert editors.values() == [dragged]
    editors.page_undo()
    assert editors.values() == [START]
    editors.page_undo()
    assert editors.values() == [dragged]

    point = editors.point("sigma", "motion", 0)
    point.focus()
    before = points(editors.values()[0], "motion")
    for key in ("ArrowUp", "ArrowRight", "Shift+ArrowRight"):
        editors.page.keyboard.press(key)
    after = points(editors.values()[0], "motion")
    assert before[0] == (0.0, 0.0) and after[0][1] == pytest.approx(0.05)
    assert editors.point("sigma", "motion", 0).evaluate("element => element === document.activeElement")
    editors.page.keyboard.press("ArrowLeft")
    assert points(editors.values()[0], "motion")[0] == pytest.approx((0.01, 0.05))
    editors.page.keyboard.press("End")
    assert points(editors.values()[0], "motion")[0][1] == 4.0
    editors.page.keyboard.press("Home")
    assert points(editors.values()[0], "motion")[0][1] == 0.0
    editors.page.keyboard.press("+")
    assert len(points(editors.values()[0], "motion")) == 6
    editors.page.keyboard.press("Delete")
    assert len(points(editors.values()[0], "motion")) == 5 and len(editors.values()) == 1
    label = editors.page.evaluate("() => ['role', 'aria-label', 'aria-valuetext'].map(name => document.activeElement.getAttribute(name))")
    assert label[0] == "slider" and label[1].startswith("Motion, denoising, point 2 of 5") and label[2].startswith("weight 0")

    editors.button("preset").select_option("identity late")
    assert editors.values() == [str(PRESETS["identity late"])]
    editors.button("reset").click()
    assert editors.values() == [START]
    editors.button("early").focus()
    for _ in range(3):
        editors.page.keyboard.press("ArrowRight")
    editors.page.keyboard.press("Tab")
    assert parse_curves(editors.values()[0]) == movement_first(0.55)
    editors.editor().locator(".side.identity").click()  # both curves lie in one place: it comes to the top
    editors.point("depth", "identity", 1).click()
    editors.editor().locator("[data-field=weight]").fill("0.7")
    editors.page.keyboard.press("Tab")
    assert points(editors.values()[0], "identity", "depth") == ((0.0, 1.0), (1.0, 0.7))
    kept = editors.values()
    assert editors.exported() == [{"curves": kept[0]}]
    editors.screenshot(ARTIFACTS / f"editor-{renderer}-keys.png")
    editors.canvas.drop("saved.json", json.dumps(editors.page.evaluate("() => window.app.graph.serialize()")).encode())
    editors.settle()
    assert editors.values() == kept and editors.exported() == [{"curves": kept[0]}]


@pytest.mark.thorough
@each_renderer
def test_text_is_typed_pasted_copied_and_put_right(editors: EditorPage, renderer: str) -> None:
    editors.show(renderer)
    editors.editor().locator("summary").click()
    field, error = editors.editor().locator("textarea"), editors.editor().locator(".error")
    field.fill("identity sigma 1:0.5 0:9")
    assert "weights from 0 to 4" in error.inner_text() and "keep what they were" in error.inner_text()
    assert editors.values() == [START]
    field.fill("identity sigma 1:0.5 0:3  # mine")
    assert error.inner_text() == "" and editors.values() == ["identity sigma 1:0.5 0:3  # mine"]
    editors.point("sigma", "identity", 0).focus()
    assert editors.editor().locator("svg.plot").first.get_attribute("data-top") == "4"
    editors.button("copy").click()
    editors.editor().get_by_text("Copied.").wait_for()
    assert editors.page.evaluate("() => navigator.clipboard.readText()") == "identity sigma 1:0.5 0:3  # mine"
    for text, said in ((DRAWN, "Pasted."), ("no curves", "")):
        editors.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        editors.button("paste").click()
        editors.page.wait_for_timeout(300)
        assert editors.values() == [DRAWN] and editors.editor().locator(".status").inner_text() == said
    assert "no line of them" in error.inner_text()
    editors.screenshot(ARTIFACTS / f"editor-{renderer}-error.png")
    editors.page.evaluate(DENY_CLIPBOARD)
    editors.button("copy").click()
    editors.page.wait_for_timeout(300)
    assert "Ctrl+C" in editors.editor().locator(".status").inner_text()
    assert editors.page.evaluate("() => document.activeElement.tagName + getSelection().toString().length") != "BODY0"


@pytest.mark.thorough
@each_renderer
def test_saved_loaded_copied_and_exported_as_a_plain_string(editors: EditorPage, renderer: str) -> None:
    editors.show(renderer, count=2)
    editors.button("preset", 1).select_option("motion deep")
    mixed = [START, str(PRESETS["motion deep"])]
    assert editors.values() == mixed and editors.exported() == [{"curves": text} for text in mixed]
    saved = editors.page.evaluate("() => JSON.stringify(window.app.graph.serialize())")
    assert [saved_node["widgets_values"] for saved_node in json.loads(saved)["nodes"]] == [[text] for text in mixed]
    editors.canvas.drop("saved.json", saved.encode())
    editors.settle(1)
    assert editors.values() == mixed and editors.exported() == [{"curves": text} for text in mixed]
    editors.page.evaluate(COPY_SECOND)
    editors.settle(2)
    editors.button("preset", 2).select_option("even")
    assert editors.values() == [*mixed, str(PRESETS["even"])]
    assert editors.editor(2).locator(".point.identity").count() == editors.editor(1).locator(".point.identity").count() == 4
    editors.page.wait_for_timeout(1500)  # the page keeps drafts of what is open
    editors.canvas.open()
    editors.settle(2)
    assert editors.values() == [*mixed, str(PRESETS["even"])]


@pytest.mark.parametrize(
    ("renderer", "place"),
    [
        ("nodes 2", "subgraph"),
        pytest.param("nodes 2", "graph", marks=pytest.mark.thorough),
        pytest.param("classic", "graph", marks=pytest.mark.thorough),
        pytest.param("classic", "subgraph", marks=pytest.mark.thorough),
    ],
)
def test_a_run_shows_what_was_used(server: ComfyServer, editors: EditorPage, renderer: str, place: str) -> None:
    editors.show(renderer)
    graph = blended(DRAWN, strength=0.5)
    graph["sample"]["inputs"]["seed"] = next(seeds)  # what comes from the cache was not sampled
    editors.page.evaluate("graph => window.app.loadApiJson(graph, 'used.json')", graph)
    editors.page.wait_for_timeout(1000)
    if place == "subgraph":
        editors.page.evaluate(INTO_SUBGRAPH)
    editors.page.evaluate(TO_EDITOR)
    editors.settle()
    assert editors.values() == [DRAWN]
    ended = editors.canvas.run(RUN_TIMEOUT)
    assert ended["type"] == "execution_success", ended["detail"]
    caption = editors.editor().locator(".used-caption")
    assert "4 steps" in caption.inner_text() and "changed" not in caption.inner_text()
    assert editors.editor().locator(".plot-frame.sigma .used > g").count() == 8
    assert editors.editor().locator(".plot-frame.depth .used > g").count() == 6
    assert "used: 0.2 to 0.38" in editors.editor().locator(".map.identity .map-caption").inner_text()
    assert editors.values() == [DRAWN]
    editors.screenshot(ARTIFACTS / f"editor-{renderer}-{place}-used.png")
    editors.canvas.screenshot(ARTIFACTS / f"editor-{renderer}-{place}-page.png")
    editors.button("preset").select_option("even")
    assert "changed since" in caption.inner_text()


@pytest.mark.thorough
@each_renderer
def test_a_wired_text_and_japanese(editors: EditorPage, renderer: str) -> None:
    editors.show(renderer, Comfy_Locale="ja")
    try:
        assert editors.button("undo").get_attribute("aria-label") == "元に戻す"
        assert editors.point("sigma", "identity", 0).get_attribute("aria-label") == "被写体、ノイズ除去、5点中1番目"
        assert "動きを先に" in editors.button("preset").inner_text()
        editors.screenshot(ARTIFACTS / f"editor-{renderer}-japanese.png")
        editors.page.evaluate(WIRE_TEXT, DRAWN)
        editors.page.wait_for_timeout(700)
        assert editors.page.evaluate("() => document.querySelector('.dualreal-blend-editor')?.hasAttribute('inert') ?? true")
        editors.canvas.screenshot(ARTIFACTS / f"editor-{renderer}-wired.png")
    finally:
        editors.page.request.post(f"{editors.canvas.url}/api/settings/Comfy.Locale", data='"en"')


@pytest.mark.thorough
def test_the_page_reads_texts_as_the_core_does(editors: EditorPage) -> None:
    editors.show("classic")
    given = texts(300, seed=1)
    module = f"/extensions/{PACK_NAME}/js/blend_editor/curves.js"
    found = editors.page.evaluate(READ_IN_PAGE.replace("READ_ALL", READ_ALL), [given, PLACES, module])
    for text, own in zip(given, found, strict=True):
        right = expected(text)
        assert (own is None) == (right is None), text
        if own:
            assert parse_curves(own["written"]) == parse_curves(right["written"]), text
