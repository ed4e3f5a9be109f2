"""Files that were written before names were changed: pairs of formats 1 to 5, a run folder, a TOML file. `tests/written_before` has them.

Pairs act on a Wan of two blocks with random weights; the run is of 8 steps on the embedded base, stopped after the fourth.
`expected.json`, `whole.safetensors` and `whole.metrics.jsonl` are what the last code before the change made of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import TinyBase

from dualreal_core.bases.folder_layouts import wan_predict
from dualreal_core.cli import main
from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.storage import load_pair, read_header, save_pair
from dualreal_core.storage.format import EXPERTS_VERSION
from dualreal_core.storage.renames import ADVICE, RENAMED, former_pair_settings, pair_fields
from dualreal_core.training.recipes import DUALREAL, FREE_CONTROLLER, PAPER, RECIPES, as_begun, preserving_as_begun, read_recipe
from dualreal_core.training.run import RunDirectory

FILES = Path(__file__).parents[1] / "written_before"
PAIRS = sorted((FILES / "pairs").glob("*.safetensors"))
EXPECTED = json.loads((FILES / "pairs" / "expected.json").read_text())
RUN = FILES / "run"
STAGE = 0.3


def test_there_are_files_of_every_former_format():
    assert {path.name for path in PAIRS} == {
        f"v{version}-{kind}.safetensors" for version in (1, 2, 3, 4, 5) for kind in ("controller", "no-controller", "bottleneck")
    }


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_a_pair_acts_as_it_did(path):
    pair, header = load_pair(path)
    wanted, transformer = EXPECTED[path.stem], TinyBase("wan", 2).transformer
    generator = torch.Generator().manual_seed(2)
    latents, timestep = torch.randn(2, 4, 3, 4, 6, generator=generator), torch.tensor([900, 50])
    text = torch.randn(2, 7, 8, generator=generator)
    with Attachment(transformer, pair) as attachment, torch.no_grad():
        attachment.stage, attachment.condition = STAGE, torch.ones(1, 4)
        output = wan_predict(transformer, latents, timestep, text)
        weights = attachment.weights[0]
    torch.testing.assert_close(weights, torch.tensor(wanted["weights"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.flatten()[::37][:12], torch.tensor(wanted["first"]), rtol=1e-4, atol=1e-5)
    assert header["training"]["recipe"] in RECIPES and header["training"]["frozen_adapter_dropout"] == 1.0


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_a_pair_written_again_has_todays_names(path, tmp_path):
    pair, header = load_pair(path)
    save_pair(tmp_path / "pair.safetensors", pair, header)
    again, header = load_pair(tmp_path / "pair.safetensors")
    assert header["format_version"] == EXPERTS_VERSION - 1 and again.config == pair.config
    text = json.dumps(header)
    former = [name for names in RENAMED.values() for name in names if name not in ("base", "alone", "trained", "leak", "views")]
    assert not [name for name in (*former, "floor") if f'"{name}"' in text]
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in pair.state_dict().items())


@pytest.mark.parametrize(
    "fields", [{"floor": 0.5}, {"floor": 0.2, "has_controller": False}, {"learned_range": 0.0}, {"has_controller": False}]
)
def test_fields_of_a_pair_without_network(fields):
    assert pair_fields({**fields, "controller_dim": 4, "dim": 8}) == {"has_controller": False, "dim": 8}


@pytest.mark.parametrize("fields", [{"floor": 0.0}, {"learned_range": 0.5}, {"has_controller": True}])
def test_fields_of_a_pair_with_a_free_network(fields):
    assert pair_fields({**fields, "controller_dim": 4}) == {"has_controller": True, "controller_dim": 4}


def test_a_recipe_by_its_former_names_is_what_the_nodes_named_folders_by():
    common = {name: value for name, value in DUALREAL.pair.items() if name != "has_controller"}
    was_default = {**common, "learned_range": 0.01, "controller_dim": 128}
    assert was_default in former_pair_settings(DUALREAL.pair)
    assert former_pair_settings({**DUALREAL.pair, **FREE_CONTROLLER}) == [{**was_default, "learned_range": 0.5}]


def test_inspect_reads_them(capsys):
    for path in PAIRS:
        assert main(["inspect", str(path)]) == 0
        assert ("moves shares by 0." in capsys.readouterr().out) == ("no-controller" not in path.name)


def todays_settings(path: Path) -> Path:
    """The settings of the run by today's names."""
    path.write_text(
        "[train]\nidentity_batch = 1\nmotion_batch = 1\nfrozen_adapter_dropout = 0.5\npreservation_ratio = 0.5\ntimestep_bias = 1.5\n"
        "validation_split = 1\nsave_best = true\nevaluate_every = 2\nwarmup_steps = 2\n"
        '[pair]\nrank = 1\nshare_schedule = [0.4, 0.6, 0.9]\ntarget_layers = ["ffn.net.2"]\n'
        "[crops]\nnum_crops = 2\ncrop_margin = 0.25\n"
    )
    return path


def arguments(folder: Path, config: Path) -> list[str]:
    data = ["--identity", str(folder / "photos"), "--motion", str(folder / "clips"), "--config", str(config)]
    return [*data, "--steps", "8", "--seed", "3", "--out", str(folder / "half.safetensors")]


def resume(folder: Path, config: Path) -> int:
    return main(["train", *arguments(folder, config), "--resume"])


def test_a_run_is_continued_to_the_end_that_it_would_have_had(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    assert resume(folder, todays_settings(tmp_path / "today.toml")) == 0
    resumed, whole = (load_pair(path)[0].state_dict() for path in (folder / "half.safetensors", RUN / "whole.safetensors"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    directory = RunDirectory(folder / "half.safetensors.run")
    before = [json.loads(line) for line in (RUN / "whole.metrics.jsonl").read_text().splitlines()]
    losses = [(one["step"], one["role"], one["loss"], one["cross_loss"]) for one in before if "loss" in one]
    found = [(one["step"], one["role"], one["loss"], one["preservation_loss"]) for one in directory.metrics()]
    assert [one[:2] for one in found] == [one[:2] for one in losses] and len(found) == 8
    for new, old in zip(found, losses, strict=True):
        assert (new[3] is None) == (old[3] is None)
        assert [value or 0 for value in new[2:]] == pytest.approx([value or 0 for value in old[2:]], rel=1e-3, abs=1e-5)
    scores = [one["evaluation"] for one in before if "evaluation" in one]
    for new, old in zip(directory.evaluations(), scores, strict=True):
        for role, side in new.sides.items():
            assert side.loss_ratio == pytest.approx(old[role]["alone"] / old[role]["base"], rel=1e-4)
            assert side.leakage == pytest.approx(old[role]["leak"], rel=1e-2, abs=1e-4)


def test_a_run_goes_on_with_the_network_that_it_was_begun_with(tmp_path, capsys):
    """No settings ask for a bounded one any more. One without it, or with a free one, is another run."""
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    settings, config = folder / "half.safetensors.run" / "run.json", todays_settings(tmp_path / "today.toml")
    asked = json.loads(settings.read_text())
    assert asked["pair"].pop("has_controller") and asked["pair"].pop("floor") == 0.45
    settings.write_text(json.dumps({**asked, "pair": {**asked["pair"], "learned_range": 0.05}}))  # as it was called in between
    assert main(["train", "--resume", *arguments(folder, config), "--stop-after", "1"]) == 0
    assert "Goes on with the network that this run was begun with, which moves shares by 0.05 at most" in capsys.readouterr().out
    for learned_range, named in ((0.0, "has_controller"), (0.5, "controller_dim, the width of the network of a pair that has_controller,")):
        settings.write_text(json.dumps({**asked, "pair": {**asked["pair"], "learned_range": learned_range}}))
        config.write_text(config.read_text().replace("[pair]\n", f"[pair]\nhas_controller = {'false' if learned_range else 'true'}\n"))
        assert resume(folder, config) == 2
        assert f"was started with another pair: {named} (" in capsys.readouterr().err
        todays_settings(config)


def test_a_run_without_steps_takes_todays_settings(tmp_path):
    settings = tmp_path / "run.json"
    settings.write_text(json.dumps({"pair": {"learned_range": 0.01, "controller_dim": 128}}))
    assert RunDirectory(tmp_path).begun_pair() == {}
    (tmp_path / "checkpoint.pt").touch()
    begun = RunDirectory(tmp_path).begun_pair()
    pair = as_begun(DUALREAL, begun)[0].pair
    assert pair == {**DUALREAL.pair, "has_controller": True, "learned_range": 0.01, "controller_dim": 128}
    assert as_begun(PAPER, begun) == (PAPER, None) and as_begun(DUALREAL, pair_fields({"learned_range": 0.0})) == (DUALREAL, None)
    settings.write_text("{")
    assert RunDirectory(tmp_path).begun_pair() == {}


def test_a_run_of_other_settings_is_not_taken_for_the_same(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    config = todays_settings(tmp_path / "today.toml")
    config.write_text(config.read_text().replace("timestep_bias = 1.5", "timestep_bias = 2.5"))
    assert resume(folder, config) == 2


def test_a_run_that_used_what_is_gone_is_told_apart(tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    settings = folder / "half.safetensors.run" / "run.json"
    asked = json.loads(settings.read_text())
    asked["training"]["motion_cross_ratio"] = 0.5
    settings.write_text(json.dumps(asked))
    assert resume(folder, todays_settings(tmp_path / "today.toml")) == 2
    assert "was started with another training: motion_cross_ratio" in capsys.readouterr().err


OLD_LINES = [
    *((table, old, new) for table in ("train", "pair", "crops") for old, new in RENAMED[table].items()),
    *((table, old, None) for table, keys in ADVICE.items() for old in keys),
]


@pytest.mark.parametrize(("table", "old", "new"), OLD_LINES)
def test_a_former_key_is_told_the_new_one(tmp_path, table, old, new):
    (tmp_path / "old.toml").write_text(f"[{table}]\n{old} = 0.5\n")
    with pytest.raises(InputError, match=rf"old\.toml sets '{old}' in \[{table}\]: ") as caught:
        read_recipe(tmp_path / "old.toml", DUALREAL)
    assert (new or "has_controller" in ADVICE[table][old] or "it is gone") and (new is None or f"it is now '{new}'" in str(caught.value))
    if new is None:
        assert ADVICE[table][old] in str(caught.value)


def test_the_former_toml_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"old\.toml sets 'resting_drop' in \[train\]: it is now 'frozen_adapter_dropout'"):
        read_recipe(RUN / "old.toml", DUALREAL)
    (tmp_path / "views.toml").write_text("[views]\nnum_views = 2\n")
    with pytest.raises(InputError, match=r"has 'views' at its top level: it is now 'crops'"):
        read_recipe(tmp_path / "views.toml", DUALREAL)


def test_headers_name_todays_recipes():
    assert {read_header(path)["training"]["recipe"] for path in PAIRS} == {"paper"}


def test_a_run_goes_on_with_the_clips_that_it_was_begun_with(tmp_path, capsys):
    """The identity looked at whole batches of them; a fresh run of the same settings looks at one."""
    folder, config = tmp_path / "run", todays_settings(tmp_path / "today.toml")
    config.write_text(config.read_text().replace("motion_batch = 1\n", "motion_batch = 2\n"))
    shutil.copytree(RUN, folder)
    settings = folder / "half.safetensors.run" / "run.json"
    asked = json.loads(settings.read_text())
    settings.write_text(json.dumps({**asked, "training": {**asked["training"], "motion_batch": 2}}))
    begun = RunDirectory(settings.parent).begun_fields("training")
    recipe = read_recipe(config, DUALREAL)
    assert recipe.train.preservation_batch == 1 and preserving_as_begun(recipe, {}) == recipe
    assert preserving_as_begun(recipe, begun).train.preservation_batch is None
    assert preserving_as_begun(recipe, {**begun, "preservation_batch": 1}) == recipe
    assert main(["train", "--resume", *arguments(folder, config), "--stop-after", "1"]) == 0
