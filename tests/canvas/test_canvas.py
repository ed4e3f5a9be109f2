"""Every template opens in the page, runs from it, and comes back out of the metadata of what it saved.

It is opened as it is shipped; to run within seconds it is then opened again with few steps and small pictures, on tiny models.

The stock_*.json graphs beside this file hold no node of the pack: where they fail, the driver is at fault.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from canvas_page import SETTLE_MS, CanvasPage, opened_page
from comfy_host import PACK_NAME, PACK_ROOT
from comfy_run import saved_files
from comfy_server import ComfyServer
from workflow_bench import furnish, shortened_canvas

HERE = Path(__file__).parent
ARTIFACTS = Path(os.environ.get("DUALREAL_ARTIFACTS") or HERE / "artifacts")
WORKFLOW_FOLDER = PACK_ROOT / "workflows"
WORKFLOWS = sorted(WORKFLOW_FOLDER.glob("*.json"))
FORMER = PACK_ROOT / "tests" / "written_before" / "graphs" / "quick_start.json"
RUN_TIMEOUT = 900.0
WIDGETS = """type => {
  const node = window.app.graph.nodes.find(one => one.type === type)
  return node && Object.fromEntries(node.widgets.map(widget => [widget.name, widget.value]))
}"""

STOCK_WORKFLOWS = sorted(HERE.glob("stock_*.json"))

BRIEF = ("1_quick_start", "6_wan22_4_steps")
"""Templates that the page runs; others it reads in tests/comfyui, and runs at length."""
each_workflow = pytest.mark.parametrize(
    "workflow",
    [
        pytest.param(file, marks=[pytest.mark.thorough] * (file in WORKFLOWS and file.stem not in BRIEF))
        for file in (*STOCK_WORKFLOWS, *WORKFLOWS)
    ],
    ids=lambda file: file.stem,
)


@pytest.fixture(scope="module")
def canvas(server: ComfyServer) -> Iterator[CanvasPage]:
    furnish(server)
    with opened_page(server.url) as page:
        yield page


def test_templates_are_found() -> None:
    assert WORKFLOWS or not WORKFLOW_FOLDER.exists(), f"{WORKFLOW_FOLDER} holds no template"


@each_workflow
def test_workflow_runs_and_returns_from_its_output(server: ComfyServer, canvas: CanvasPage, workflow: Path) -> None:
    canvas.problems.clear()
    canvas.drop(workflow.name, workflow.read_bytes())
    canvas.screenshot(ARTIFACTS / f"{workflow.stem}-loaded.png")
    assert canvas.missing_types() == []
    assert canvas.dialogs() == []
    node_count = canvas.node_count()
    if workflow in WORKFLOWS:
        canvas.drop(workflow.name, json.dumps(shortened_canvas(json.loads(workflow.read_bytes()))).encode())
        assert canvas.missing_types() == [] and canvas.node_count() == node_count

    ended = canvas.run(RUN_TIMEOUT)
    canvas.screenshot(ARTIFACTS / f"{workflow.stem}-ran.png")
    assert ended["type"] == "execution_success", ended["detail"]
    assert canvas.problems_of(PACK_NAME) == []

    prompt_id = ended["detail"]["prompt_id"]
    outputs = server.get(f"/history/{prompt_id}")[prompt_id]["outputs"]
    saved = [file for file in saved_files(outputs) if file["filename"].endswith((".png", ".mp4"))]
    saved.sort(key=lambda file: file["type"] != "output")  # a template that saves a pair alone still shows pictures
    assert saved, f"{workflow.name} makes neither an image nor a video"
    canvas.drop(saved[0]["filename"], server.fetch(saved[0]))
    canvas.screenshot(ARTIFACTS / f"{workflow.stem}-from-output.png")
    assert canvas.node_count() == node_count
    assert canvas.missing_types() == []
    assert canvas.problems_of(PACK_NAME) == []


def test_missing_node_types_are_noticed(canvas: CanvasPage) -> None:
    stock = (HERE / "stock_image.json").read_bytes()
    canvas.drop("broken.json", stock.replace(b'"EmptyImage"', b'"NoSuchNode"'))
    assert canvas.missing_types() == ["NoSuchNode"]
    canvas.screenshot(ARTIFACTS / "missing-node.png")
    canvas.open()


def test_missing_model_files_are_offered_for_download(canvas: CanvasPage) -> None:
    """With the folders that they belong into."""
    template = (WORKFLOW_FOLDER / "2_train_on_wan.json").read_text(encoding="utf-8")
    canvas.drop("absent.json", template.replace("_fp", "_absent_fp").replace("wan_2.1_vae", "wan_absent_vae").encode())
    canvas.page.get_by_role("button", name="View details").first.click()
    canvas.page.get_by_text("Missing Models").first.wait_for()
    canvas.page.wait_for_timeout(SETTLE_MS)
    canvas.screenshot(ARTIFACTS / "missing-models.png")
    shown = canvas.page.locator("body").inner_text()
    for name, folder in (
        ("wan2.1_t2v_1.3B_absent_fp16.safetensors", "diffusion_models"),
        ("umt5_xxl_absent_fp8_e4m3fn_scaled.safetensors", "text_encoders"),
        ("wan_absent_vae.safetensors", "vae"),
    ):
        assert name in shown and folder in shown
    assert canvas.page.get_by_text("Download", exact=True).count() == 3
    canvas.open()
    canvas.problems.clear()  # the page looked for the files and may not leave this machine


def test_a_former_graph_keeps_its_values_and_the_user_is_told(canvas: CanvasPage) -> None:
    """Saved values are listed by place, so that those of renamed or moved inputs would land in others."""
    canvas.drop(FORMER.name, FORMER.read_bytes())
    told = canvas.page.locator(".p-toast-message").all_inner_texts()  # at once, as it goes by itself
    canvas.screenshot(ARTIFACTS / "former-graph.png")
    values = {
        type_: canvas.page.evaluate(WIDGETS, type_)
        for type_ in ("DualRealTrainingSettings", "DualRealTrainingOptions", "DualRealIdentityDataset", "DualRealMotionDataset")
    }
    assert values["DualRealTrainingSettings"] == {
        "steps": 800, "adapter": "lora", "rank": 32, "learning_rate": 0.002, "gradient_checkpointing": False,
        "preview_every": 50, "seed": 0,
    }  # fmt: skip
    options = values["DualRealTrainingOptions"]
    assert (options["motion_ratio"], options["identity_batch"], options["motion_batch"], options["warmup_steps"]) == (0.4, 4, 4, 20)
    assert (options["has_controller"], options["share_schedule"], options["save_best"]) == (False, "motion fades", False)
    assert values["DualRealIdentityDataset"] == {"width": 32, "height": 32, "num_crops": 4, "crop_margin": 0.5, "image_to_video": False}
    clips = {"width": 32, "height": 32, "frames": 9, "fps": 10.0, "max_segments": 1, "image_to_video": False}
    assert values["DualRealMotionDataset"] == clips
    assert canvas.missing_types() == [] and canvas.problems_of(PACK_NAME) == []
    assert any("width is now rank" in text for text in told), told
    prompt = canvas.page.evaluate("async () => (await window.app.graphToPrompt()).output")
    (settings,) = [node for node in prompt.values() if node["class_type"] == "DualRealTrainingSettings"]
    assert prompt[settings["inputs"]["options"][0]]["class_type"] == "DualRealTrainingOptions"
