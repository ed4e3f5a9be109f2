"""The shipped templates on a real server: every API twin runs, the page reads the canvas files as their twins, batch.py works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from canvas_page import CanvasPage, browser_absence_reason, opened_page
from comfy_host import PACK_NAME, PACK_ROOT
from comfy_run import Run
from comfy_server import ComfyServer
from workflow_bench import NAMES, WORKFLOWS, furnish, read_twin, shortened, write_dataset

from dualreal_core.toyworld.trial import Trial

BATCH = WORKFLOWS / "api" / "batch.py"
BLUEPRINT = "DualReal Train and Blend"
BATCH_PAIRS = [("vex", "figure-eight"), ("vex", "zigzag"), ("nim", "spiral"), ("pip", "box"), ("oru", "hook")]
BAD_FOLDER = "batch/nowhere"
TRAINING_SEED = 31
SAVED_PAIR = re.compile(r"Saved as my_pair_\d{5}_\.safetensors in models/dualreal")
# What each template leaves behind, by the title of the node.
SAVES = {
    "1_quick_start": {"Save Video": ".mp4", "Scores": ".png"},
    "2_train_on_wan": {"Plot Loss Graph": ".png"},
    "3_apply_a_pair": {"Save Video": ".mp4"},
    "4_blend_two_loras": {"Save Video": ".mp4"},
    "5_batch": {"Save Video": ".mp4"},
    "6_wan22_4_steps": {"Save Video": ".mp4", "Blend Map": ".png"},
    "7_ltx23": {"Save Video": ".mp4", "Blend Map, first pass": ".png", "Blend Map, second pass": ".png"},
    "8_minimax_h3": {"Save Video": ".mp4", "Blend Map": ".png"},
}

each_workflow = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def furnished(server: ComfyServer) -> ComfyServer:
    """The server with every file that the templates name, the pair of template 2 included."""
    furnish(server)
    return server


class Runs(dict):
    """Every API twin, run when it is first asked for; template 3 loads what template 2 saves."""

    def __init__(self, server: ComfyServer) -> None:
        super().__init__()
        self.server = server

    def __missing__(self, name: str) -> Run:
        if name == "3_apply_a_pair":
            self["2_train_on_wan"]
        graph = shortened(read_twin(name))
        for node in graph.values():
            if node["class_type"] == "DualRealTrainingSettings":
                # Nobody else on this server has trained with it: the run starts afresh and shows its pictures.
                node["inputs"]["seed"] = TRAINING_SEED
        self[name] = self.server.run(graph)
        return self[name]


@pytest.fixture(scope="module")
def runs(furnished: ComfyServer) -> Runs:
    return Runs(furnished)


def key_of(graph: dict[str, dict], title: str) -> str:
    return next(key for key, node in graph.items() if node["_meta"]["title"] == title)


def test_templates_are_found() -> None:
    assert set(NAMES) == set(SAVES)


@each_workflow
def test_nodes_and_inputs_are_the_servers(server: ComfyServer, name: str) -> None:
    known = server.object_info()
    for node in read_twin(name).values():
        accepted = known[node["class_type"]]["input"]
        names = {*accepted.get("required", {}), *accepted.get("optional", {})}
        assert {key.split(".")[0] for key in node["inputs"]} <= names
        assert set(accepted.get("required", {})) <= {key.split(".")[0] for key in node["inputs"]}


@each_workflow
def test_api_twin_runs(runs: Runs, furnished: ComfyServer, name: str) -> None:
    graph = read_twin(name)
    for title, suffix in SAVES[name].items():
        files = runs[name].files(key_of(graph, title))
        assert files and files[0]["filename"].endswith(suffix)
        assert len(furnished.fetch(files[0])) > 500


def test_quick_start_compares_four_videos_and_shows_the_blend(runs: Runs) -> None:
    graph, run = read_twin("1_quick_start"), runs["1_quick_start"]
    assert run.files(key_of(graph, "Blend Map"))
    assert "6 steps done" in run.text(key_of(graph, "Joint Trainer"))
    assert run.previews


def test_trained_pair_is_found_by_the_template_that_applies_it(runs: Runs, furnished: ComfyServer) -> None:
    saved = runs["2_train_on_wan"].text(key_of(read_twin("2_train_on_wan"), "Save Pair"))
    asked = read_twin("3_apply_a_pair")
    name = asked[key_of(asked, "Load Pair")]["inputs"]["name"]
    assert SAVED_PAIR.match(saved) and SAVED_PAIR.match(f"Saved as {name} in models/dualreal")
    assert (furnished.base / "models" / "dualreal" / name).is_file()


def test_templates_are_offered_by_the_server(server: ComfyServer) -> None:
    assert sorted(server.get("/workflow_templates")[PACK_NAME]) == NAMES


def test_blueprint_is_offered_by_the_server(server: ComfyServer) -> None:
    listed = [key for key, entry in server.get("/global_subgraphs").items() if entry["name"] == BLUEPRINT]
    assert len(listed) == 1
    entry = server.get(f"/global_subgraphs/{listed[0]}")
    assert entry["info"]["node_pack"].endswith(PACK_NAME)
    (definition,) = json.loads(entry["data"])["definitions"]["subgraphs"]
    assert {node["type"] for node in definition["nodes"]} <= set(server.object_info())


@pytest.fixture(scope="module")
def page(furnished: ComfyServer, runs: Runs) -> Iterator[CanvasPage]:
    if reason := browser_absence_reason():
        pytest.skip(reason)
    # The page offers the pair that template 3 names only where it exists.
    assert runs["2_train_on_wan"]
    with opened_page(furnished.url) as opened:
        yield opened


def queued_by(page: CanvasPage) -> dict[str, dict]:
    """What the page would send to /prompt."""
    return page.page.evaluate("async () => (await window.app.graphToPrompt()).output")


@each_workflow
def test_page_reads_the_canvas_file_as_its_twin(page: CanvasPage, name: str) -> None:
    page.problems.clear()
    page.drop(f"{name}.json", (WORKFLOWS / f"{name}.json").read_bytes())
    assert page.missing_types() == [] and page.dialogs() == []
    assert queued_by(page) == read_twin(name)
    assert page.problems_of(PACK_NAME) == []


def test_page_opens_the_blueprint(page: CanvasPage) -> None:
    page.drop("blueprint.json", (PACK_ROOT / "subgraphs" / f"{BLUEPRINT}.json").read_bytes())
    assert page.missing_types() == []
    inner = {node["class_type"]: node["inputs"] for node in queued_by(page).values()}
    assert set(inner) == {"DualRealTrainingSettings", "DualRealJointTrainer", "DualRealApplyStageBlender"}
    assert inner["DualRealJointTrainer"]["settings"] and inner["DualRealApplyStageBlender"]["pair"]


def test_batch_finishes_all_but_the_broken_entry(furnished: ComfyServer, tmp_path: Path) -> None:
    jobs = []
    for number, (identity, motion) in enumerate(BATCH_PAIRS):
        trial = Trial(identity, motion, seed=number)
        write_dataset(furnished.base / "input", f"batch/{identity}", f"batch/{motion}", trial)
        jobs.append({"identity": f"batch/{identity}", "motion": f"batch/{motion}", "prompt": trial.prompts[number]})
    jobs.insert(2, {"identity": BAD_FOLDER, "motion": "batch/spiral", "prompt": "a figure * spirals on mint"})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    (tmp_path / "graph.json").write_text(json.dumps(shortened(read_twin("5_batch"))), encoding="utf-8")

    out = tmp_path / "results"
    command = [sys.executable, BATCH, tmp_path / "graph.json", tmp_path / "jobs.json", "--server", furnished.url, "--out", out]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, "PYTHONUNBUFFERED": "1"})

    assert ended.returncode == 1, ended.stdout + ended.stderr
    (complaint,) = ended.stderr.strip().splitlines()
    assert BAD_FOLDER in complaint and complaint.startswith("003 ")
    assert "5 of 6 entries are done" in ended.stdout
    assert "Joint Trainer" in ended.stdout, "no progress was shown"
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [entry["state"] for entry in results] == ["done", "done", "failed", "done", "done", "done"]
    for entry in results:
        assert (entry["error"] is None) == (entry["state"] == "done")
        assert all((out / name).stat().st_size > 500 for name in entry["files"])
        assert entry["state"] == "failed" or any(name.endswith(".mp4") for name in entry["files"])
    assert furnished.queue_length() == 0
    assert furnished.run(shortened(read_twin("5_batch"))).prompt_id
