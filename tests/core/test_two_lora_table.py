"""The two-LoRA benchmark from the command to the documented table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dualreal_core.bench.experiment import TOY_RECIPE
from dualreal_core.bench.registry import REFERENCES, TWO_LORA_ROWS
from dualreal_core.bench.request_sets import ALL_REQUESTS, FORMER_REQUESTS
from dualreal_core.bench.results import Protocol
from dualreal_core.bench.two_lora_table import ORACLE, cells_of, table
from dualreal_core.cli import main

DOCS = Path(__file__).parents[2] / "docs"
TINY = ["--identities", "tam", "--motions", "box", "--seed", "0", "--steps", "4", "--sampling-steps", "1", "--workers", "1"]


def result(method: str, identity: float, motion: float, figure: str = "tam", training: float = 10.0, joining: float = 0.0) -> dict:
    seconds = {"training": training, "joining": joining}
    scores = {"identity": identity, "motion": motion}
    return {"method": method, "identity": figure, "motion": "box", "seed": 0, "scores": scores, "seconds": seconds}


def references(figure: str) -> list[dict]:
    scores = {"base": (0.5, 0.0), "identity-only": (1.0, 0.0), "motion-only": (0.5, 1.0)}
    return [result(name, *both, figure, 0.0) for name, both in scores.items()]


def test_costs_and_the_best_dial_by_hand():
    found = [
        *references("tam"), *references("zol"),
        result("sum", 0.75, 0.5), result("sum", 0.75, 0.7, "zol"),
        result("reconciled", 1.0, 1.0, training=45.0, joining=0.5),
        result("curves-alone", 0.9, 0.6), result("curves-alone", 0.9, 0.6, "zol"),
        result("curves-alone[identity_early=0]", 0.8, 0.9), result("curves-alone[identity_early=0]", 0.6, 0.7, "zol"),
    ]  # fmt: skip
    cells = cells_of(found)
    assert set(REFERENCES).isdisjoint(cells)
    assert cells["reconciled"][("tam", "box", 0)] == {"retention_identity": 1.0, "retention_motion": 1.0, "seconds": 35.5}
    best = {place[0]: (one["retention_identity"], one["retention_motion"]) for place, one in cells[ORACLE].items()}
    assert best == {"tam": pytest.approx((0.6, 0.9)), "zol": pytest.approx((0.8, 0.6))}
    lines = table(cells, "sum")
    assert lines[2].startswith("| `sum` | 2 | .500") and lines[2].endswith("|  |  | 0 |")  # nothing minus itself
    assert lines[3].startswith("| `curves-alone` | 2 | .800") and "| .300 (.300 to .300) | .000 (-.100 to .100) | 0 |" in lines[3]
    assert lines[-1].startswith(f"| `{ORACLE}`")


@pytest.mark.thorough
def test_command_asks_for_the_fusion_alone_and_reports_it(tmp_path):
    command = ["bench", "two-loras", "--out", str(tmp_path), *TINY]
    assert main([*command, "--methods", "curves-alone", "k-lora"]) == 0
    (file,) = (tmp_path / "results" / "k-lora").glob("*.json")
    scores = json.loads(file.read_text(encoding="utf-8"))["scores"]
    assert {"identity", "motion", "adherence"} <= set(scores) and not {"leak_figure", "known_motion_motion"} & set(scores)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| K-LoRA, motion early | 1 |" in report and "dualreal bench two-loras --methods k-lora" in report
    note = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    protocol = Protocol.from_note(note)
    assert (protocol.precision, protocol.asks) == ("bf16", ("fused",))
    assert main(["bench", "fusion", "--out", str(tmp_path), *TINY, "--methods", "sum"]) == 2  # another protocol


def test_a_folder_of_former_versions_means_the_same():
    former = Protocol(TOY_RECIPE, asks=FORMER_REQUESTS)
    later = {"asks", "precision", "guidance"}
    assert Protocol.from_note(former.recorded()).asks == FORMER_REQUESTS and not later & set(former.recorded())
    now = Protocol(TOY_RECIPE, guidance=1.0)
    assert now.asks == ALL_REQUESTS and Protocol.from_note(json.loads(json.dumps(now.recorded()))).recorded() == now.recorded()


@pytest.mark.parametrize("part", ["test", "tuning"])
def test_documented_tables_follow_from_the_stored_scores(part):
    """What the script prints stands in the documentation, to the last digit."""
    stored = json.loads((DOCS / "two-lora-cells.json").read_text(encoding="utf-8"))[part]
    section = (DOCS / "benchmark.md").read_text(encoding="utf-8").split("## Two LoRAs")[1].split("\n## ")[0]
    printed = table(cells_of(stored), "sum-scheduled")
    assert len(printed) > 8 and [line for line in printed if line not in section] == []


def test_every_row_is_documented():
    section = (DOCS / "benchmark.md").read_text(encoding="utf-8").split("## Two LoRAs")[1].split("\n## ")[0]
    assert [name for name in TWO_LORA_ROWS if name not in REFERENCES and not re.search(rf"`{name}`", section)] == []
