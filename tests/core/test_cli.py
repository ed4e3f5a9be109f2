"""The commands from end to end, on the embedded base and on random-weight diffusers folders."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import fill

from dualreal_core.bases import load_base
from dualreal_core.bench.experiment import TOY_RECIPE, load_trial
from dualreal_core.cli import main
from dualreal_core.commands import COMMANDS
from dualreal_core.commands import train as train_command
from dualreal_core.method.pair import new_pair
from dualreal_core.method.prompt_gate import MARGIN
from dualreal_core.storage import load_pair, save_pair
from dualreal_core.toyworld.config import TEXT_DIM
from dualreal_core.toyworld.trial import Trial
from dualreal_core.video import read_video

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("DUALREAL_DATA", ROOT.parent / "shared" / "data"))


def load_script(path: Path):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, ROOT / "scripts" / "make_tiny_models.py", folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def trial(tmp_path) -> Path:
    made = Trial("tam", "box")
    made.write_photos(tmp_path / "photos")
    made.write_clips(tmp_path / "clips")
    return tmp_path


def train(folder: Path, *options: object) -> int:
    data = ["--identity", str(folder / "photos"), "--motion", str(folder / "clips"), "--out", str(folder / "pair.safetensors")]
    return main(["train", *data, "--no-prompt-gate", *map(str, options)])


def test_demo_writes_everything(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--steps", "4", "--identity", "zol", "--motion", "hook", "--seed", "3"]) == 0
    board = json.loads((out / "scores.json").read_text())
    assert {"retention_identity", "retention_motion"} <= set(board)
    assert board["known_motions_kept"] == pytest.approx(board["scores"]["fused"]["known_motion"] / board["scores"]["base"]["known_motion"])
    assert (board["identity"], board["motion"], board["seed"], board["steps"]) == ("zol", "hook", 3, 4)
    assert set(board["scores"]) == {"base", "identity", "motion", "sum", "fused"}
    for name in ("contact_sheet.png", "loss.png", "blend.png", "fused.gif", "pair.safetensors"):
        assert (out / name).stat().st_size > 0, name
    assert len(read_video(out / "fused.mp4").frames) == 9
    printed = capsys.readouterr().out
    assert "DualReal, fused" in printed and "known motions kept" in printed


@pytest.mark.thorough
def test_demo_repeats_itself(tmp_path):
    options = ["--steps", "4", "--identity", "zol", "--motion", "hook"]
    assert main(["demo", "--out", str(tmp_path / "a"), *options]) == 0
    first = (tmp_path / "a" / "scores.json").read_bytes()
    assert main(["demo", "--out", str(tmp_path / "a"), *options]) == 0
    assert (tmp_path / "a" / "scores.json").read_bytes() == first


ANSWERED_BY_THE_PARSER = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    **{f"help of {name}": ([name, "--help"], 0) for name in COMMANDS},
    "help of a benchmark": (["bench", "fusion", "--help"], 0),
    "no command": ([], 2),
    "no such command": (["fuse"], 2),
    **{f"{name} without arguments": ([name], 2) for name in COMMANDS if name != "demo"},
    "no such option": (["demo", "--rank", "3"], 2),
    "no number": (["demo", "--steps", "many"], 2),
    "no size": (["generate", "--prompt", "a", "--out", "a.mp4", "--size", "0x0"], 2),
    "no seed": (["train", "--seed", "1.5"], 2),
    "no such recipe": (["train", "--identity", "a", "--motion", "b", "--out", "c", "--recipe", "mine"], 2),
    "no such precision": (["generate", "--prompt", "a", "--out", "a.mp4", "--dtype", "fp8"], 2),
    "seeds in two ways": (["bench", "fusion", "--out", "a", "--seed", "1", "--seeds", "2"], 2),
}


@pytest.mark.parametrize("case", ANSWERED_BY_THE_PARSER)
def test_what_the_parser_answers_waits_for_no_package(case):
    """Nothing but Python's own modules and the project's is imported: torch and its kin take seconds."""
    arguments, code = ANSWERED_BY_THE_PARSER[case]
    program = f"""
import sys
before = {{*sys.modules}}
from dualreal_core.cli import main
try:
    code = main({arguments!r})
except SystemExit as left:
    code = left.code
new = {{name.partition(".")[0] for name in {{*sys.modules}} - before}}
print(sorted(new - sys.stdlib_module_names - {{"dualreal_core"}}), code)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"[] {code}", done.stdout + done.stderr


def test_a_gif_that_cannot_play_so_fast_says_so(tmp_path, capsys):
    generate = ["generate", "--prompt", "a figure walks", "--steps", "1", "--overwrite"]
    for name, fps, is_told in (("a.gif", "60", True), ("a.gif", "20", False), ("a.mp4", "60", False)):
        assert main([*generate, "--out", str(tmp_path / name), "--fps", fps]) == 0
        said = capsys.readouterr().out
        assert ("at more than 50 frames per second" in said and "instead of 60" in said) == is_told, (name, fps)


def test_a_pair_follows_the_prompt_unless_told_otherwise(tmp_path):
    transformer = load_base("toyworld").transformer
    pair = fill(new_pair(transformer, identity_kind="lora", motion_kind="lora", rank=2, text_dim=TEXT_DIM, has_controller=False))
    torch.nn.init.zeros_(pair.gate.named.weight)
    torch.nn.init.constant_(pair.gate.named.bias, -2 * MARGIN)
    save_pair(tmp_path / "pair.safetensors", pair)
    videos, acting = {}, ["--pair", str(tmp_path / "pair.safetensors")]
    for name, options in {"base": [], "unnamed": acting, "ignored": [*acting, "--ignore-gate"]}.items():
        out = tmp_path / f"{name}.mp4"
        assert main(["generate", "--prompt", "a figure walks", "--steps", "1", *options, "--out", str(out)]) == 0
        videos[name] = read_video(out).frames
    assert torch.equal(videos["unnamed"], videos["base"]) and not torch.equal(videos["ignored"], videos["base"])


def test_another_trial_replaces_the_photos_and_clips_of_the_last_one(tmp_path):
    base, fingerprints = load_base("toyworld"), []
    for identity in ("zol", "nim", "zol"):
        data = load_trial(base, Trial(identity, "hook"), TOY_RECIPE, tmp_path)
        fingerprints.append(data["identity"].fingerprints)
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]


def test_train_generate_inspect(trial, capsys):
    assert train(trial, "--steps", 6, "--sample-every", 3, "--sample-prompt", "a figure * walks a box on sand", "--consent", "mine") == 0
    run = trial / "pair.safetensors.run"
    assert [read_video(run / f"sample-00000{step}.mp4").frames.shape[0] for step in (3, 6)] == [9, 9]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert ["evaluation" in record for record in records] == [False] * 6 + [True]
    assert [json.loads(line)["event"] for line in (run / "log.jsonl").read_text().splitlines()] == ["started", "finished"]
    pair = ["--pair", str(trial / "pair.safetensors"), "--prompt", "a figure * walks a box on sand"]
    photo = ["--reference-image", str(trial / "photos" / "sand.png")]
    videos = {}
    for name, options in {
        "own": photo,
        "fixed": [*photo, "--blend", "fixed"],
        "weak": [*photo, "--identity-strength", "0"],
        "plain": [],
        "other": [*photo, "--seed", "5", "--steps", "7", "--guidance-scale", "1", "--num-frames", "5", "--size", "40x32"],
    }.items():
        assert main(["generate", *pair, *options, "--out", str(trial / f"{name}.mp4")]) == 0
        videos[name] = read_video(trial / f"{name}.mp4").frames
    assert videos["own"].shape == (9, 3, 256, 256)
    assert videos["other"].shape[0] == 5
    assert not torch.equal(videos["own"], videos["weak"])
    capsys.readouterr()
    assert main(["inspect", str(trial / "pair.safetensors"), "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)
    assert "mine" in text
    assert main(["inspect", str(trial / "pair.safetensors")]) == 0


def test_a_float16_base_is_refused_before_anything_is_encoded(trial, models, capsys):
    assert train(trial, "--base", models / "wan-tiny", "--dtype", "fp16", "--size", "64x48", "--num-frames", 9) == 2
    assert "use --dtype bf16" in capsys.readouterr().err and not (trial / "pair.safetensors.run").exists()


def test_another_base_of_that_size_is_told(trial, models, capsys, tmp_path):
    """The same folder, its copy under another name, and one with other weights."""
    size = ["--size", "64x48", "--num-frames", 9]
    assert train(trial, "--base", models / "wan-tiny", *size, "--prompt-identity", "a *", "--steps", 1) == 0
    for name in ("copied", "retrained"):
        shutil.copytree(models / "wan-tiny", tmp_path / name)
    (weights,) = (tmp_path / "retrained" / "transformer").glob("*.safetensors")
    save_file({name: weight.flip(0).contiguous() for name, weight in load_file(weights).items()}, weights, {"format": "pt"})
    said = {}
    for folder, dtype in ((models / "wan-tiny", "fp32"), (tmp_path / "copied", "bf16"), (tmp_path / "retrained", "fp32")):
        capsys.readouterr()
        call = ["generate", "--base", folder, "--dtype", dtype, "--pair", trial / "pair.safetensors", "--prompt", "a * walks", *size]
        assert main([str(part) for part in [*call, "--steps", 1, "--guidance-scale", 1, "--out", tmp_path / f"{folder.name}.mp4"]]) == 0
        said[folder.name] = "was trained on another one (wan-tiny): other weights" in capsys.readouterr().out
    assert said == {"wan-tiny": False, "copied": False, "retrained": True}


def test_few_steps_have_little_warm_up(trial):
    assert train(trial, "--steps", 7, "--stop-after", 1) == 0
    assert json.loads((trial / "pair.safetensors.run" / "run.json").read_text())["training"]["warmup_steps"] == 1


def test_samples_have_the_size_trained_on(trial):
    assert train(trial, "--steps", 1, "--sample-every", 1, "--sample-prompt", "a figure *", "--size", "40x32", "--num-frames", 5) == 0
    sampled = read_video(trial / "pair.safetensors.run" / "sample-000001.mp4").frames
    assert (sampled.shape[0], sampled.shape[3] / sampled.shape[2]) == (5, 40 / 32)


def test_stop_and_resume(trial):
    assert train(trial, "--steps", 6, "--stop-after", 2) == 0
    assert not (trial / "pair.safetensors").exists()
    assert train(trial, "--steps", 6, "--resume") == 0
    stopped, _ = load_pair(trial / "pair.safetensors")
    (trial / "pair.safetensors").rename(trial / "stopped.safetensors")
    assert train(trial, "--steps", 6, "--run-dir", trial / "second") == 0
    whole, _ = load_pair(trial / "pair.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(stopped.state_dict().values(), whole.state_dict().values(), strict=True))


@pytest.mark.parametrize("stage", ["scan", "prepare_data"])
def test_a_run_killed_before_its_training_is_resumed(trial, capsys, monkeypatch, stage):
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    assert train(trial, "--steps", 2, "--resume") == 2
    assert "holds no run to resume" in capsys.readouterr().err
    with monkeypatch.context() as patches:
        patches.setattr(train_command.TrainingData if stage == "scan" else train_command, stage, killed)
        assert train(trial, "--steps", 2) == 130
    assert train(trial, "--steps", 2, "--resume") == 0
    assert (trial / "pair.safetensors").exists()


def test_files_that_cannot_be_used_leave_no_folder_of_a_run(trial):
    assert train(trial, "--identity", trial / "clips") == 2
    assert not (trial / "pair.safetensors.run").exists()


@pytest.mark.parametrize("change", [("--size", "16x16"), ("--num-frames", 5), ("--fps", 5)])
def test_other_samples_of_the_same_files_are_refused(trial, capsys, change):
    assert train(trial, "--steps", 6, "--stop-after", 2) == 0
    capsys.readouterr()
    assert train(trial, "--steps", 6, "--resume", *change) != 0
    assert "was started with another size, length, rate or caption of the data" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bottleneck", "bottleneck-skip", "lora"])
def test_other_adapters_and_recipe(trial, kind):
    pair_table = f'[pair]\nidentity_kind = "{kind}"\nmotion_kind = "lora"\n'
    train_table = '[train]\nprecision = "bf16"\naccumulation = 2\npreservation_ratio = 0.5\n'
    (trial / "run.toml").write_text(pair_table + train_table)
    assert train(trial, "--steps", 3, "--recipe", "paper", "--config", trial / "run.toml") == 0
    pair, _ = load_pair(trial / "pair.safetensors")
    assert (pair.config.identity_kind, pair.config.motion_kind) == (kind, "lora")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["cogvideox-tiny", "wan-tiny"])
def test_diffusers_folder(trial, models, model, dtype):
    size = ["--size", "64x48", "--num-frames", "9", "--dtype", dtype]
    assert train(trial, "--base", models / model, "--steps", 3, "--fps", 10, *size) == 0
    out = trial / "video.mp4"
    pair = ["--pair", str(trial / "pair.safetensors"), "--reference-image", str(trial / "photos" / "sand.png")]
    options = [*pair, "--prompt", "a figure * walks", "--steps", "3", *size, "--out", str(out)]
    assert main(["generate", "--base", str(models / model), *options]) == 0
    assert read_video(out).frames.shape[0] == 9


@pytest.mark.skipif(not REAL.exists(), reason=f"SKIPPED LOUDLY: no real photos and clips in {REAL}: they are untested")
def test_real_photos_and_clips(tmp_path):
    folders = ["--identity", str(REAL / "identity" / "dog"), "--motion", str(REAL / "motion" / "playing_guitar")]
    prompts = ["--prompt-identity", "dog *", "--prompt-motion", "a person is playing guitar"]
    pair, out = tmp_path / "pair.safetensors", tmp_path / "fused.mp4"
    assert main(["train", *folders, *prompts, "--out", str(pair), "--steps", "3"]) == 0
    reference = ["--reference-image", str(REAL / "identity" / "dog" / "00.png")]
    assert main(["generate", "--pair", str(pair), "--prompt", "dog * is playing guitar", *reference, "--out", str(out)]) == 0
    assert read_video(out).frames.shape == (9, 3, 256, 256)


@pytest.mark.thorough
def test_killed_runs_resume_exactly():
    result = load_script(ROOT / "benchmarks" / "kill_and_resume.py").compare(kills=2, steps=40)
    assert result["is_identical"], result


def test_documented_python_runs(trial):
    section = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## In Python\n")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) < 15
    for folder in ("photos", "clips"):
        for captions in (trial / folder).glob("*.txt"):
            captions.unlink()
    (trial / "example.py").write_text(code.replace("steps=200", "steps=4"))
    subprocess.run([sys.executable, "example.py"], cwd=trial, check=True, capture_output=True)
    assert len(read_video(trial / "fused.mp4").frames) == 9


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    """As `dualreal inspect pair.safetensors | head -1`."""
    script = """
import sys
from unittest import mock
from dualreal_core import cli
with mock.patch.object(cli, "_run", lambda arguments: print("x" * 100_000)):
    sys.exit(cli.main([]))
"""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_pipeline_of_the_readme_runs(tmp_path, monkeypatch):
    """With a stand-in for the prompt alone, as the tiny pipeline has no text encoder."""
    from tiny_pipelines import both_prompts, small, wan_pipeline

    from dualreal_core.method.pair import new_pair
    from dualreal_core.storage import save_pair

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 8
    pipe = wan_pipeline()
    save_pair(tmp_path / "pair.safetensors", new_pair(pipe.transformer, identity_kind="lora", motion_kind="lora"))
    calls = []

    class Prompted:
        transformer, scheduler, config = pipe.transformer, pipe.scheduler, pipe.config

        def __getattr__(self, name):
            return getattr(pipe, name)

        def __call__(self, prompt):
            calls.append(prompt)
            return pipe(**both_prompts(), **small())

    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(code)
    runpy.run_path("example.py", {"pipe": Prompted()})
    assert calls == ["dog * is playing guitar"]
