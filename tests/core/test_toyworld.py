"""The toy world's scores are exact on ground truth, its held-out things stay held out, and its codec carries both."""

from __future__ import annotations

import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image, ImageSequence

from dualreal_core.bases import load_base
from dualreal_core.dataset import scan_motion
from dualreal_core.errors import InputError
from dualreal_core.toyworld import world
from dualreal_core.toyworld.figures import FIGURES, TEST_IDENTITIES, TUNING_IDENTITIES, random_figure
from dualreal_core.toyworld.model import load_codec, load_weights, native_weights
from dualreal_core.toyworld.paths import BASE_MOTIONS, MOTIONS, TEST_MOTIONS, TUNING_MOTIONS, canonical_path
from dualreal_core.toyworld.preview import fit_latent_colors
from dualreal_core.toyworld.scores import score_identity, score_motion, sprite_bank, sprite_likeness
from dualreal_core.toyworld.text import MIN_TOKENS, embed_text
from dualreal_core.toyworld.trial import HELD_OUT_MOTIONS, PHOTO_CELLS, Trial, retention


def signed(frames: torch.Tensor) -> torch.Tensor:
    return frames.movedim(-1, 1).float() / 127.5 - 1


@pytest.mark.parametrize("name", list(MOTIONS))
def test_true_motion_is_recognised(name):
    generator = torch.Generator().manual_seed(1)
    for figure in FIGURES.values():
        clip = signed(world.draw_clip(figure, name, "mint", generator))
        score = score_motion(clip, name)
        assert score.best == name
        assert score.score > 0.85
        assert score.score - max(score_motion(clip, other).score for other in MOTIONS if other != name) > 0.1


def test_true_identity_is_recognised():
    generator = torch.Generator().manual_seed(2)
    sprites = sprite_bank().sprites
    for target in [*range(0, len(sprites), 29), *range(len(sprites) - len(FIGURES), len(sprites))]:
        clip = signed(world.draw_clip(sprites[target], "circle", "sky", generator))
        score = score_identity(clip, target)
        assert score.best == target
        assert score.score == pytest.approx(1, abs=1e-3)
        first, second = sprite_likeness(clip).mean(0).topk(2).values
        assert first > second


def test_empty_video_scores_nothing():
    blank = torch.zeros(9, 3, 32, 32)
    assert score_motion(blank, "circle").score == 0
    assert score_identity(blank, 0).score == 0


def test_wrong_motion_scores_low():
    clip = signed(world.draw_clip(FIGURES["vex"], "left", "sand", torch.Generator().manual_seed(0)))
    assert score_motion(clip, "right").score < 0.1


def test_held_out_things_are_held_out():
    assert not {*TEST_MOTIONS, *TUNING_MOTIONS} & {*BASE_MOTIONS}
    assert not {*TEST_MOTIONS} & {*TUNING_MOTIONS}
    assert not {*TEST_IDENTITIES} & {*TUNING_IDENTITIES}
    generator = torch.Generator().manual_seed(0)
    named = {(figure.body, figure.body_ink, figure.mark_ink) for figure in FIGURES.values()}
    drawn = {(figure.body, figure.body_ink, figure.mark_ink) for figure in (random_figure(generator) for _ in range(2000))}
    assert len(drawn) > 300
    assert not named & drawn


@pytest.mark.parametrize("name", list(MOTIONS))
@pytest.mark.parametrize("num_frames", [2, 5, 9, 17])
def test_paths_stay_inside(name, num_frames):
    generator = torch.Generator().manual_seed(3)
    frames = world.draw_clip(FIGURES["zol"], name, "white", generator, num_frames)
    assert frames.shape == (num_frames, 32, 32, 3)
    assert canonical_path(name, num_frames).abs().max() <= 8


def test_text_tells_order_apart():
    assert embed_text("").abs().sum() == 0
    assert embed_text("a red square").shape == (MIN_TOKENS, 128)
    assert len(embed_text(" ".join(["word"] * 40))) == 40
    assert torch.equal(embed_text("Red *"), embed_text("red *"))
    assert not torch.equal(embed_text("red with blue").sum(0), embed_text("blue with red").sum(0))


def test_codec_carries_unseen_figures():
    base, generator = load_base("toyworld"), torch.Generator().manual_seed(4)
    sprites = sprite_bank().sprites
    with base.encoders(), torch.no_grad():
        for figure in FIGURES.values():
            clip = signed(world.draw_clip(figure, "spiral", "pink", generator))
            decoded = base.decode_latents(base.encode_frames(clip))
            assert (decoded - clip).square().mean() < 0.02  # 23 dB
            assert score_identity(decoded, sprites.index(figure)).best == sprites.index(figure)


def test_trial_files_are_what_they_say(tmp_path):
    trial = Trial("vex", "spiral", seed=2)
    trial.write_photos(tmp_path / "photos")
    trial.write_clips(tmp_path / "clips")
    assert len(list((tmp_path / "photos").glob("*.png"))) == len(list((tmp_path / "photos").glob("*.txt"))) == 5
    assert all("*" in path.read_text() for path in (tmp_path / "photos").glob("*.txt"))
    manifest = scan_motion(tmp_path / "clips", None, (32, 32), 9, 10.0)
    assert len(manifest.items) == 6
    for item in manifest.items:
        frames, _ = item.load()
        assert len(frames) == 9
        assert score_motion(frames, "spiral").best == "spiral"


def test_trial_in_memory_is_what_it_writes(tmp_path):
    trial = Trial("nim", "zigzag", seed=5)
    trial.write_photos(tmp_path / "photos")
    trial.write_clips(tmp_path / "clips")
    for example, suffix, folder in [
        *((photo, "png", "photos") for photo in trial.photos()),
        *((clip, "gif", "clips") for clip in trial.clips()),
    ]:
        path = tmp_path / folder / f"{example.name}.{suffix}"
        with Image.open(path) as image:
            pictures = [numpy.array(picture.convert("RGB")) for picture in ImageSequence.Iterator(image)]
        assert numpy.array_equal(example.frames.numpy(), numpy.stack(pictures))
        assert path.with_suffix(".txt").read_text(encoding="utf-8") == example.caption
    assert trial.photos()[0].frames.shape == (1, PHOTO_CELLS, PHOTO_CELLS, 3)
    assert torch.equal(trial.clips()[0].frames, Trial("nim", "zigzag", seed=5).clips()[0].frames)
    assert not torch.equal(trial.clips()[0].frames, Trial("nim", "zigzag", seed=6).clips()[0].frames)


def test_every_held_out_motion_makes_a_trial():
    assert {*HELD_OUT_MOTIONS} == {*TEST_MOTIONS, *TUNING_MOTIONS}
    for motion in HELD_OUT_MOTIONS:
        assert Trial("vex", motion).clips()
    with pytest.raises(InputError, match="no new motion"):
        Trial("vex", "circle")


def test_native_names_are_those_of_wan():
    weights = load_weights("transformer")
    native = native_weights(weights)
    assert len(native) == len(weights)
    assert not [name for name in native if any(word in name for word in ("attn1", "attn2", "to_", "net", "embedder", "table", "proj_out"))]
    assert {name.split(".", 2)[2] for name in native if name.startswith("blocks.0.")} >= {"modulation", "norm3.weight", "self_attn.o.bias"}
    assert native["head.modulation"].shape == (1, 2, 256)
    assert native["blocks.1.modulation"].shape == (1, 6, 256)


def test_missing_weights_are_reported(tmp_path):
    with pytest.raises(InputError, match=r"transformer\.safetensors is missing"):
        load_weights("transformer", tmp_path)


def test_preview_colors_resemble_the_frame():
    codec = load_codec()
    factors, bias = fit_latent_colors(codec)
    clip = signed(world.draw_clip(FIGURES["pip"], "circle", "mint", torch.Generator().manual_seed(3)))
    with torch.no_grad():
        guess = codec.encode(clip).movedim(1, -1) @ factors + bias
    colors = torch.nn.functional.avg_pool2d(clip, 4).movedim(1, -1)
    assert (guess - colors).square().mean() < 0.05 * colors.var()


def test_toyworld_alone_needs_no_heavy_imports():
    code = (
        "import sys, dualreal_core.toyworld.trial, dualreal_core.toyworld.model, dualreal_core.toyworld.preview;"
        "assert not {'diffusers', 'imageio_ffmpeg', 'matplotlib', 'peft'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_retention():
    assert retention(0.5, 0.5, 0.9) == 0
    assert retention(0.9, 0.5, 0.9) == pytest.approx(1)
    assert retention(0.2, 0.0, 0.0) is None
    assert retention(0.1, 0.3, 0.1) is None
