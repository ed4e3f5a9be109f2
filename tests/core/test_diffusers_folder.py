"""Model folders: files, encoders, predictions and sampling, against what diffusers' own pipelines compute."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
)
from golden import SHIPPED
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dualreal_core.bases.diffusers_folder import DiffusersFolderBase
from dualreal_core.bases.folder_files import weight_variant
from dualreal_core.bases.folder_layouts import layout_of
from dualreal_core.bases.image_encoder import ImagePreparation
from dualreal_core.errors import InputError
from dualreal_core.objective import FlowMatching, VPrediction

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_tiny_models.py"
PIPELINES: dict[str, type[DiffusionPipeline]] = {"cogvideox": CogVideoXPipeline, "wan": WanPipeline}
NUM_FRAMES, HEIGHT, WIDTH = 9, 64, 96
PROMPT, NEGATIVE = "a small robot jumps on a wooden floor", ""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return runpy.run_path(str(SCRIPT))["make_tiny_models"](tmp_path_factory.mktemp("models"), seed=0)


@pytest.fixture(scope="module")
def bases(folders: dict[str, Path]) -> dict[str, DiffusersFolderBase]:
    return {name: DiffusersFolderBase(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def pipelines(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    loaded = {name: PIPELINES[name].from_pretrained(folder, local_files_only=True) for name, folder in folders.items()}
    for pipeline in loaded.values():
        pipeline.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return torch.rand(NUM_FRAMES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(params=list(PIPELINES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def base(name: str, bases: dict[str, DiffusersFolderBase]) -> DiffusersFolderBase:
    return bases[name]


@pytest.fixture
def pipeline(name: str, pipelines: dict[str, DiffusionPipeline]) -> DiffusionPipeline:
    return pipelines[name]


@pytest.fixture
def copy_of(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def edit_json(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def noise(base: DiffusersFolderBase, seed: int = 0, batch_size: int = 1) -> torch.Tensor:
    """(B, C, f, h, w)"""
    shape = (batch_size, *base.latent_shape(NUM_FRAMES, HEIGHT, WIDTH))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pipeline_texts(pipeline: DiffusionPipeline, base: DiffusersFolderBase) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return pipeline.encode_prompt(PROMPT, NEGATIVE, max_sequence_length=base.text_length, device=torch.device("cpu"))


@torch.no_grad()
def sample(base: DiffusersFolderBase, latents: torch.Tensor, texts: torch.Tensor, guidance: float, num_steps: int) -> torch.Tensor:
    """latents: (1, C, f, h, w), texts: negative then positive (2, T, X) -> (1, C, f, h, w)."""

    def guided(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        negative, positive = base.predict(latents.expand(2, -1, -1, -1, -1), timestep, texts).chunk(2)
        return negative + guidance * (positive - negative)

    return base.denoise(guided, latents, num_steps, torch.Generator().manual_seed(7))


def test_attributes(bases: dict[str, DiffusersFolderBase], folders: dict[str, Path]) -> None:
    cogvideox, wan = bases["cogvideox"], bases["wan"]
    assert (cogvideox.default_size, cogvideox.default_num_frames, cogvideox.default_fps) == ((64, 96), 9, 8.0)
    assert (wan.default_size, wan.default_num_frames, wan.default_fps) == ((480, 832), 49, 16.0)
    assert (cogvideox.default_guidance_scale, wan.default_guidance_scale) == (6.0, 5.0)
    assert isinstance(cogvideox.objective, VPrediction) and cogvideox.objective.alphas_cumprod[-1] == 0
    assert wan.objective == FlowMatching(shift=3.0)
    assert (cogvideox.frame_multiple, wan.frame_multiple) == (8, 4)
    assert (cogvideox.text_length, wan.text_length) == (226, 512)
    for name, base in bases.items():
        assert base.name == str(folders[name]) and base.family.name == name
        assert (base.size_multiple, base.latent_channels, base.condition_dim) == (16, 16, 1024)
        assert base.latent_shape(49, 480, 720) == (16, 13, 60, 90)
        assert not any(parameter.requires_grad for parameter in base.transformer.parameters()) and not base.transformer.training


def test_folders_are_small(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 20e6


def test_schedule_is_that_of_the_5b_model(folders: dict[str, Path]) -> None:
    reference = SHIPPED / "scheduler" / "scheduler_config.json"
    ours = json.loads((folders["cogvideox"] / "scheduler" / "scheduler_config.json").read_text())
    assert ours | {"_diffusers_version": ""} == json.loads(reference.read_text()) | {"_diffusers_version": ""}


def test_text_equals_the_pipeline(base: DiffusersFolderBase, pipeline: DiffusionPipeline) -> None:
    expected, expected_negative = pipeline_texts(pipeline, base)
    with base.encoders():
        text, negative = base.encode_text(PROMPT), base.encode_text(NEGATIVE)
    assert text.shape == (base.text_length, 32)
    torch.testing.assert_close(text, expected[0])
    torch.testing.assert_close(negative, expected_negative[0])
    assert not torch.equal(text, negative)


def test_wan_text_is_zero_after_the_prompt(bases: dict[str, DiffusersFolderBase]) -> None:
    with bases["wan"].encoders():
        text = bases["wan"].encode_text(f"  {PROMPT}  ")
        assert torch.equal(text, bases["wan"].encode_text(PROMPT))
    assert text[-1].abs().max() == 0 and text[0].abs().max() > 0


@torch.no_grad()
def test_frames_and_latents(base: DiffusersFolderBase, pipeline: DiffusionPipeline, clip: torch.Tensor) -> None:
    raw = pipeline.vae.encode(clip.transpose(0, 1)[None]).latent_dist.mode()[0]
    config = pipeline.vae.config
    if isinstance(pipeline, CogVideoXPipeline):
        expected = raw * config.scaling_factor
    else:
        mean, std = (torch.tensor(values).reshape(-1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
        expected = (raw - mean) / std
    with base.encoders():
        latents, still = base.encode_frames(clip), base.encode_frames(clip[:1])
        decoded = base.decode_latents(latents)
        assert torch.equal(latents, base.encode_frames(clip))
    assert latents.shape == base.latent_shape(NUM_FRAMES, HEIGHT, WIDTH) == (16, 3, 8, 12)
    assert still.shape == base.latent_shape(1, HEIGHT, WIDTH)
    torch.testing.assert_close(latents, expected)
    assert decoded.shape == clip.shape and decoded.abs().max() <= 1
    torch.testing.assert_close(decoded, pipeline.vae.decode(raw[None]).sample[0].transpose(0, 1).clamp(-1, 1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_wan_takes_five_frames(bases: dict[str, DiffusersFolderBase], clip: torch.Tensor) -> None:
    with bases["wan"].encoders():
        latents = bases["wan"].encode_frames(clip[:5])
        assert latents.shape == (16, 2, 8, 12) and bases["wan"].decode_latents(latents).shape == (5, 3, HEIGHT, WIDTH)


def test_wrong_clips_are_refused(base: DiffusersFolderBase, clip: torch.Tensor) -> None:
    with base.encoders():
        with pytest.raises(InputError, match=r"4 frames .* such as 1"):
            base.encode_frames(clip[:4])
        with pytest.raises(InputError, match="multiples of 16"):
            base.encode_frames(clip[..., :90])


def test_image_preparation_equals_clip(folders: dict[str, Path], tmp_path: Path) -> None:
    """Two 8-bit levels of 255 at CLIP's smallest deviation (0.26): PIL rounds between its two resizing passes."""
    preparation = ImagePreparation.from_folder(folders["cogvideox"] / "image_encoder")
    processor = CLIPImageProcessorPil.from_pretrained(folders["cogvideox"] / "image_encoder")
    for height, width in ((64, 96), (96, 65), (20, 30), (32, 32)):
        coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(height))
        pixels = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 1).mul(255).round()
        image = Image.fromarray(pixels.to(torch.uint8).permute(1, 2, 0).numpy())
        expected = processor(image, return_tensors="pt").pixel_values
        actual = preparation.apply(pixels / 127.5 - 1)
        assert actual.shape == expected.shape == (1, 3, 32, 32)
        torch.testing.assert_close(actual, expected, rtol=0, atol=2.1 / 255 / 0.26)


def test_reference_embedding(base: DiffusersFolderBase, folders: dict[str, Path], clip: torch.Tensor) -> None:
    with base.encoders():
        embedding = base.embed_image(clip[0])
        assert not torch.allclose(embedding, base.embed_image(-clip[0]))
    assert embedding.shape == (1024,) and embedding.dtype == torch.float32 and embedding.norm() > 0


def test_image_encoder_elsewhere_or_nowhere(copy_of: Callable[[str], Path], clip: torch.Tensor, tmp_path: Path) -> None:
    folder = copy_of("wan")
    elsewhere = Path(shutil.move(folder / "image_encoder", tmp_path / "clip"))
    without, given = DiffusersFolderBase(folder), DiffusersFolderBase(folder, image_encoder=elsewhere)
    assert without.condition_dim is None and given.condition_dim == 1024
    assert without.fingerprint != given.fingerprint
    with without.encoders(), pytest.raises(InputError, match="no image_encoder"):
        without.embed_image(clip[0])
    with pytest.raises(InputError, match="nothing"):
        DiffusersFolderBase(folder, image_encoder=tmp_path / "nothing")


def test_encoders_are_dropped(base: DiffusersFolderBase, clip: torch.Tensor) -> None:
    with base.encoders():
        with base.encoders():
            base.encode_text(PROMPT)
        base.encode_frames(clip[:1])
    for call in (lambda: base.encode_text(PROMPT), lambda: base.encode_frames(clip[:1]), lambda: base.embed_image(clip[0])):
        with pytest.raises(RuntimeError, match=r"with base\.encoders"):
            call()


def test_predict_equals_the_direct_call(bases: dict[str, DiffusersFolderBase], pipelines: dict[str, DiffusionPipeline]) -> None:
    text = torch.randn(2, 226, 32, generator=torch.Generator().manual_seed(3))
    timestep = torch.tensor([900, 100])
    latents = noise(bases["cogvideox"], batch_size=2)
    pipeline = pipelines["cogvideox"]
    rotary = pipeline._prepare_rotary_positional_embeddings(HEIGHT, WIDTH, latents.shape[2], torch.device("cpu"))
    with torch.no_grad():
        expected = pipeline.transformer(latents.transpose(1, 2), text, timestep, image_rotary_emb=rotary).sample.transpose(1, 2)
        assert torch.equal(bases["cogvideox"].predict(latents, timestep, text), expected)
        expected = pipelines["wan"].transformer(latents, timestep.float(), text).sample
        assert torch.equal(bases["wan"].predict(latents, timestep.float(), text), expected)


def test_predict_carries_gradients(base: DiffusersFolderBase) -> None:
    latents = noise(base).requires_grad_()
    base.predict(latents, torch.tensor([500]), torch.randn(1, base.text_length, 32)).square().mean().backward()
    assert latents.grad is not None and latents.grad.abs().max() > 0


def test_bfloat16(name: str, folders: dict[str, Path]) -> None:
    base = DiffusersFolderBase(folders[name], dtype=torch.bfloat16)
    with base.encoders():
        text = base.encode_text(PROMPT)
        assert base.decode_latents(noise(base)[0]).dtype == torch.float32
    assert text.dtype == torch.bfloat16
    assert base.predict(noise(base), torch.tensor([500]), text[None]).dtype == torch.bfloat16


def check_sampling(base: DiffusersFolderBase, pipeline: DiffusionPipeline, num_steps: int) -> None:
    """1e-4: batched guidance here, two calls in the Wan pipeline."""
    positive, negative = pipeline_texts(pipeline, base)
    start = noise(base, seed=5)
    is_cogvideox = isinstance(pipeline, CogVideoXPipeline)
    expected = pipeline(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        latents=start.transpose(1, 2) if is_cogvideox else start,
        height=HEIGHT,
        width=WIDTH,
        num_frames=NUM_FRAMES,
        num_inference_steps=num_steps,
        guidance_scale=base.default_guidance_scale,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).frames
    expected = expected.transpose(1, 2) if is_cogvideox else expected
    actual = sample(base, start, torch.cat([negative, positive]), base.default_guidance_scale, num_steps)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(actual, start, atol=0.1)


@pytest.mark.parametrize("num_steps", [2, 5])
def test_sampling_equals_the_pipeline(base: DiffusersFolderBase, pipeline: DiffusionPipeline, num_steps: int) -> None:
    check_sampling(base, pipeline, num_steps)


@pytest.mark.parametrize(
    ("name", "scheduler_class"), [("cogvideox", CogVideoXDDIMScheduler), ("wan", FlowMatchEulerDiscreteScheduler)], indirect=["name"]
)
def test_sampling_with_the_other_scheduler(
    name: str, scheduler_class: type, copy_of: Callable[[str], Path], pipelines: dict[str, DiffusionPipeline]
) -> None:
    folder = copy_of(name)
    ours = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    scheduler = scheduler_class.from_config(ours) if name == "cogvideox" else scheduler_class(shift=5.0)
    scheduler.save_pretrained(folder / "scheduler")
    base = DiffusersFolderBase(folder)
    if name == "wan":
        assert base.objective == FlowMatching(shift=5.0)
    components = pipelines[name].components | {"scheduler": scheduler}
    pipeline = PIPELINES[name](**components)
    pipeline.set_progress_bar_config(disable=True)
    check_sampling(base, pipeline, num_steps=3)


def test_runs_do_not_disturb_each_other(base: DiffusersFolderBase) -> None:
    """A run, one with the same seed inside each of its steps, and one after an abandoned run agree."""

    def trajectory(between: Callable[[], None]) -> list[torch.Tensor]:
        """What the model saw at each step, and the result."""
        seen: list[torch.Tensor] = []

        def model(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            seen.append(latents)
            between()
            return 0.1 * latents

        done: list[tuple[int, int]] = []
        result = base.denoise(model, noise(base), 3, torch.Generator().manual_seed(1), lambda *at: done.append(at))
        assert done == [(1, 3), (2, 3), (3, 3)]
        return [*seen, result]

    def abandon() -> None:
        raise InterruptedError

    inner: list[list[torch.Tensor]] = []
    outer = trajectory(lambda: inner.append(trajectory(lambda: None)))
    with pytest.raises(InterruptedError):
        trajectory(abandon)
    for other in (*inner, trajectory(lambda: None)):
        assert len(other) == 4 and all(map(torch.equal, other, outer))


def test_temporal_patches_of_cogvideox_15(copy_of: Callable[[str], Path], clip: torch.Tensor) -> None:
    """Clips have 8k + 1 frames; one latent frame is repeated in front, as in that model's own training and pipeline."""
    folder = copy_of("cogvideox")
    config = json.loads((folder / "transformer" / "config.json").read_text()) | {"patch_size_t": 2, "patch_bias": False}
    CogVideoXTransformer3DModel.from_config(config).save_pretrained(folder / "transformer")
    base = DiffusersFolderBase(folder)
    assert (base.frame_multiple, base.default_fps, base.default_size) == (8, 16.0, (768, 1360))
    assert base.latent_shape(9, HEIGHT, WIDTH) == (16, 4, 8, 12) and base.latent_shape(81, 64, 64)[1] == 22
    with base.encoders():
        still = base.encode_frames(clip[:1])
        assert still.shape == base.latent_shape(1, HEIGHT, WIDTH) == (16, 2, 8, 12)
        assert torch.equal(still[:, 0], still[:, 1])
        assert base.decode_latents(still).shape == (1, 3, HEIGHT, WIDTH)
        with pytest.raises(InputError, match=r"8 \* k \+ 1"):
            base.encode_frames(clip[:5])
    latents = torch.randn(1, *base.latent_shape(9, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 226, 32, generator=torch.Generator().manual_seed(1))
    pipeline = CogVideoXPipeline.from_pretrained(folder, local_files_only=True)
    rotary = pipeline._prepare_rotary_positional_embeddings(HEIGHT, WIDTH, 4, torch.device("cpu"))
    with torch.no_grad():
        expected = pipeline.transformer(latents.transpose(1, 2), text, torch.tensor([500]), image_rotary_emb=rotary).sample
        assert torch.equal(base.predict(latents, torch.tensor([500]), text), expected.transpose(1, 2))


def test_cogvideox_without_rotary_embeddings(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("cogvideox")
    config = json.loads((folder / "transformer" / "config.json").read_text()) | {"use_rotary_positional_embeddings": False}
    CogVideoXTransformer3DModel.from_config(config).save_pretrained(folder / "transformer")
    base = DiffusersFolderBase(folder)
    assert base.predict(noise(base), torch.tensor([500]), torch.zeros(1, 226, 32)).isfinite().all()


def test_fingerprint(copy_of: Callable[[str], Path], base: DiffusersFolderBase, name: str) -> None:
    folder = copy_of(name)
    assert DiffusersFolderBase(folder).fingerprint == base.fingerprint
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert DiffusersFolderBase(folder).fingerprint != base.fingerprint


def test_weights_that_are_all_marked_fp16_are_read(
    copy_of: Callable[[str], Path], base: DiffusersFolderBase, name: str, clip: torch.Tensor
) -> None:
    folder = copy_of(name)
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    marked = DiffusersFolderBase(folder)
    answers = []
    for one in (marked, base):
        with one.encoders():
            answers.append((one.encode_text(PROMPT), one.encode_frames(clip), one.embed_image(clip[0])))
    assert all(torch.equal(*pair) for pair in zip(*answers, strict=True))
    before = base.transformer.state_dict()
    assert all(torch.equal(tensor, before[key]) for key, tensor in marked.transformer.state_dict().items())


def test_weights_of_which_some_are_not_marked_are_read_unmarked(tmp_path: Path) -> None:
    for names, mark in ((["model.safetensors"], None), (["model.fp16-00001-of-00002.safetensors"], "fp16"), ([], None)):
        folder = tmp_path / str(mark) / str(len(names))
        folder.mkdir(parents=True)
        for file in names:
            (folder / file).touch()
        assert weight_variant(folder) == mark
    (tmp_path / "fp16" / "1" / "model-00001-of-00002.safetensors").touch()
    assert weight_variant(tmp_path / "fp16" / "1") is None


def test_layouts() -> None:
    assert layout_of("CogVideoXPipeline", {"patch_size_t": None}).num_frames == 49
    assert layout_of("CogVideoXPipeline", {"patch_size_t": 2}).num_frames == 81
