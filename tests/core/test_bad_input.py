"""What a user can get wrong at the command line: exit code 2, one sentence that names the file and the cure, nothing lost."""

from __future__ import annotations

import io
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from PIL import Image

from dualreal_core.api import require_trigger
from dualreal_core.bases import load_base
from dualreal_core.cli import main
from dualreal_core.commands import COMMANDS
from dualreal_core.errors import InputError
from dualreal_core.method.pair import new_pair, with_gate
from dualreal_core.method.prompt_gate import PromptGate
from dualreal_core.storage import save_pair
from dualreal_core.toyworld.config import TEXT_DIM
from dualreal_core.toyworld.trial import Trial
from dualreal_core.video import write_gif, write_mp4

FEW_STEPS = ["--steps", "4"]


@pytest.fixture
def trial(tmp_path) -> Path:
    made = Trial("tam", "box")
    made.write_photos(tmp_path / "identity")
    made.write_clips(tmp_path / "motion")
    return tmp_path


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


def train(folder: Path, *options: object) -> int:
    given = [str(option) for option in options]
    defaults = {"--identity": folder / "identity", "--motion": folder / "motion", "--out": folder / "pair.safetensors"}
    for name, value in defaults.items():
        if name not in given:
            given += [name, str(value)]
    return main(["train", *given, *([] if "--steps" in given else FEW_STEPS)])


def complaint(capsys, *words: str) -> str:
    """The message, which must be one line, free of tracebacks, with these words in it."""
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Traceback" not in message
    for word in words:
        assert word in message, message
    return message


def test_good_input_trains(trial):
    assert train(trial) == 0
    assert (trial / "pair.safetensors").exists()


def test_missing_folder(trial, capsys):
    assert train(trial, "--identity", trial / "nowhere") == 2
    complaint(capsys, "nowhere", "check the path")


def test_empty_folder(trial, empty, capsys):
    assert train(trial, "--identity", empty) == 2
    complaint(capsys, str(empty), "add")


def test_a_folder_of_folders_names_one(trial, empty, capsys):
    (empty / "images").mkdir()
    (trial / "identity").rename(empty / "dog")
    assert train(trial, "--identity", empty) == 2
    complaint(capsys, "holds no images itself", "its folder 'dog' is not looked into")


def test_text_named_png(trial, empty, capsys):
    (empty / "notes.png").write_text("hello")
    assert train(trial, "--identity", empty) == 2
    complaint(capsys, "notes.png", "add")


def test_tiny_image(trial, empty, capsys):
    Image.new("RGB", (5, 5)).save(empty / "dot.png")
    assert train(trial, "--identity", empty, "--prompt-identity", "a figure *") == 2
    complaint(capsys, "dot.png", "5x5")


def test_truncated_mp4(trial, empty, capsys):
    write_mp4(empty / "cut.mp4", torch.rand(20, 3, 64, 64) * 2 - 1, 10)
    whole = (empty / "cut.mp4").read_bytes()
    (empty / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    assert train(trial, "--motion", empty, "--prompt-motion", "it walks") == 2
    complaint(capsys, "cut.mp4")


def test_clip_without_frames(trial, empty, capsys):
    (empty / "none.mp4").write_bytes(b"")
    assert train(trial, "--motion", empty, "--prompt-motion", "it walks") == 2
    complaint(capsys, "none.mp4")


def test_clip_of_one_frame(trial, empty, capsys):
    write_gif(empty / "one.gif", torch.zeros(1, 3, 64, 64), 10)
    assert train(trial, "--motion", empty, "--prompt-motion", "it walks") == 2
    complaint(capsys, "one.gif", "too short")


def test_missing_captions(trial, empty, capsys):
    write_gif(empty / "clip.gif", torch.rand(9, 3, 64, 64) * 2 - 1, 10)
    assert train(trial, "--motion", empty) == 2
    complaint(capsys, "clip.gif")


def test_caption_without_trigger(trial, empty, capsys):
    Image.effect_noise((64, 64), 80).convert("RGB").save(empty / "photo.png")
    assert train(trial, "--identity", empty, "--prompt-identity", "a figure") == 2
    complaint(capsys, "trigger", "*")


def test_prompt_without_trigger(trial, capsys):
    assert train(trial, "--no-prompt-gate") == 0
    pair, out = trial / "pair.safetensors", trial / "video.mp4"
    assert main(["generate", "--pair", str(pair), "--prompt", "a figure walks", "--out", str(out)]) == 2
    complaint(capsys, "trigger", "*")
    assert not out.exists()


def test_a_prompt_for_the_motion_alone_needs_no_trigger(trial, capsys):
    base, paths = load_base("toyworld"), {}
    for name, kind in (("both", "lora"), ("motion", "none"), ("gated", "lora")):
        paths[name] = trial / f"{name}.safetensors"
        pair = new_pair(base.transformer, identity_kind=kind, motion_kind="lora")
        pair = with_gate(pair, PromptGate(TEXT_DIM)) if name == "gated" else pair
        save_pair(paths[name], pair, {"prompts": {"trigger": "sks"}})
    sampling = ["--prompt", "a cat walks", "--steps", "1", "--num-frames", "2", "--overwrite", "--out", str(trial / "video.mp4")]
    for name, options in (("both", ["--identity-strength", "0"]), ("motion", []), ("gated", [])):
        assert main(["generate", "--pair", str(paths[name]), *sampling, *options]) == 0
        assert "note: the prompt lacks the trigger 'sks'" in capsys.readouterr().out
    refused = ([], ["--identity-strength", "0.1"], ["--identity-strength", "-1"], ["--motion-strength", "0"])
    for name, options in (("gated", ["--ignore-gate"]), *(("both", options) for options in refused)):
        assert main(["generate", "--pair", str(paths[name]), *sampling, *options]) == 2
        complaint(capsys, "trigger", "sks")
    assert main(["generate", "--pair", str(paths["both"]), *sampling[2:], "--prompt", "sks walks", "--identity-strength", "0"]) == 0
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("tables", ["[train]\nmotion_ratio = 1.0\n", '[pair]\nidentity_kind = "none"\n[train]\nmotion_ratio = 1.0\n'])
def test_captions_need_no_trigger_where_no_identity_is_trained(trial, tables):
    for text in (trial / "identity").glob("*.txt"):
        text.write_text("a figure")
    (trial / "run.toml").write_text(tables)
    assert train(trial, "--config", trial / "run.toml", "--steps", "1", "--evaluate-every", "0") == 0


def test_a_trigger_of_several_words_is_found_and_missed():
    require_trigger("a photo of a sks dog in the snow", "sks dog", "The prompt")
    require_trigger("sks  dog", " sks dog", "The prompt")
    require_trigger("anything", "", "The prompt")
    for prompt in ("a dog sks", "a sks red dog", "a sks dogs", "sks", ""):
        with pytest.raises(InputError, match="lacks the trigger 'sks dog'"):
            require_trigger(prompt, "sks dog", "The prompt")


def test_pair_of_another_architecture(tmp_path, capsys):
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, text_embed_dim=16, time_embed_dim=16, sample_width=4, sample_height=4
    )
    save_pair(tmp_path / "pair.safetensors", new_pair(transformer))
    assert main(["generate", "--pair", str(tmp_path / "pair.safetensors"), "--prompt", "a", "--out", str(tmp_path / "a.mp4")]) == 2
    complaint(capsys, "family", "cogvideox", "wan")


def test_pair_of_another_width(tmp_path, capsys):
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=16, num_layers=5, text_dim=16, ffn_dim=32, freq_dim=32)
    save_pair(tmp_path / "pair.safetensors", new_pair(transformer))
    assert main(["generate", "--pair", str(tmp_path / "pair.safetensors"), "--prompt", "a", "--out", str(tmp_path / "a.mp4")]) == 2
    complaint(capsys, "dim 32", "dim 256")


@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_a_folder_is_no_pair(tmp_path, capsys, command):
    options = ["--pair", str(tmp_path), "--prompt", "a", "--out", str(tmp_path / "a.mp4")] if command == "generate" else [str(tmp_path)]
    assert main([command, *options]) == 2
    complaint(capsys, tmp_path.name, "is a folder")


def test_a_missing_reference_image_is_noticed_before_anything_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dualreal_core.commands.generate.open_base", lambda arguments: pytest.fail("the base was loaded"))
    command = ["generate", "--prompt", "a", "--out", tmp_path / "a.mp4", "--reference-image", tmp_path / "me.png"]
    assert main([str(part) for part in command]) == 2
    complaint(capsys, "me.png", "does not exist")


@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_truncated_pair(tmp_path, capsys, command):
    path = tmp_path / "pair.safetensors"
    save_pair(path, new_pair(load_base("toyworld").transformer))
    path.write_bytes(path.read_bytes()[:5000])
    options = ["--pair", str(path), "--prompt", "a", "--out", str(tmp_path / "a.mp4")] if command == "generate" else [str(path)]
    assert main([command, *options]) == 2
    complaint(capsys, "pair.safetensors", "truncated")


@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_pickle_with_code_does_not_run(tmp_path, capsys, command):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "pair.pth"
    path.write_bytes(pickle.dumps(Payload()))
    torch.save({"a": Payload()}, tmp_path / "zip.pth")
    for file in (path, tmp_path / "zip.pth"):
        options = ["--pair", str(file), "--prompt", "a", "--out", str(tmp_path / "a.mp4")] if command == "generate" else [str(file)]
        assert main([command, *options]) == 2
        complaint(capsys, file.name, "nothing in it was executed")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("limit", [2_000_000, 200_000])
def test_full_disk(trial, limit):
    """A limit on file sizes fails like a full disk; the larger one lets caches through and stops the checkpoint."""
    folders = ["--identity", trial / "identity", "--motion", trial / "motion", "--out", trial / "pair.safetensors"]
    run = subprocess.run(
        [sys.executable, "-m", "dualreal_core.cli", "train", *folders, *FEW_STEPS],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert run.returncode == 2, run.stderr
    assert "full" in run.stderr.splitlines()[-1]
    assert not (trial / "pair.safetensors").exists()


def test_output_folder_is_a_file(trial, capsys):
    (trial / "taken").write_text("mine")
    assert train(trial, "--out", trial / "taken" / "pair.safetensors") == 2
    complaint(capsys, "taken")
    assert (trial / "taken").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the same is shown by a file in the way")
def test_read_only_folder(trial, empty, capsys):
    empty.chmod(0o500)
    assert train(trial, "--out", empty / "pair.safetensors") == 2
    complaint(capsys, "read-only")


def test_nothing_is_overwritten(trial, capsys):
    (trial / "pair.safetensors").write_text("mine")
    assert train(trial) == 2
    complaint(capsys, "exists")
    assert (trial / "pair.safetensors").read_text() == "mine"
    (trial / "video.mp4").write_text("mine")
    assert main(["generate", "--prompt", "a", "--out", str(trial / "video.mp4")]) == 2
    complaint(capsys, "exists")
    assert (trial / "video.mp4").read_text() == "mine"


def test_an_optimizer_that_is_not_installed_is_refused_before_anything_is_encoded(trial, capsys):
    (trial / "run.toml").write_text("[train]\noptimizer = 'adamw8bit'\n")
    assert train(trial, "--config", trial / "run.toml") == 2
    complaint(capsys, "pip install bitsandbytes")
    assert not (trial / "pair.safetensors.run").exists()


def test_loss_that_is_no_number(trial, capsys):
    (trial / "run.toml").write_text("[train]\nlearning_rate = 1e30\nwarmup_steps = 0\n")
    assert train(trial, "--config", trial / "run.toml", "--steps", 20) == 2
    message = complaint(capsys, "at step", "last good state is kept")
    step = int(message.partition("at step ")[2].split(":")[0])
    saved = torch.load(trial / "pair.safetensors.run" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == step - 1
    assert all(tensor.isfinite().all() for tensor in saved["pair"].values())
    assert not (trial / "pair.safetensors").exists()


@pytest.mark.parametrize(
    "options",
    [["--size", "33x32"], ["--num-frames", "1"], ["--steps", "0"], ["--resume"], ["--out", "pair.pt"], ["--device", "nonsense"]],
)
def test_bad_options(trial, capsys, options):
    assert train(trial, *options) == 2
    complaint(capsys)


@pytest.mark.parametrize(
    "options", [["--fps", "-3"], ["--fps", "0"], ["--fps", "nan"], ["--stop-after", "0"], ["--sample-every", "0"], ["--num-frames", "0"]]
)
def test_options_that_no_run_can_have(trial, capsys, options):
    assert train(trial, *options) == 2
    complaint(capsys, *(["must be at least 1"] if "--fps" not in options else ["frame rate", options[1], "0.1 to 240"]))
    assert not (trial / "pair.safetensors.run").exists()


@pytest.mark.parametrize("size", ["0x0", "0x32", "32x00"])
def test_a_size_of_nothing(trial, capsys, size):
    with pytest.raises(SystemExit, match="2"):
        train(trial, "--size", size)
    complaint(capsys, f"'{size}' is no size")


@pytest.fixture
def unsampled(monkeypatch) -> None:
    def sampled(*arguments: object, **options: object) -> None:
        raise AssertionError("it was sampled")

    monkeypatch.setattr("dualreal_core.commands.generate.generate", sampled)


@pytest.mark.parametrize("fps", ["nan", "inf", "0", "-3", "0.01", "500"])
def test_a_frame_rate_is_refused_before_sampling(tmp_path, capsys, unsampled, fps):
    assert main(["generate", "--prompt", "a", "--out", str(tmp_path / "a.mp4"), "--fps", fps]) == 2
    complaint(capsys, "frame rate", fps, "0.1 to 240")


NUMBERS = [(f"--{name}", value) for name in ("identity-strength", "motion-strength", "guidance-scale") for value in ("nan", "inf")]


@pytest.mark.parametrize(("option", "value"), [*NUMBERS, ("--seed", str(2**63)), ("--seed", "1.5")])
def test_numbers_that_no_video_can_be_sampled_with(tmp_path, capsys, unsampled, option, value):
    with pytest.raises(SystemExit):
        main(["generate", "--prompt", "a dog", "--out", str(tmp_path / "a.mp4"), option, value])
    complaint(capsys, option, value)


@pytest.mark.parametrize("out", ["taken/a.mp4", "taken/deep/a.gif", "folder.mp4"])
def test_a_file_that_cannot_be_written_is_noticed_before_sampling(tmp_path, capsys, unsampled, out):
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    assert main(["generate", "--prompt", "a", "--out", str(tmp_path / out), "--overwrite"]) == 2
    complaint(capsys, out.partition("/a.")[0], "choose another")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mp4", "taken"]


def test_a_pair_file_that_cannot_be_written_is_noticed_before_training(trial, capsys):
    (trial / "taken").write_text("mine")
    assert train(trial, "--out", trial / "taken" / "pair.safetensors", "--run-dir", trial / "run") == 2
    complaint(capsys, "taken", "choose another")
    assert not (trial / "run").exists()


@pytest.mark.parametrize("command", ["train", "demo", "generate", "bench"])
def test_an_interrupt_names_a_way_on_that_the_command_has(trial, capsys, monkeypatch, command):
    def interrupted(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS[command], "run", interrupted)
    needed = {
        "train": ["--identity", "a", "--motion", "b", "--out", "c.safetensors"],
        "generate": ["--prompt", "a", "--out", "a.mp4"],
        "bench": ["fusion", "--out", "a"],
    }
    assert main([command, *needed.get(command, [])]) == 130
    message = complaint(capsys, "interrupted")
    assert ("--resume" in message) == (command == "train")
    assert ("repeat the command" in message) == (command in ("demo", "bench"))


def test_names_that_the_terminal_cannot_show_are_escaped(trial, monkeypatch):
    """A name in another script, and one that is no text at all."""
    for name in ("写真.png", "caf\udce9.png"):
        Image.new("RGB", (5, 5)).save(trial / "identity" / "x.png")
        (trial / "identity" / "x.png").rename(trial / "identity" / name)
    shown = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", shown)
    assert train(trial, "--steps", 1) == 0
    shown.flush()
    printed = shown.buffer.getvalue()
    assert rb"skipped \u5199\u771f.png: " in printed and rb"skipped caf\udce9.png: " in printed


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_bad_base(trial, tmp_path, capsys, folder):
    (tmp_path / "empty").mkdir()
    assert train(trial, "--base", tmp_path / folder) == 2
    complaint(capsys, folder)


@pytest.mark.parametrize("option", [["--identity", "nobody"], ["--motion", "left"], ["--steps", "1"]])
def test_bad_demo_choice(tmp_path, capsys, option):
    assert main(["demo", "--out", str(tmp_path / "demo"), *option]) == 2
    complaint(capsys)
    assert not (tmp_path / "demo").exists()
