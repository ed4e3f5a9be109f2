"""Graphs written when inputs of nodes had other names: what becomes of each. `tests/written_before/graphs` holds some."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORMER = ROOT / "tests" / "written_before" / "graphs" / "quick_start.api.json"
PRESENT = ROOT / "workflows" / "api" / "1_quick_start.json"
TABLE = json.loads((ROOT / "web" / "js" / "former_inputs.json").read_text())


@pytest.fixture(scope="module")
def former_inputs():
    spec = importlib.util.spec_from_file_location("former_inputs", ROOT / "nodes" / "former_inputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nodes_of(prompt: dict, class_type: str) -> dict[str, dict]:
    return {key: node for key, node in prompt.items() if node["class_type"] == class_type}


LATER = {"motion_rank": 0, "sigma_min": -1.0, "sigma_max": -1.0, "expert_steps": 50, "image_to_video": False}
"""Inputs of these nodes that came later, at their defaults."""


def test_a_former_template_is_todays(former_inputs):
    """What the former quick start asks for is what today's asks for, but for what the options leave at their defaults."""
    old, new = json.loads(FORMER.read_text()), json.loads(PRESENT.read_text())
    sentences = former_inputs.translate(old, TABLE)
    assert len(sentences) == 3 and all(sentence.endswith(".") for sentence in sentences)
    for class_type in ("DualRealIdentityDataset", "DualRealMotionDataset", "DualRealTrainingSettings", "DualRealTrainingOptions"):
        (then,), (now,) = nodes_of(old, class_type).values(), nodes_of(new, class_type).values()
        plain = [{name: value for name, value in node["inputs"].items() if not isinstance(value, list)} for node in (then, now)]
        plain[1] = {name: value for name, value in plain[1].items() if (name, value) not in LATER.items()}
        assert plain[0] == plain[1], class_type
    (settings,) = nodes_of(old, "DualRealTrainingSettings").values()
    (options_id,) = nodes_of(old, "DualRealTrainingOptions")
    assert settings["inputs"]["options"] == [options_id, 0]


def test_the_sentence_names_old_and_new(former_inputs):
    prompt = {"7": {"class_type": "DualRealTrainingSettings", "inputs": {"steps": 5, "width": 8, "floor": 0.1}}}
    (sentence,) = former_inputs.translate(prompt, TABLE)
    assert "DualRealTrainingSettings 7" in sentence and "width is now rank" in sentence
    assert "floor is now has_controller, which is true where it was 0" in sentence
    assert "not in this node any more is in DualRealTrainingOptions" in sentence
    assert prompt["7"]["inputs"] == {"steps": 5, "rank": 8, "options": ["7:options", 0]}
    assert prompt["7:options"]["inputs"] == {"has_controller": False}


@pytest.mark.parametrize(("learned_range", "has_controller"), [(0.0, False), (0.01, False), (0.2, False), (0.5, True)])
def test_a_range_is_a_network_where_it_was_free(former_inputs, learned_range, has_controller):
    prompt = {"3": {"class_type": "DualRealTrainingOptions", "inputs": {"learned_range": learned_range, "num_groups": 3}}}
    (sentence,) = former_inputs.translate(prompt, TABLE)
    assert "learned_range is now has_controller, which is true where it was 0.5" in sentence
    assert prompt["3"]["inputs"] == {"has_controller": has_controller, "num_groups": 3}


def test_what_is_gone_is_left_out_and_said(former_inputs):
    prompt = {"1": {"class_type": "DualRealIdentityDataset", "inputs": {"views": 2, "clip_frames": 9}}}
    (sentence,) = former_inputs.translate(prompt, TABLE)
    assert prompt["1"]["inputs"] == {"num_crops": 2} and "clip_frames is gone" in sentence


def test_a_present_name_wins_over_a_former_one(former_inputs):
    prompt = {"1": {"class_type": "DualRealTrainingSettings", "inputs": {"width": 2, "rank": 3}}}
    former_inputs.translate(prompt, TABLE)
    assert prompt["1"]["inputs"] == {"rank": 3}


@pytest.mark.parametrize(
    "prompt", [None, [], {}, {"1": None}, {"1": {"inputs": 3, "class_type": "DualRealMotionDataset"}}, {"1": {"class_type": []}}]
)
def test_what_is_no_prompt_is_left_to_comfyui(former_inputs, prompt):
    assert former_inputs.translate(prompt, TABLE) == []


def test_graphs_of_today_stay_as_they_are(former_inputs):
    for file in (ROOT / "workflows" / "api").glob("*.json"):
        prompt = json.loads(file.read_text())
        before = json.dumps(prompt)
        assert former_inputs.translate(prompt, TABLE) == [] and json.dumps(prompt) == before, file.name
