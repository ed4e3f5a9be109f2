"""Every node of the pack in the classic canvas and in Nodes 2.0: its fields are there and take what is given; saved, opened again, undone.

The frontend is the one that ComfyUI brings. DUALREAL_FRONTEND names the `static` folder of another one, which is then tried as well:

    pip download --no-deps comfyui-frontend-package && unzip comfyui_frontend_package-*.whl
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from canvas_page import NODES_2, RENDERERS, CanvasPage, opened_page
from comfy_host import PACK_NAME, PACK_ROOT
from comfy_server import ComfyServer
from node_page import add_nodes, drawn, enter, prompt_of, reopen, save, step_up, undo
from workflow_bench import furnish, shortened_canvas

ARTIFACTS = Path(os.environ.get("DUALREAL_ARTIFACTS") or Path(__file__).parent / "artifacts")
WORKFLOWS = sorted((PACK_ROOT / "workflows").glob("*.json"))
OTHER_FRONTEND = os.environ.get("DUALREAL_FRONTEND")
NUM_AT_ONCE = 8
RUN_TIMEOUT = 900.0
GIVEN = {"INT": ("64", "80"), "FLOAT": ("0.35", "0.25")}
UNNAMED = ("CURVE",)
"""Of these widgets Nodes 2.0 shows the field alone."""

PAGES = [
    *(pytest.param((renderer, None), id=f"{renderer}, own frontend") for renderer in RENDERERS),
    *(
        pytest.param(
            (renderer, OTHER_FRONTEND), id=f"{renderer}, other frontend",
            marks=pytest.mark.skipif(not OTHER_FRONTEND, reason="NOT TRIED in another frontend: DUALREAL_FRONTEND names none"),
        )
        for renderer in RENDERERS
    ),
]  # fmt: skip


@pytest.fixture(scope="module", params=PAGES)
def canvas(request: pytest.FixtureRequest, server: ComfyServer) -> Iterator[CanvasPage]:
    renderer, frontend = request.param
    with opened_page(server.url, renderer, frontend and Path(frontend)) as page:
        yield page


def widgets_of(schema: dict) -> dict[str, str]:
    """Name to type of the inputs of a node that the page shows as fields, advanced ones apart."""
    inputs = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
    found = {}
    for name, (kind, *options) in inputs.items():
        given = options[0] if options else {}
        is_field = isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "CURVE")
        if is_field and not (given.get("forceInput") or given.get("advanced") or given.get("hidden")):
            found[name] = "COMBO" if isinstance(kind, list) else kind
    return found


def labels_of(schema: dict) -> dict[str, str]:
    """What inputs are called on the canvas, where that is not their name."""
    inputs = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
    return {name: options[0]["display_name"] for name, (_, *options) in inputs.items() if options and options[0].get("display_name")}


def test_every_node_shows_its_fields_and_they_take_values(server: ComfyServer, canvas: CanvasPage) -> None:
    info = {kind: schema for kind, schema in sorted(server.object_info().items()) if kind.startswith("DualReal")}
    canvas.problems.clear()
    for start in range(0, len(info), NUM_AT_ONCE):
        types = list(info)[start : start + NUM_AT_ONCE]
        found = add_nodes(canvas, types)
        canvas.screenshot(ARTIFACTS / f"nodes-{name_of(canvas)}-{start // NUM_AT_ONCE}.png")
        for kind in types:
            fields, node_id = widgets_of(info[kind]), found[kind]["id"]
            assert set(fields) <= set(found[kind]["widgets"]), kind
            if canvas.renderer == NODES_2:
                words = drawn(canvas, node_id)
                assert info[kind]["display_name"] in words
                shown = labels_of(info[kind])
                assert [name for name, type_ in fields.items() if type_ not in UNNAMED and shown.get(name, name) not in words] == [], kind
            number = next((name for name, type_ in fields.items() if type_ in GIVEN), None)
            if number:
                before, after = change(canvas, node_id, number, GIVEN[fields[number]])
                assert before != after, f"{kind}: {number} stayed {before}"
        exported = prompt_of(canvas)
        reopen(canvas, save(canvas))
        assert prompt_of(canvas) == exported
    assert canvas.problems_of(PACK_NAME) == []


def test_a_change_is_taken_back(canvas: CanvasPage) -> None:
    node_id = add_nodes(canvas, ["DualRealTrainingSettings"])["DualRealTrainingSettings"]["id"]
    reopen(canvas, save(canvas))  # from here on the page keeps what changes
    before, after = change(canvas, node_id, "steps", GIVEN["INT"])
    assert before != after
    undo(canvas)
    (settings,) = prompt_of(canvas).values()
    assert settings["inputs"]["steps"] == before


def test_the_quick_start_runs(server: ComfyServer, canvas: CanvasPage) -> None:
    if canvas.renderer != NODES_2 and canvas.frontend is None:
        pytest.skip("test_canvas.py runs it in the classic canvas")
    run_template(canvas, WORKFLOWS[0])


@pytest.mark.thorough
@pytest.mark.parametrize("workflow", WORKFLOWS[1:], ids=lambda file: file.stem)
def test_every_template_runs(server: ComfyServer, canvas: CanvasPage, workflow: Path) -> None:
    if not (server.base / "models" / "vae" / "wan_2.1_vae.safetensors").exists():
        furnish(server)
        canvas.open()
    run_template(canvas, workflow)


def run_template(canvas: CanvasPage, workflow: Path) -> None:
    """Opened, exported, opened small, run, saved and opened again."""
    canvas.problems.clear()
    canvas.drop(workflow.name, workflow.read_bytes())
    assert canvas.missing_types() == [] and canvas.dialogs() == []
    canvas.screenshot(ARTIFACTS / f"{workflow.stem}-{name_of(canvas)}-loaded.png")
    assert prompt_of(canvas) == json.loads((workflow.parent / "api" / workflow.name).read_bytes())
    canvas.drop(workflow.name, json.dumps(shortened_canvas(json.loads(workflow.read_bytes()))).encode())
    exported = prompt_of(canvas)
    ended = canvas.run(RUN_TIMEOUT)
    canvas.screenshot(ARTIFACTS / f"{workflow.stem}-{name_of(canvas)}-ran.png")
    if canvas.renderer == NODES_2:
        shown = canvas.page.locator("[data-node-id]").filter(has_text="DualReal").all_inner_texts()
        assert not any("failed to load" in words for words in shown)
    assert ended["type"] == "execution_success", ended["detail"]
    reopen(canvas, save(canvas))
    assert prompt_of(canvas) == exported
    assert canvas.problems_of(PACK_NAME) == []


def change(canvas: CanvasPage, node_id: str, name: str, values: tuple[str, str]) -> tuple[object, object]:
    """A widget's value before and after a person changed it: to the second one where it has the first."""
    if canvas.renderer != NODES_2:
        return step_up(canvas, node_id, name)
    changed = enter(canvas, node_id, name, values[0])
    return enter(canvas, node_id, name, values[1]) if changed[0] == changed[1] else changed


def name_of(canvas: CanvasPage) -> str:
    return f"{canvas.renderer.replace(' ', '_')}-{'other' if canvas.frontend else 'own'}"
