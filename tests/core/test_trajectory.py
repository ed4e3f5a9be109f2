"""Parity with the published implementation over several steps: training with its optimizer, and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from golden import Golden, relative_l2

from dualreal_core.bases.denoising import denoise
from dualreal_core.bases.folder_layouts import cogvideox_predict
from dualreal_core.dataset import PreparedItem
from dualreal_core.families import COGVIDEOX
from dualreal_core.method.attach import Attachment
from dualreal_core.objective import VPrediction
from dualreal_core.storage import load_pair
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

ROLE_OF_BATCH = {1: "identity", 3: "motion"}


class GoldenObjective(VPrediction):
    """Gives the timesteps and the noise of the golden step instead of random ones."""

    def __init__(self, golden: Golden, alphas_cumprod: tuple[float, ...]) -> None:
        super().__init__(alphas_cumprod)
        object.__setattr__(self, "golden", golden)

    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        return golden_step(self.golden, batch_size)["timesteps"]

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return super().add_noise(latents, golden_step(self.golden, len(latents))["noise"].transpose(1, 2), timestep)

    def loss_per_sample(self, model_output, latents, noise, timestep, mask=None) -> torch.Tensor:
        noise = golden_step(self.golden, len(latents))["noise"].transpose(1, 2)
        return super().loss_per_sample(model_output, latents, noise, timestep, mask)


class GoldenBase:
    """The golden transformer with the golden rotary tables, which the reference makes for its own pixel grid."""

    family = COGVIDEOX
    compute_dtype = torch.float32

    def batch_texts(self, texts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(texts)

    def __init__(self, golden: Golden) -> None:
        from diffusers import CogVideoXDPMScheduler

        self.golden, self.transformer = golden, golden.transformer()
        self.scheduler = CogVideoXDPMScheduler.from_pretrained(golden.folder / "scheduler")
        self.objective = GoldenObjective(golden, tuple(self.scheduler.alphas_cumprod.tolist()))

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        inputs, suffix = self.golden.tensors("inputs"), "_1frame" if latents.shape[2] == 1 else ""
        return self.transformer(
            latents.transpose(1, 2),
            text,
            timestep,
            image_rotary_emb=(inputs[f"rotary_cos{suffix}"], inputs[f"rotary_sin{suffix}"]),
            return_dict=False,
        )[0].transpose(1, 2)


def golden_step(golden: Golden, batch_size: int) -> dict[str, torch.Tensor]:
    role = ROLE_OF_BATCH[batch_size]
    return {name.partition(".")[2]: value for name, value in golden.tensors("train_steps").items() if name.startswith(f"{role}.")}


def golden_items(golden: Golden, batch_size: int) -> list[PreparedItem]:
    step = golden_step(golden, batch_size)
    conditions = step.get("y_image", [None] * batch_size)
    return [
        PreparedItem(latents.transpose(0, 1), text, shown, None, "")
        for latents, text, shown in zip(step["latents"], step["prompt_embeds"], conditions, strict=True)
    ]


def change_norms(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, float]:
    """Norm of the change per group of the reference; its adapter groups contain their condition layers."""

    def belongs(name: str, group: str) -> bool:
        if group == "controller":
            return name.startswith("controller.")
        if group == "motion_condition":
            return name.startswith("sides.motion.") and ".condition_proj." in name
        role, site, _ = group.split("_")
        return name.startswith(f"sides.{'identity' if role == 'id' else role}.") and f"-{site}." in name

    groups = [f"{role}_{site}_adapter" for role in ("id", "motion") for site in ("attn", "ff")] + ["motion_condition", "controller"]
    squares = {name: float((after[name].double() - before[name].double()).square().sum()) for name in before}
    return {group: sum(square for name, square in squares.items() if belongs(name, group)) ** 0.5 for group in groups}


def test_trajectory(golden):
    expected = golden.table("train_steps.json")["trajectory"]
    reference = expected["optimizer"]
    settings = TrainSettings(warmup_steps=2, steps=10, identity_batch=1, motion_batch=3)
    assert (reference["name"], reference["warmup"], reference["total"], reference["cycles"]) == ("AdamW", 2, 10, 1)
    ours = (settings.learning_rate, [settings.beta1, settings.beta2], settings.eps, settings.weight_decay, settings.clip_norm)
    assert ours == tuple(reference[name] for name in ("lr", "betas", "eps", "weight_decay", "max_grad_norm")), (
        "defaults are not the published"
    )
    base, (pair, _) = GoldenBase(golden), load_pair(golden.folder / "adapter.safetensors")
    before = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    state = RunState.start(pair, settings)
    state.next_batch = lambda role, items, batch_size: list(items)
    items = {"identity": golden_items(golden, 1), "motion": golden_items(golden, 3)}
    with Attachment(base.transformer, pair) as attachment:
        for one in expected["steps"]:
            forced = replace(settings, motion_ratio=1.0 if one["kind"] == "motion" else 0.0)
            done = next(train(base, attachment, items, forced, state))
            assert done.role == one["kind"]
            assert done.loss == pytest.approx(one["loss"], rel=1e-4)
            assert done.gradient_norm == pytest.approx(one["grad_norm_before_clip"], rel=1e-3)
            assert done.learning_rate == pytest.approx(one["lr"], rel=1e-6, abs=1e-15)
    assert change_norms(before, pair.state_dict()) == pytest.approx(expected["parameter_change_norm"], rel=1e-3)


def test_schedule(golden):
    expected = golden.table("train_steps.json")["shipped_lr_schedule"]
    settings = TrainSettings()
    assert (settings.warmup_steps, settings.steps) == (200, 1000)
    for step, rate in expected.items():
        assert settings.rate("motion") * settings.schedule(int(step)) == pytest.approx(rate, rel=1e-6, abs=1e-15), step


@torch.no_grad()
def test_sampling(golden, monkeypatch):
    expected = golden.tensors("sampling")
    noises: Iterator[torch.Tensor] = iter(expected["scheduler_noises"])
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_dpm_cogvideox.randn_tensor", lambda shape, **options: same_shape(next(noises), shape)
    )
    base, (pair, _) = GoldenBase(golden), load_pair(golden.folder / "adapter.safetensors")
    text = torch.cat([expected["negative_prompt_embeds"], expected["prompt_embeds"]])
    start = expected["latents_start"].transpose(1, 2)
    timesteps, trajectory = [], []

    def guided(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        trajectory.append(latents)  # this scheduler gives the model its sample as it is
        timesteps.append(int(timestep))
        negative, positive = base.predict(torch.cat([latents, latents]), timestep.expand(2), text).float().chunk(2)
        return negative + 6 * (positive - negative)

    with Attachment(base.transformer, pair) as attachment:
        attachment.condition = expected["y_image"].squeeze(1)
        trajectory.append(denoise(base.scheduler, guided, start, 5, torch.Generator(), frames_first=True))
    assert len(trajectory) == 6 and timesteps == expected["timesteps"].tolist()
    for index, latents in enumerate(trajectory[1:]):
        assert relative_l2(latents.transpose(1, 2), expected["latents_after_step"][index]) < 1e-4, index
    assert relative_l2(trajectory[-1].transpose(1, 2), expected["latents_end"]) < 1e-4
    assert next(noises, None) is None, "fewer noises were drawn than by the reference"


def same_shape(noise: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    assert noise.shape == tuple(shape)
    return noise


@torch.no_grad()
def test_folder_layout_makes_the_same_rotary_tables(golden):
    """`predict` of a model folder computes its own; they are the golden ones where the base grid is that of the reference."""
    base = GoldenBase(golden)
    base.transformer.register_to_config(sample_height=60, sample_width=90)
    latents, timestep, text = (golden.tensor("inputs", name) for name in ("hidden_states", "timestep", "encoder_hidden_states"))
    output = cogvideox_predict(base.transformer, latents.transpose(1, 2), timestep, text).transpose(1, 2)
    assert relative_l2(output, golden.tensor("outputs", "base")) < 1e-5
