"""benchmarks/sites.py: every part gives its lines, what fails is a line with its reason, and what is compared is what it is said to be."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import iterate_sides
from dualreal_core.method.updates import Updates

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def part(name: str) -> ModuleType:
    return importlib.import_module(f"site_parts.{name}")


@pytest.fixture(params=["wan", "cogvideox"])
def base(request: pytest.FixtureRequest):
    """A tiny base of the benchmark's, of a family."""
    models = part("models")
    size = next(size for size in models.SAMPLED if size.shape.family == request.param)
    return models.make_base(size.tiny)


@pytest.mark.thorough
def test_every_part_gives_its_lines(tmp_path: Path):
    done = subprocess.run([sys.executable, BENCHMARKS / "sites.py", "--quick", "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "sites.json").read_text())
    assert all(results["machine"].values()) and results["machine"]["threads"] == 1
    parts = {name: found["rows"] for name, found in results["parts"].items()}
    assert {name: len(rows) for name, rows in parts.items()} == {"counts": 9, "kept": 12, "compile": 8, "sampling": 46, "training": 24}
    uncompiled = [row for name in ("counts", "kept", "sampling", "training") for row in parts[name] if not row["arm"].endswith(", eager")]
    assert not [row["note"] for row in uncompiled if row["note"]]
    for row in parts["sampling"]:
        if row["arm"].startswith("ours") and not row["arm"].endswith(", eager"):
            assert len(row["cpu_s"]) == len(row["shares_percent"]) == row["rounds"] == 2, row["arm"]
            assert all(0 < share < 500 for share in row["shares_percent"]), row["arm"]
            assert row["ratios"]["/ base"]["low"] <= row["ratios"]["/ base"]["median"] <= row["ratios"]["/ base"]["high"], row["arm"]
    assert all(row["flops"] > 0 and row["note"] == "" for row in parts["training"])
    assert all(row["bytes"] > 0 for row in parts["kept"])
    assert all(row["kernels"] > row["sites"] for row in parts["counts"])
    assert {(row["copies to the device"], row["copies to the host"]) for row in parts["counts"]} == {(1, 0)}
    for name in parts:
        assert f"### {name}" in (tmp_path / "sites.md").read_text() and f"### {name}" in done.stdout


def test_wrong_names_and_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    sites = importlib.import_module("sites")
    for options, said in {"--parts kept,sampled": "there is no part 'sampled'; choose of", "--rounds 0": "'0' is no number"}.items():
        monkeypatch.setattr(sys, "argv", ["sites.py", "--out", str(tmp_path / "out"), *options.split()])
        with pytest.raises(SystemExit) as refused:
            sites.main()
        assert refused.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_part_that_breaks_down_leaves_the_others_and_its_own_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sites, row = importlib.import_module("sites"), part("measuring").Row({"arm": "a", "note": ""}, {"cpu_s": [1.0]})

    def breaks(quick: bool, rounds: int):
        yield row
        raise RuntimeError("broken down")

    monkeypatch.setattr(sites, "PARTS", {"breaks": breaks, "holds": lambda quick, rounds: iter([row])})
    monkeypatch.setattr(sys, "argv", ["sites.py", "--out", str(tmp_path), "--parts", "breaks,holds"])
    assert sites.main() == 1
    found = json.loads((tmp_path / "sites.json").read_text())["parts"]
    assert {name: (one["failure"], one["rows"]) for name, one in found.items()} == {
        "breaks": ("RuntimeError: broken down", [row.shown | row.raw]),
        "holds": (None, [row.shown | row.raw]),
    }
    assert "Stopped: RuntimeError: broken down" in (tmp_path / "sites.md").read_text()


def test_what_fails_is_left_out_with_its_reason():
    measuring = part("measuring")

    def fails() -> None:
        raise ValueError("broken | down\nin two lines")

    def cannot_be_made():
        raise RuntimeError("no compiler")

    once = iter([None, None])
    arms = {"works": lambda: lambda: sum(range(1000)), "fails": lambda: fails, "fails later": lambda: lambda: next(once)}
    timings = measuring.take_turns({**arms, "is not made": cannot_be_made}, 3)
    assert timings.reasons == {
        "fails": "ValueError: broken / down",
        "fails later": "StopIteration: ",
        "is not made": "RuntimeError: no compiler",
    }
    assert len(timings.seconds["works"]) == 3 and timings.seconds.keys() == {"works"}
    assert timings.ratio("works", "fails later") is None
    assert timings.ratio("works", "works").median == 1


def test_a_pairs_share_is_counted_and_the_base_is_as_before(base):
    measuring, models = part("measuring"), part("models")
    own, clock = models.twin(base), measuring.Clock()
    inputs = models.call_inputs(own, 2)
    after = Updates.after
    attachment = models.attach(own, models.make_pair(own, "LoRA 32"))
    with torch.no_grad():
        _, share = clock.share(lambda: own.transformer(**inputs))
        attachment.detach()
        _, without = clock.share(lambda: own.transformer(**inputs))
    assert Updates.after is after
    assert clock.missing == [] and without == 0 < share


def test_no_share_is_given_where_the_code_has_another_entry(base, monkeypatch: pytest.MonkeyPatch):
    measuring = part("measuring")
    monkeypatch.setattr(measuring, "ENTRY_POINTS", ("dualreal_core.method.attach._Renamed.after",))
    clock = measuring.Clock()
    assert clock.share(lambda: None)[1] is None
    assert clock.missing == ["dualreal_core.method.attach._Renamed.after"]


@pytest.mark.parametrize("is_conditioned", [False, True])
def test_the_references_arithmetic_computes_what_the_papers_form_does(base, is_conditioned: bool):
    """Which golden data tie to the published implementation."""
    models, reference = part("models"), part("reference")
    pair, hooked, own = models.make_pair(base, "paper's form"), models.twin(base), models.twin(base)
    imitated = reference.ReferencePair(hooked)
    with torch.no_grad():
        for role, index, site, adapter in iterate_sides(pair):
            renamed = {name.replace("condition_proj", "condition_linear"): weight for name, weight in adapter.state_dict().items()}
            imitated.sides[role][f"{index}-{site}"].load_state_dict(renamed)
        imitated.controller.load_state_dict(pair.controller.state_dict())
        imitated.condition = models.embedding() if is_conditioned else None
        inputs = models.call_inputs(base, 2)
        plain, found = base.transformer(**inputs)[0], hooked.transformer(**inputs)[0]
        with Attachment(own.transformer, pair) as attachment:
            attachment.condition = imitated.condition
            expected = own.transformer(**inputs)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found - plain).abs().max() > 1e-3


def test_merged_lora_computes_what_the_pair_does_at_these_weights(base):
    from dualreal_core.method.blend import FixedBlend

    models = part("models")
    pair, merged, own, inputs = models.make_pair(base, "LoRA 32"), models.twin(base), models.twin(base), models.call_inputs(base, 2)
    plain = base.transformer(**inputs)[0]
    models.merge(merged, pair, 0.5)
    with torch.no_grad(), Attachment(own.transformer, pair, FixedBlend(0.5, 0.5)):
        torch.testing.assert_close(merged.transformer(**inputs)[0], own.transformer(**inputs)[0], rtol=1e-5, atol=1e-5)
    assert base.transformer(**inputs)[0].equal(plain) and not merged.transformer(**inputs)[0].equal(plain)


def test_the_reference_throws_away_what_its_resting_side_learned(base):
    models, reference = part("models"), part("reference")
    pair = reference.ReferencePair(base)
    base.transformer(**models.call_inputs(base, 1))[0].sum().backward()
    assert all(weight.grad is not None for weight in pair.sides["identity"].parameters())
    pair.drop_gradients("motion")
    assert all(weight.grad is None for weight in pair.sides["identity"].parameters())
    assert any(weight.grad is not None for weight in pair.sides["motion"].parameters())


class Shift:
    """Stands for a pair that compiled code can hold: a tensor on the DiT, added to the output of its last layer by a hook."""

    def __init__(self, base, pair: object = None, is_conditioned: bool = False) -> None:
        self.layer, self.handle = base.transformer.proj_out, None
        self.amount = torch.zeros(())

    @property
    def stage(self) -> float:
        return float(self.amount)

    @stage.setter
    def stage(self, stage: float) -> None:
        self.amount.fill_(stage)

    def __enter__(self) -> Shift:
        self.handle = self.layer.register_forward_hook(lambda module, args, output: output + self.amount)
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


@pytest.mark.thorough
def test_graphs_are_counted_and_code_that_leaves_the_pair_out_shows(monkeypatch: pytest.MonkeyPatch):
    compiled, models = part("compiled"), part("models")
    size = models.SAMPLED[1].tiny
    monkeypatch.setattr(compiled, "attach", Shift)
    orders = reversed(compiled.ORDERS)
    rows = [compiled._try(models.make_base(size), size, "LoRA 32", "whole", order, "eager", 3) for order in orders]
    torch._dynamo.reset()
    counted = {"graphs": 1, "breaks": 0, "recompilations": 0, "pair adds": "1.0e+00", "from eager": "0.0e+00"}
    assert rows[0] == {**counted, "detached": rows[0]["detached"]}
    assert float(rows[1]["from eager"]) == 1, "torch does not look at hooks that come after compiling"
