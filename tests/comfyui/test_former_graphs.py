"""A graph in API format that was written when inputs had other names runs as it did, and the log says what they are now."""

from __future__ import annotations

import json

from comfy_host import PACK_ROOT
from comfy_server import ComfyServer

GRAPH = PACK_ROOT / "tests" / "written_before" / "graphs" / "quick_start.api.json"
STEPS = 4


def test_a_former_graph_trains_by_its_settings(server: ComfyServer) -> None:
    prompt = json.loads(GRAPH.read_text(encoding="utf-8"))
    (settings_id,) = [key for key, node in prompt.items() if node["class_type"] == "DualRealTrainingSettings"]
    trainer_id, trainer = next((key, node) for key, node in prompt.items() if node["class_type"] == "DualRealJointTrainer")
    trainer["inputs"]["name"] = "former graph"
    prompt[settings_id]["inputs"] |= {"steps": STEPS, "width": 2, "floor": 0.3, "groups": 2, "course_focus": 1.5, "preview_every": 0}
    wanted: set[str] = set()
    waiting = [trainer_id]
    while waiting:  # the trainer and what it needs: the rest of the template samples
        wanted.add(waiting[-1])
        inputs = prompt[waiting.pop()]["inputs"].values()
        waiting += [value[0] for value in inputs if isinstance(value, list) and value[0] not in wanted]
    graph = {key: node for key, node in prompt.items() if key in wanted}
    graph["steps"] = {"class_type": "PreviewAny", "inputs": {"source": [trainer_id, 2]}}
    assert server.run(graph).text("steps") == str(STEPS)
    (run_file,) = (server.base / "output" / "dualreal" / "runs" / "former graph").glob("*/run.json")
    asked = json.loads(run_file.read_text(encoding="utf-8"))
    assert [asked["pair"][name] for name in ("identity_rank", "motion_rank", "has_controller", "num_groups")] == [2, 2, False, 2]
    assert (asked["training"]["timestep_bias"], asked["training"]["motion_ratio"], asked["training"]["identity_batch"]) == (1.5, 0.4, 4)
    assert f"DualRealTrainingSettings {settings_id} has former names of inputs" in server.log()
