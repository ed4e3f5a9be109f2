"""Encoders from local folders against what transformers computes, RAFT from a weight file, and what both refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import SIDE, SpotFlow, make_clip, make_clip_vision, make_dino, make_dinov2, spot_clip, straight
from transformers import AutoTokenizer, CLIPModel, CLIPVisionModelWithProjection, Dinov2Model, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dualreal_core.errors import InputError
from dualreal_core.metrics.encoders import BATCH, ClipEncoder, DinoEncoder
from dualreal_core.metrics.raft import NUM_UPDATES, Raft

MAKERS = {"clip": make_clip, "clip_vision": make_clip_vision, "dinov2": make_dinov2, "dino": make_dino}
OPENERS = {"clip": ClipEncoder, "clip_vision": ClipEncoder, "dinov2": DinoEncoder, "dino": DinoEncoder}
BUILD_NETWORK = "dualreal_core.metrics.raft.build_network"
SAME = 2e-3  # torch's bicubic differs from Pillow's by rounding, a step of 1/255 here and there


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("encoders")
    return {name: make(place / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """(BATCH + 2, 3, 64, 96) uint8, smooth colours that change over time."""
    coarse = torch.rand(BATCH + 2, 3, 4, 6, generator=torch.Generator().manual_seed(7))
    return (torch.nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear") * 255).round().to(torch.uint8)


def prepared(folder: Path, frames: torch.Tensor) -> torch.Tensor:
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    return CLIPImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt").pixel_values


@torch.no_grad()
def expected(name: str, folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    if name == "clip":
        model = CLIPModel.from_pretrained(folder)
        return model.visual_projection(model.vision_model(pixels).pooler_output)
    if name == "clip_vision":
        return CLIPVisionModelWithProjection.from_pretrained(folder)(pixels).image_embeds
    kind = {"dinov2": Dinov2Model, "dino": ViTModel}[name]
    return kind.from_pretrained(folder)(pixels).last_hidden_state[:, 0]


@pytest.mark.parametrize("name", MAKERS)
def test_embeddings_are_those_of_transformers(name, folders, frames):
    embeddings = OPENERS[name](folders[name]).embed(frames)
    wanted = expected(name, folders[name], prepared(folders[name], frames))
    assert embeddings.shape == wanted.shape
    assert torch.nn.functional.cosine_similarity(embeddings, wanted).min() > 1 - SAME
    assert torch.nn.functional.cosine_similarity(embeddings, wanted[:1]).min() < 1 - 3 * SAME, "all frames look alike"


@pytest.mark.parametrize("name", MAKERS)
def test_tokens_show_the_whole_frame_on_a_square_grid(name, folders, frames):
    encoder = OPENERS[name](folders[name])
    tokens = encoder.tokens(frames)
    assert tokens.shape == (len(frames), SIDE // 8, SIDE // 8, 32)
    changed = frames.clone()
    changed[:, :, :, :8] = 255 - changed[:, :, :, :8]  # cropped away by the folder's own preparation
    assert torch.equal(encoder.embed(changed), encoder.embed(frames))
    moved = (encoder.tokens(changed) - tokens).norm(dim=-1).mean((0, 1))  # (w,)
    assert moved.argmax() == 0


def test_text_embedding_is_that_of_transformers(folders):
    encoder, prompt = ClipEncoder(folders["clip"]), "a dog"
    model, tokenizer = CLIPModel.from_pretrained(folders["clip"]), AutoTokenizer.from_pretrained(folders["clip"])
    with torch.no_grad():
        wanted = model.text_projection(model.text_model(**tokenizer(prompt, return_tensors="pt")).pooler_output)[0]
    assert torch.allclose(encoder.embed_text(prompt), wanted, atol=1e-6)
    assert not torch.allclose(encoder.embed_text("a cat"), wanted, atol=1e-3)
    assert not encoder.is_cut(prompt)


def test_long_prompts_are_cut_and_said_to_be(folders):
    encoder, long = ClipEncoder(folders["clip"]), "a dog that runs very far"
    assert encoder.is_cut(long)
    assert torch.equal(encoder.embed_text(long), encoder.embed_text(long + " away"))


def test_clip_without_text_says_so(folders):
    assert not ClipEncoder(folders["clip_vision"]).has_text


def test_description_names_model_and_preparation(folders):
    description = DinoEncoder(folders["dinov2"]).describe()
    assert description["folder"] == "dinov2"
    assert description["preparation"]["size"] == SIDE + 8
    assert description["patch_preparation"]["size"] == (SIDE, SIDE)
    assert description["digest"] != ClipEncoder(folders["clip"]).describe()["digest"]
    json.dumps(description)


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def edited(folder: Path, name: str, **values: object) -> Path:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **values}))
    return folder


def without_weight(folder: Path, weight: str) -> Path:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights[weight]
    save_file(weights, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("name", "opener", "change", "words"),
    [
        ("clip", ClipEncoder, shutil.rmtree, "There is no folder .*: give that of a downloaded model"),
        ("clip", ClipEncoder, lambda folder: without(folder, "config.json"), "config.json is missing"),
        ("clip", ClipEncoder, lambda folder: without(folder, "model.safetensors"), "no .safetensors file"),
        ("clip", ClipEncoder, lambda folder: without(folder, "preprocessor_config.json"), "preprocessor_config.json is missing"),
        ("clip", ClipEncoder, lambda folder: without(folder, "tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
        ("clip", ClipEncoder, lambda folder: without_weight(folder, "visual_projection.weight"), "lacks 1 weights"),
        ("clip", ClipEncoder, lambda folder: edited(folder, "preprocessor_config.json", crop_size=24), "crops pictures to 24x24"),
        ("clip", DinoEncoder, lambda folder: folder, "of type 'clip', not DINO"),
        ("dinov2", ClipEncoder, lambda folder: folder, "of type 'dinov2', not CLIP"),
        ("dino", DinoEncoder, lambda folder: edited(folder, "config.json", hidden_size=48, num_attention_heads=3), "does not load"),
    ],
)
def test_folders_that_do_not_do_are_refused_in_one_sentence(folders, tmp_path, name, opener, change, words):
    folder = tmp_path / "model"
    shutil.copytree(folders[name], folder)
    change(folder)
    with pytest.raises(InputError, match=words) as caught:
        opener(folder)
    assert "\n" not in str(caught.value)


@pytest.fixture
def stand_ins(monkeypatch) -> None:
    monkeypatch.setattr(BUILD_NETWORK, lambda architecture: SpotFlow({"raft_small": 32, "raft_large": 64}[architecture]))


@pytest.mark.parametrize(("width", "architecture"), [(32, "raft_small"), (64, "raft_large")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_raft_is_chosen_by_its_weights(stand_ins, tmp_path, width, architecture, suffix):
    weights, path = SpotFlow(width).state_dict(), tmp_path / f"raft{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    raft = Raft(tmp_path)
    assert (raft.architecture, raft.path) == (architecture, path)
    assert raft.describe()["file"] == path.name


def test_raft_sees_padded_frames_in_its_range_and_gives_pixels(tmp_path, monkeypatch):
    torch.save(SpotFlow().state_dict(), tmp_path / "raft.pth")
    network = SpotFlow()
    monkeypatch.setattr(BUILD_NETWORK, lambda architecture: network)
    raft = Raft(tmp_path / "raft.pth")
    frames = spot_clip(straight(3, 3, -2), size=(130, 50))
    flow = raft(frames[:2], frames[1:])
    assert flow.shape == (2, 2, 130, 50)
    assert torch.allclose(flow[:, :, 60, 20], torch.tensor([3.0, -2.0]).double(), atol=1e-3)
    assert network.seen == [(torch.Size([2, 3, 136, 128]), -1.0, 1.0, NUM_UPDATES)]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda place: None, "no file or folder"),
        (lambda place: place.mkdir(), "holds 0 weight files"),
        (lambda place: place.write_bytes(b"nothing of use"), "cannot be read as a weight file"),
        (lambda place: torch.save([1, 2], place), "holds no table of weights"),
        (lambda place: torch.save({"fnet.conv1.weight": torch.zeros(64, 3, 7, 7)}, place), "no RAFT weights in torchvision's form"),
        (
            lambda place: torch.save({"feature_encoder.convnormrelu.0.weight": torch.zeros(32, 3, 7, 7)}, place),
            "does not fit torchvision's raft_small",
        ),
    ],
)
def test_raft_refuses_other_files(stand_ins, tmp_path, write, words):
    place = tmp_path / "raft.pth"
    write(place)
    with pytest.raises(InputError, match=words) as caught:
        Raft(place)
    assert "\n" not in str(caught.value)


def test_raft_never_unpickles_objects(stand_ins, tmp_path):
    torch.save({"feature_encoder.convnormrelu.0.weight": Path("x")}, tmp_path / "raft.pth")
    with pytest.raises(InputError, match="cannot be read as a weight file"):
        Raft(tmp_path / "raft.pth")


def test_raft_without_torchvision_says_what_to_install(tmp_path, monkeypatch):
    torch.save(SpotFlow().state_dict(), tmp_path / "raft.pth")
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    with pytest.raises(InputError, match="pip install torchvision"):
        Raft(tmp_path / "raft.pth")


@pytest.mark.parametrize("name", ["raft_small", "raft_large"])
def test_raft_of_torchvision_itself(tmp_path, name):
    optical_flow = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    network = getattr(optical_flow, name)().eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    raft = Raft(tmp_path / "raft.pth")
    frames = torch.randint(0, 256, (2, 3, 128, 136), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        wanted = network(frames[:1] / 127.5 - 1, frames[1:] / 127.5 - 1, num_flow_updates=NUM_UPDATES)[-1]
    assert raft.architecture == name
    assert torch.allclose(raft(frames[:1], frames[1:]), wanted, atol=1e-4)
