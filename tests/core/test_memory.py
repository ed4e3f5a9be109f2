"""What is in memory while the command line works: the encoders and the DiT are never there together."""

from __future__ import annotations

import gc
import json
import re
import runpy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import ModelMixin
from transformers import PreTrainedModel

from dualreal_core.api import generate
from dualreal_core.bases import devices, diffusers_folder, load_base
from dualreal_core.bases.diffusers_folder import DiffusersFolderBase
from dualreal_core.cli import main
from dualreal_core.commands import options as command_options
from dualreal_core.commands import train as train_command
from dualreal_core.errors import InputError
from dualreal_core.method.pair import new_pair
from dualreal_core.sampling import SamplingSettings, default_sampling
from dualreal_core.storage import save_pair
from dualreal_core.toyworld.trial import Trial
from dualreal_core.video import read_video

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_tiny_models.py"
SIZE = ("--size", "64x48", "--num-frames", "9")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return runpy.run_path(str(SCRIPT))["make_tiny_models"](tmp_path_factory.mktemp("models"), seed=0)


@pytest.fixture(params=["cogvideox", "wan"])
def folder(request, folders) -> Path:
    return folders[request.param]


@pytest.fixture
def wan(folders) -> Path:
    """Where the family makes no difference."""
    return folders["wan"]


@pytest.fixture
def trial(tmp_path) -> Path:
    made = Trial("tam", "box")
    made.write_photos(tmp_path / "photos")
    made.write_clips(tmp_path / "clips")
    for few in ("photos", "clips"):
        for file in sorted(file for file in (tmp_path / few).iterdir() if file.suffix != ".txt")[1:]:
            file.unlink()
    (tmp_path / "run.toml").write_text("[crops]\nnum_crops = 1\ncrop_margin = 0.0\n")
    return tmp_path


def train(folder: Path, trial: Path, name: str, *options: object) -> int:
    data = ["--identity", str(trial / "photos"), "--motion", str(trial / "clips"), "--fps", "10", "--out", str(trial / name)]
    return main(["train", "--base", str(folder), "--no-prompt-gate", *data, "--config", str(trial / "run.toml"), *SIZE, *map(str, options)])


@pytest.fixture
def few_steps(monkeypatch) -> None:
    """Samples of training in two steps of denoising."""
    monkeypatch.setattr(train_command, "default_sampling", lambda base: replace(default_sampling(base), num_steps=2))


class Watch:
    """Weights of loaded models that are still alive, by the model's class, seen whenever one has been loaded or is called.

    Attributes:
        seen: the classes that were in memory together.
        most_bytes: of all weights that were there at once.
    """

    def __init__(self) -> None:
        self.seen: set[frozenset[str]] = set()
        self.most_bytes = 0
        self._weights: list[tuple[str, weakref.ref]] = []

    def add(self, name: str, model: torch.nn.Module) -> None:
        self._weights += [(name, weakref.ref(weight)) for weight in model.parameters()]
        gc.collect()
        self.look()

    def look(self, *_: object) -> None:
        alive = [(name, weight()) for name, weight in self._weights if weight() is not None]
        self.seen.add(frozenset(name for name, _ in alive))
        self.most_bytes = max(self.most_bytes, sum(weight.nbytes for _, weight in alive))


@contextmanager
def watched() -> Iterator[Watch]:
    """Inside, every model that diffusers or transformers load is watched."""
    watch = Watch()
    with pytest.MonkeyPatch.context() as patches:
        for kind in (ModelMixin, PreTrainedModel):
            load = kind.from_pretrained.__func__

            def loaded(cls: type, *args: object, load=load, **kwargs: object) -> object:
                result = load(cls, *args, **kwargs)
                model = result[0] if isinstance(result, tuple) else result
                model.register_forward_pre_hook(watch.look)
                watch.add(cls.__name__, model)
                return result

            patches.setattr(kind, "from_pretrained", classmethod(loaded))
        for name in ("predict", "decode_latents", "encode_frames", "encode_text", "embed_image"):
            method = getattr(DiffusersFolderBase, name)
            patches.setattr(DiffusersFolderBase, name, lambda *args, method=method: (watch.look(), method(*args), watch.look())[1])
        yield watch


def check(watch: Watch, folder: Path) -> None:
    classes = set().union(*watch.seen)
    dit = {name for name in classes if "Transformer3DModel" in name}
    assert len(dit) == 1 and {name for name in classes if "Encoder" in name} and {name for name in classes if "Autoencoder" in name}
    assert not [names for names in watch.seen if dit & names and names - dit], "the DiT beside an encoder"
    assert not [names for names in watch.seen if len(names) > 1 and any("T5EncoderModel" in name for name in names)]
    sizes = {part: sum(file.stat().st_size for file in (folder / part).glob("*.safetensors")) for part in ("transformer", "text_encoder")}
    assert sizes["transformer"] * 0.9 < watch.most_bytes < sum(sizes.values())


def test_training_and_its_samples(folder, trial, few_steps):
    with watched() as watch:
        samples = ("--sample-every", 1, "--sample-prompt", "a figure *", "--evaluate-every", 1)
        assert train(folder, trial, "pair.safetensors", "--steps", 2, *samples) == 0
    check(watch, folder)
    assert len(read_video(trial / "pair.safetensors.run" / "sample-000002.mp4").frames) == 9


def test_samples_do_not_change_what_is_learned(wan, trial, few_steps):
    """The DiT that is read again is the same, and the pair is still attached to it."""
    results = []
    for name, options in (("with", ("--sample-every", 1, "--sample-prompt", "a figure *")), ("without", ())):
        assert train(wan, trial, f"{name}.safetensors", "--steps", 3, "--evaluate-every", 0, *options) == 0
        run = trial / f"{name}.safetensors.run"
        results.append([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])
    assert results[0] == results[1] and len({record["loss"] for record in results[0]}) == 3


def test_generating(folder, trial):
    base = load_base(folder)
    pair = new_pair(base.architecture, identity_kind="lora", motion_kind="bottleneck", motion_condition_dim=base.condition_dim)
    save_pair(trial / "pair.safetensors", pair)
    photo = ["--reference-image", str(trial / "photos" / "mint.png"), "--pair", str(trial / "pair.safetensors")]
    with watched() as watch:
        out = ["--out", str(trial / "video.mp4"), "--steps", "2", *SIZE]
        assert main(["generate", "--base", str(folder), "--prompt", "a figure walks", *photo, *out]) == 0
    check(watch, folder)


def test_the_library_generates_twice_with_one_base(folder):
    base = load_base(folder)
    settings = SamplingSettings(9, 48, 64, 2, 3.0)
    with watched() as watch:
        first, second = (generate(base, None, "a figure", settings=settings) for _ in range(2))
    check(watch, folder)
    assert torch.equal(first, second)


def test_errors_come_before_any_weight_is_read(folder, folders, trial, capsys, monkeypatch):
    other = next(path for path in folders.values() if path != folder)
    save_pair(trial / "pair.safetensors", new_pair(load_base(other).architecture))
    (trial / "wrong.toml").write_text('[pair]\ntarget_layers = ["nowhere"]\n')
    with watched() as watch:
        out = ["--prompt", "a figure", "--out", str(trial / "video.mp4"), *SIZE]
        assert main(["generate", "--base", str(folder), "--pair", str(trial / "pair.safetensors"), *out]) == 2
        assert "was made for a base with" in capsys.readouterr().err
        assert train(folder, trial, "new.safetensors", "--config", trial / "wrong.toml") == 2
        assert "target_layers names 'nowhere'" in capsys.readouterr().err
    assert not watch.seen


def test_peak_memory_is_printed(folder, trial, capsys):
    assert train(folder, trial, "pair.safetensors", "--steps", 2, "--stop-after", 1) == 0
    label = r"peak main memory of this process: \d+\.\d\d GiB resident"
    assert re.search(label, capsys.readouterr().out)
    assert train(folder, trial, "pair.safetensors", "--steps", 2, "--resume") == 0
    assert re.search(label, capsys.readouterr().out)
    assert main(["generate", "--base", str(folder), "--prompt", "a", "--steps", "1", *SIZE, "--out", str(trial / "a.mp4")]) == 0
    assert re.search(label, capsys.readouterr().out)


def test_peak_memory_of_an_accelerator_is_labelled(monkeypatch):
    class Backend:
        def max_memory_allocated(self, device: str) -> int:
            return 3 * 2**30

        def max_memory_reserved(self, device: str) -> int:
            return 4 * 2**30

    monkeypatch.setattr(torch, "cuda", Backend())
    assert devices.peak_memory("cuda:0")[0] == "peak memory on cuda:0: 3.00 GiB allocated, 4.00 GiB reserved"
    monkeypatch.setattr(devices, "peak_resident_bytes", lambda: None)
    assert devices.peak_memory("cpu") == []


@pytest.mark.parametrize(
    ("given", "accelerator", "opened"),
    [
        ([], None, ("cpu", torch.float32)),
        ([], "cuda", ("cuda", torch.bfloat16)),
        ([], "mps", ("mps", torch.bfloat16)),
        (["--device", "cpu"], "cuda", ("cpu", torch.float32)),
        (["--dtype", "fp32"], "xpu", ("xpu", torch.float32)),
        (["--device", "cuda:1"], None, ("cuda:1", torch.bfloat16)),
    ],
)
def test_the_accelerator_is_the_default(monkeypatch, given, accelerator, opened):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: accelerator and torch.device(accelerator))
    for name in ("check_device", "watch_memory"):
        monkeypatch.setattr(command_options, name, lambda device: None)
    calls = []
    monkeypatch.setattr(command_options, "load_base", lambda *arguments: calls.append(arguments) or exit_early())

    def exit_early() -> None:
        raise InputError("far enough")

    assert main(["generate", "--base", "folder", "--prompt", "a", "--out", "a.mp4", *given]) == 2
    assert (calls[0][2], calls[0][1]) == opened
    assert main(["generate", "--prompt", "a", "--out", "a.mp4"]) == 2
    assert (calls[1][2], calls[1][1]) == ("cpu", torch.float32), "the embedded base"


def test_a_run_in_another_precision_is_told_so(folders, trial, capsys):
    assert train(folders["wan"], trial, "pair.safetensors", "--steps", 2, "--stop-after", 1, "--dtype", "bf16") == 0
    assert train(folders["wan"], trial, "pair.safetensors", "--steps", 2, "--resume") == 2
    assert "another base: encoders, a digest of the encoders' files and of --dtype" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused_in_one_sentence(tmp_path, capsys):
    for device in ("cuda:77", "nonsense"):
        assert main(["generate", "--prompt", "a", "--device", device, "--out", str(tmp_path / "a.mp4")]) == 2
        assert "use --device cpu" in capsys.readouterr().err.strip().splitlines()[-1]


def test_outputs_share_what_was_encoded(wan, trial, caches, monkeypatch):
    assert train(wan, trial, "one.safetensors", "--steps", 1) == 0
    assert [path.name for path in caches.iterdir()] == ["dualreal"] and len(list((caches / "dualreal" / "latents").iterdir())) == 2
    assert not (trial / "one.safetensors.run" / "cache").exists()
    with watched() as watch:
        assert train(wan, trial, "two.safetensors", "--steps", 1) == 0
    assert len(watch.seen - {frozenset()}) == 1 and not any("Encoder" in name or "Auto" in name for names in watch.seen for name in names)
    assert train(wan, trial, "three.safetensors", "--steps", 1, "--cache-dir", trial / "mine") == 0
    assert len(list((trial / "mine").iterdir())) == len(list((caches / "dualreal" / "latents").iterdir()))


def test_a_cache_that_takes_no_files_is_said_before_anything_is_encoded(trial, wan, caches, capsys):
    (caches / "dualreal").write_text("in the way")
    assert train(wan, trial, "pair.safetensors", "--steps", 1) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(caches / "dualreal") in message and "--cache-dir" in message


@torch.no_grad()
def test_the_vae_splits_large_frames_alone(folder):
    base = load_base(folder)
    with base.encoders():
        for side, is_tiled in ((64, False), (544, True), (64, False)):
            still = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
            latents = base.encode_frames(still)
            vae = base._encoders._vae
            assert (vae.use_tiling, vae.use_slicing) == (is_tiled, is_tiled)
            assert latents.shape == base.latent_shape(1, side, side)
            assert base.decode_latents(latents).shape == still.shape
    assert side * side < diffusers_folder.TILED_FROM < 544 * 544
