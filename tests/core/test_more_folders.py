"""Model folders of LTX-Video, HunyuanVideo, HunyuanVideo 1.5 and Wan 2.2 5B, against what diffusers' own pipelines compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, LTXPipeline
from tiny_folders import CHANNELS, MAKERS, make_folder

from dualreal_core.api import TrainingData, generate, train_pair
from dualreal_core.bases.diffusers_folder import DiffusersFolderBase
from dualreal_core.bases.texts import joined, parted, text_mask
from dualreal_core.errors import InputError
from dualreal_core.objective import FlowMatching
from dualreal_core.sampling import SamplingSettings
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import DUALREAL, with_train

PROMPT, NEGATIVE = 'a small robot jumps on a wooden floor, a sign says "hello"', ""
NUM_FRAMES, HEIGHT, WIDTH = 9, 64, 96
SHIFTS = {"ltx": math.exp(2.05), "ltx2": math.exp(2.05), "hunyuan": 7.0, "hunyuan 1.5": 5.0, "wan 5b": 5.0}
LATENTS = {
    "ltx": (CHANNELS, 2, 2, 3),
    "ltx2": (CHANNELS, 2, 2, 3),
    "hunyuan": (CHANNELS, 3, 8, 12),
    "hunyuan 1.5": (CHANNELS, 3, 4, 6),
    "wan 5b": (48, 3, 4, 6),
}
each_model = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: make_folder(name, tmp_path_factory.mktemp("models") / "model"))


@pytest.fixture
def folder(name: str, folder_of: Callable[[str], Path]) -> Path:
    return folder_of(name)


@pytest.fixture
def base(folder: Path) -> DiffusersFolderBase:
    return DiffusersFolderBase(folder)


@pytest.fixture
def pipeline(name: str, folder: Path) -> DiffusionPipeline:
    loaded = loaded_pipeline(name, folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def loaded_pipeline(name: str, folder: Path) -> DiffusionPipeline:
    absent = {"vocoder": None} if name == "ltx2" else {}
    return DiffusionPipeline.from_pretrained(folder, local_files_only=True, **absent)


def noise(base: DiffusersFolderBase, seed: int = 5) -> torch.Tensor:
    return torch.randn(1, *base.latent_shape(NUM_FRAMES, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(seed))


@each_model
def test_what_the_folder_says(name: str, base: DiffusersFolderBase) -> None:
    assert isinstance(base.objective, FlowMatching)
    assert base.objective.shift == pytest.approx(SHIFTS[name])
    assert base.latent_shape(NUM_FRAMES, HEIGHT, WIDTH) == LATENTS[name]
    assert base.frame_multiple == (8 if name in ("ltx", "ltx2") else 4)
    assert base.size_multiple == (32 if name in ("ltx", "ltx2", "wan 5b") else 16)
    assert base.latent_shape(base.default_num_frames, *base.default_size)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "ltx2"])  # whose video hears the sound it makes
@torch.no_grad()
def test_sampling_equals_the_pipeline(name: str, base: DiffusersFolderBase, pipeline: DiffusionPipeline) -> None:
    """From the words to the latents, guided, in batches of both prompts here."""
    start, guidance, is_packed = noise(base), 3.0, isinstance(pipeline, LTXPipeline)
    arguments = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "height": HEIGHT, "width": WIDTH, "num_frames": NUM_FRAMES}
    if name == "hunyuan 1.5":
        pipeline.guider = pipeline.guider.new(guidance_scale=guidance)
    else:
        arguments["true_cfg_scale" if name == "hunyuan" else "guidance_scale"] = guidance
    latents = pipeline._pack_latents(start) if is_packed else start
    expected = pipeline(**arguments, latents=latents, num_inference_steps=3, output_type="latent").frames
    expected = expected.transpose(1, 2).unflatten(2, start.shape[2:]) if is_packed else expected
    with base.encoders():
        texts = base.batch_texts([base.encode_text(NEGATIVE), base.encode_text(PROMPT)])

    def guided(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        negative, positive = base.predict(latents.expand(2, -1, -1, -1, -1), timestep, texts).chunk(2)
        return negative + guidance * (positive - negative)

    made = base.denoise(guided, start, 3, torch.Generator().manual_seed(7))
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=2e-4)
    assert not torch.allclose(made, start, atol=0.1)


@each_model
@torch.no_grad()
def test_the_text_that_the_dit_itself_is_called_with(name: str, base: DiffusersFolderBase) -> None:
    """As a prompt gate is fitted to it: without a pooled text, or that of a second encoder."""
    with base.encoders():
        text = base.encode_text(PROMPT)
    heard: list[torch.Tensor] = []
    base.transformer.register_forward_pre_hook(lambda _, given, named: heard.append(named["encoder_hidden_states"]), with_kwargs=True)
    base.predict(noise(base), torch.full((1,), 500.0), text[None])
    assert torch.equal(base.dit_text(text), heard[0][0])


@each_model
@torch.no_grad()
def test_frames_and_latents(name: str, base: DiffusersFolderBase, pipeline: DiffusionPipeline) -> None:
    clip = torch.rand(NUM_FRAMES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 2 - 1
    vae = pipeline.vae
    raw = vae.encode(clip.transpose(0, 1)[None]).latent_dist.mode()
    if name in ("ltx", "ltx2"):
        expected = pipeline._normalize_latents(raw, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    elif name == "wan 5b":
        mean, std = (torch.tensor(values).reshape(-1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
        expected = (raw - mean) / std
    else:
        expected = raw * vae.config.scaling_factor
    with base.encoders():
        latents = base.encode_frames(clip)
        decoded = base.decode_latents(latents)
    torch.testing.assert_close(latents, expected[0])
    cleanest = (torch.zeros(1),) if name == "ltx" else ()
    shown = vae.decode(raw, *cleanest, return_dict=False)[0][0].transpose(0, 1).clamp(-1, 1)
    torch.testing.assert_close(decoded, shown, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "ltx" else pytest.mark.thorough) for name in MAKERS])
def test_a_pair_is_trained_and_used(name: str, base: DiffusersFolderBase, tmp_path: Path) -> None:
    """Two steps on a photo and a clip, which change the pair, and the pair the video."""
    side, num_frames = 64, base.frame_multiple + 1
    for kind, write in (("photos", Trial("tam", "box").write_photos), ("clips", Trial("tam", "box").write_clips)):
        write(tmp_path / kind)
        others = sorted(path for path in (tmp_path / kind).iterdir() if path.suffix != ".txt")[1:]
        for path in others:
            path.unlink()
            path.with_suffix(".txt").unlink(missing_ok=True)
    data = TrainingData(tmp_path / "photos", tmp_path / "clips", size=(side, side), num_frames=num_frames, fps=10)
    recipe = with_train(replace(DUALREAL, prompt_gate=False), steps=2, warmup_steps=0, learning_rate=1e-2, preservation_ratio=0.0)
    pair = train_pair(base, data, tmp_path / "pair.safetensors", recipe, cache=tmp_path / "cache")
    settings = SamplingSettings(num_frames, side, side, 2, guidance_scale=2.0)
    plain, adapted = (generate(base, one, "a figure *", settings=settings) for one in (None, pair))
    assert plain.shape == (num_frames, 3, side, side)
    assert plain.isfinite().all()
    assert not torch.equal(plain, adapted)


@torch.no_grad()
def test_text_of_ltx2(folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("ltx2")
    base, pipeline = DiffusersFolderBase(folder), loaded_pipeline("ltx2", folder)
    embedding, mask, *_ = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    expected, _, whole = pipeline.connectors(embedding, mask, padding_side=pipeline.tokenizer.padding_side)
    with base.encoders():
        text = base.encode_text(PROMPT)
    assert torch.equal(text, expected[0][whole[0].bool()])
    assert len(text) > 8


def test_two_texts_in_one() -> None:
    first, second = torch.randn(2, 3, 4), torch.randn(2, 2, 6)
    rows = [joined(first[0], second[0]), joined(first[1, :2], second[1, :0])]
    assert [row.shape for row in rows] == [(6, 6), (3, 6)]
    both = parted(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), (4, 6))
    assert torch.equal(both[0][0], first[0]) and torch.equal(both[0][1, :2], first[1, :2])
    assert torch.equal(both[1][0], second[0]) and not both[1][1].any()
    assert text_mask(both[0]).sum(1).tolist() == [3, 2]
    alone = parted(rows[1][None], (4, 6))
    assert alone[1].shape == (1, 1, 6) and not alone[1].any()


def test_ltx_whose_tokens_are_patches_is_refused(tmp_path: Path) -> None:
    folder = make_folder("ltx", tmp_path / "model")
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"patch_size": 1', '"patch_size": 2'))
    with pytest.raises(InputError, match="joins 1 x 2 x 2 latents"):
        DiffusersFolderBase(folder)
