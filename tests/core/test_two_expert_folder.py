"""A model folder with two experts: against diffusers' own pipeline, and from end to end by the command line."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from tiny import fill, is_same, weights_hash
from two_expert_folders import BOUNDARY, edit_json, two_experts

from dualreal_core.api import generate
from dualreal_core.bases import load_base
from dualreal_core.bases.diffusers_folder import DiffusersFolderBase
from dualreal_core.bases.two_experts import TwoExpertBase, attach, expert_fields
from dualreal_core.cli import main
from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import BlendRecord
from dualreal_core.method.experts import expert_of
from dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_core.sampling import SamplingSettings, sample
from dualreal_core.storage import load_pair
from dualreal_core.toyworld.trial import Trial

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_tiny_models.py"
SETTINGS = SamplingSettings(num_frames=9, height=64, width=96, num_steps=6, guidance_scale=3.0, seed=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    return two_experts(runpy.run_path(str(SCRIPT))["make_tiny_models"](made, seed=0)["wan"], made / "wan22")


@pytest.fixture
def base(folder: Path) -> TwoExpertBase:
    return load_base(folder)


@pytest.fixture
def copy_of(folder: Path, tmp_path: Path) -> Callable[[], Path]:
    return lambda: Path(shutil.copytree(folder, tmp_path / "copy"))


def filled_pair(base: TwoExpertBase, **settings: object) -> AdapterPair:
    kinds = {"identity_kind": "lora", "motion_kind": "lora", "rank": 2, "num_groups": 2, "learned_range": 0.4, "controller_dim": 4}
    return fill(new_pair(base.architecture, **{**kinds, **expert_fields(base), **settings}), spread=0.05)


def texts(base: TwoExpertBase) -> tuple[torch.Tensor, torch.Tensor]:
    with base.encoders():
        return base.encode_text("a robot jumps"), base.encode_text("")


@torch.no_grad()
def test_sampling_equals_the_pipeline(folder: Path, base: TwoExpertBase) -> None:
    """1e-4: batched guidance here, two calls in the pipeline."""
    pipeline = WanPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    text, negative = texts(base)
    start = torch.randn(1, *base.latent_shape(9, 64, 96), generator=torch.Generator().manual_seed(SETTINGS.seed))
    expected = pipeline(
        prompt_embeds=text[None], negative_prompt_embeds=negative[None], latents=start, height=64, width=96, num_frames=9,
        num_inference_steps=SETTINGS.num_steps, guidance_scale=SETTINGS.guidance_scale, output_type="latent",
    ).frames  # fmt: skip
    actual = sample(base, [text], negative, SETTINGS)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    alone = sample(base.experts[0], [text], negative, SETTINGS)
    assert not torch.allclose(actual, alone, atol=1e-2)


@torch.no_grad()
def test_the_expert_follows_from_the_noise_of_a_call(base: TwoExpertBase) -> None:
    """The boundary itself belongs to the first one, as in the pipeline."""
    latents, text = torch.randn(2, *base.latent_shape(1, 32, 32)), torch.randn(2, 8, 32)
    for timestep, index in ((1000.0, 0), (1000 * BOUNDARY, 0), (1000 * BOUNDARY - 1e-2, 1), (1.0, 1)):
        steps = torch.tensor([timestep, timestep])
        made = base.predict(latents, steps, text)
        assert base.current == index
        assert torch.equal(made, base.experts[index].predict(latents, steps, text))


@torch.no_grad()
def test_a_pair_acts_in_both_experts_by_its_parts(base: TwoExpertBase) -> None:
    """As each part would in its expert alone; what is recorded has a row for each call."""
    pair, (text, negative) = filled_pair(base), texts(base)
    attachment = attach(base, pair)
    attachment.record = BlendRecord()
    together = sample(base, [text], negative, SETTINGS, attachment)
    assert attachment.record.calls and len(attachment.record.calls) == SETTINGS.num_steps
    attachment.detach()
    parts = [Attachment(expert.transformer, expert_of(pair, index)) for index, expert in enumerate(base.experts)]

    class ByHand:
        """Sets both parts, with nothing of what is tested."""

        pair = parts[0].pair

        def __setattr__(self, name: str, value: object) -> None:
            for part in parts:
                setattr(part, name, value)

        def move_to(self, stage: float, noise_level: float) -> None:
            for part in parts:
                part.move_to(stage, noise_level)

        def start_over(self) -> None:
            pass

        def finish_call(self) -> None:
            pass

    assert torch.equal(together, sample(base, [text], negative, SETTINGS, ByHand()))
    for part in parts:
        part.detach()
    assert not torch.allclose(together, sample(base, [text], negative, SETTINGS), atol=1e-3)


@torch.no_grad()
def test_an_untrained_and_a_detached_pair_change_nothing(base: TwoExpertBase) -> None:
    (text, negative), before = texts(base), [weights_hash(expert.transformer) for expert in base.experts]
    plain = sample(base, [text], negative, SETTINGS)
    untrained = new_pair(base.architecture, identity_kind="lora", motion_kind="lora", rank=2, num_groups=2, **expert_fields(base))
    attachment = attach(base, untrained)
    assert torch.equal(sample(base, [text], negative, SETTINGS, attachment), plain)
    attachment.detach()
    attach(base, filled_pair(base)).detach()
    assert torch.equal(sample(base, [text], negative, SETTINGS), plain)
    assert [weights_hash(expert.transformer) for expert in base.experts] == before


@torch.no_grad()
def test_a_pair_for_one_dit_acts_in_both(base: TwoExpertBase) -> None:
    pair = filled_pair(base, experts=(), boundary=None)
    video = generate(base, pair, "a robot jumps", settings=SETTINGS)
    assert not torch.allclose(video, generate(base, None, "a robot jumps", settings=SETTINGS), atol=1e-3)


def test_one_expert_has_weights_at_a_time(base: TwoExpertBase) -> None:
    def has_weights() -> list[bool]:
        return [not next(expert.architecture.parameters()).is_meta for expert in base.experts]

    assert has_weights() == [False, False]
    latents, text = torch.randn(1, *base.latent_shape(1, 32, 32)), torch.randn(1, 8, 32)
    for timestep, expected in ((900.0, [True, False]), (100.0, [False, True]), (900.0, [True, False])):
        base.predict(latents, torch.tensor([timestep]), text)
        assert has_weights() == expected
    with base.encoders():
        assert has_weights() == [False, False]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: edit_json(folder / "model_index.json", boundary_ratio=None), "names no boundary_ratio between 0 and 1"),
        (lambda folder: edit_json(folder / "model_index.json", boundary_ratio=1.5), "names no boundary_ratio between 0 and 1"),
        (lambda folder: edit_json(folder / "model_index.json", boundary_ratio="high"), "names no boundary_ratio"),
        (lambda folder: shutil.rmtree(folder / "transformer_2"), "transformer_2/config.json is missing"),
        (lambda folder: next((folder / "transformer_2").glob("*.safetensors")).write_bytes(b""), "no complete safetensors file"),
    ],
)
def test_damaged_folders_are_refused(copy_of: Callable[[], Path], damage: Callable[[Path], object], words: str) -> None:
    folder = copy_of()
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        load_base(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_one_expert_of_a_folder_must_be_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"Wan 2.2 model of two experts: give it to load_base"):
        DiffusersFolderBase(folder)


def train(folder: Path, trial: Path, *options: object) -> int:
    data = ["--identity", str(trial / "photos"), "--motion", str(trial / "clips"), "--base", str(folder)]
    small = ["--size", "64x48", "--num-frames", "9", "--fps", "10", "--config", str(trial / "run.toml")]
    return main(["train", "--no-prompt-gate", *data, *small, *map(str, options)])


def test_train_resume_and_generate(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = Trial("tam", "box")
    trial.write_photos(tmp_path / "photos")
    trial.write_clips(tmp_path / "clips")
    for folder_of_data in ("photos", "clips"):
        for path in sorted(one for one in (tmp_path / folder_of_data).iterdir() if one.suffix != ".txt")[2:]:
            path.unlink()
            path.with_suffix(".txt").unlink(missing_ok=True)
    (tmp_path / "run.toml").write_text(
        "[train]\nexpert_steps = 2\nmotion_batch = 1\n"
        '[pair]\nrank = 2\nhas_controller = true\ncontroller_dim = 4\ntarget_layers = ["to_q"]\n'
        "[crops]\nnum_crops = 1\ncrop_margin = 0.0\n"
    )
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    options = ["--steps", 6, "--evaluate-every", 3]
    assert train(folder, tmp_path, *options, "--sample-every", 4, "--sample-prompt", "a figure * walks", "--out", whole) == 0
    said = capsys.readouterr().out
    assert f"Trains both experts in turns of 2 steps: the high-noise one at noise levels (sigma) {BOUNDARY:g} to 1" in said
    assert train(folder, tmp_path, *options, "--out", stopped, "--stop-after", 2) == 0
    assert train(folder, tmp_path, *options, "--out", stopped, "--resume") == 0
    (first, header), (second, _) = load_pair(whole), load_pair(stopped)
    assert is_same(dict(first.state_dict()), dict(second.state_dict()))
    assert first.config.experts == ("high-noise", "low-noise") and first.config.boundary == BOUNDARY
    assert header["training"]["expert_steps"] == 2 and len(header["base"]["low-noise"]["signature"])
    metrics = [path.read_text() for path in (Path(f"{one}.run") / "metrics.jsonl" for one in (whole, stopped))]
    assert metrics[0] == metrics[1] and len(metrics[0].splitlines()) == 8
    out = tmp_path / "video.mp4"
    size = ["--size", "64x48", "--num-frames", "9", "--steps", "4"]
    assert main(["generate", "--base", str(folder), "--pair", str(whole), "--prompt", "a figure * walks", *size, "--out", str(out)]) == 0
    assert out.exists() and json.loads((Path(f"{whole}.run") / "run.json").read_text())["pair"]["experts"]
