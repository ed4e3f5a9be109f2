"""Model folders that cannot be used: refused when they are opened, in one sentence that says what to do."""

from __future__ import annotations

import io
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from diffusers import FlowMatchEulerDiscreteScheduler

from dualreal_core.bases import folder_files, load_base
from dualreal_core.bases.diffusers_folder import DiffusersFolderBase
from dualreal_core.errors import InputError

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_tiny_models.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return runpy.run_path(str(SCRIPT))["make_tiny_models"](tmp_path_factory.mktemp("models"), seed=0)


@pytest.fixture(params=["cogvideox", "wan"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def copy_of(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def edit_json(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no folder .*: give the path"),
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "no model_index.json: give"),
    "broken index": (lambda folder: (folder / "model_index.json").write_text("{"), "no valid JSON .*: download"),
    "other pipeline": (lambda folder: edit_json(folder / "model_index.json", _class_name="MochiPipeline"), "is a MochiPipeline: give"),
    "image to video": (
        lambda folder: edit_json(folder / "model_index.json", _class_name="CogVideoXImageToVideoPipeline"),
        "is a CogVideoXImageToVideoPipeline: give",
    ),
    "second transformer": (
        lambda folder: edit_json(folder / "model_index.json", transformer_2=["diffusers", "WanTransformer3DModel"]),
        "two experts.*names no boundary_ratio",
    ),
    "no vae": (lambda folder: shutil.rmtree(folder / "vae"), "no folder vae/: download"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "no folder tokenizer/: download"),
    "no weights": (lambda folder: (folder / "text_encoder" / "model.safetensors").unlink(), "no .safetensors file: download"),
    "short transformer": (lambda folder: truncate(next((folder / "transformer").glob("*.safetensors"))), "download is broken, repeat"),
    "short vae": (lambda folder: truncate(next((folder / "vae").glob("*.safetensors"))), "the download is broken, repeat it"),
    "quantized transformer": (
        lambda folder: edit_json(folder / "transformer" / "config.json", quantization_config={"quant_method": "bitsandbytes"}),
        r"holds quantized weights \(bitsandbytes\).*: take the model's original weights",
    ),
    "pointer file": (
        lambda folder: (folder / "text_encoder" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
        "no complete safetensors file",
    ),
    "empty file": (lambda folder: (folder / "text_encoder" / "model.safetensors").write_bytes(b""), "no complete safetensors file"),
    "unknown scheduler": (lambda folder: edit_json(folder / "scheduler" / "scheduler_config.json", _class_name="Nobody"), "names Nobody"),
    "other prediction": (
        lambda folder: edit_json(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon", use_flow_sigmas=False),
        "config this base cannot use .*: take",
    ),
    "other sizes": (lambda folder: edit_json(folder / "transformer" / "config.json", num_layers=6), "transformer"),
    "no image preparation": (
        lambda folder: (folder / "image_encoder" / "preprocessor_config.json").unlink(),
        "preprocessor_config.json is missing",
    ),
    "no centre crop": (
        lambda folder: edit_json(folder / "image_encoder" / "preprocessor_config.json", do_center_crop=False),
        "no resize, centre crop",
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_bad_folders(name: str, breakage: str, copy_of: Callable[[str], Path]) -> None:
    """The message is one sentence that names the folder or file."""
    folder = copy_of(name)
    break_folder, message = BREAKAGES[breakage]
    break_folder(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_base(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_what_reads_a_tokenizer_must_be_installed(copy_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """CogVideoX's own folders hold no tokenizer.json, and the libraries ask for yet another package then."""
    folder = copy_of("cogvideox")
    monkeypatch.setattr(folder_files, "is_sentencepiece_available", lambda: False)
    monkeypatch.setattr(folder_files, "is_protobuf_available", lambda: False)
    (folder / "tokenizer" / "spiece.model").write_bytes(b"model")
    DiffusersFolderBase(folder)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="run `pip install sentencepiece protobuf`"):
        DiffusersFolderBase(folder)


def test_a_sentencepiece_model_alone_is_a_tokenizer(copy_of: Callable[[str], Path]) -> None:
    folder, model = copy_of("cogvideox"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a small robot jumps on a wooden floor"] * 20),
        model_writer=model, vocab_size=30, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer" / "spiece.model").write_bytes(model.getvalue())
    (folder / "tokenizer" / "tokenizer.json").unlink()
    base = DiffusersFolderBase(folder)
    with base.encoders():
        assert base.encode_text("a small robot").shape[0] == base.text_length


def test_bad_tokenizer(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("wan")
    for path in (folder / "tokenizer").iterdir():
        path.write_text("{")
    base = DiffusersFolderBase(folder)
    with base.encoders(), pytest.raises(InputError, match="tokenizer does not load"):
        base.encode_text("a small robot")


def test_a_scheduler_whose_shift_moves_is_refused_before_training(copy_of: Callable[[str], Path]) -> None:
    """It would be trained with another shift and then not be sampled at all."""
    folder = copy_of("wan")
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    with pytest.raises(InputError, match="use_dynamic_shifting"):
        DiffusersFolderBase(folder)
