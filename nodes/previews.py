"""Short samplings of one graph with other weights of its pairs: from the same noise, through the sampler as it is wired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.nested_tensor
import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher

from ..dualreal_core.dataset.segments import evenly_spread
from ..dualreal_core.errors import InputError
from ..dualreal_core.families.base_record import expert_boundary
from ..dualreal_core.method.blend import SharePlan
from ..dualreal_core.method.curves import BlendCurves
from ..dualreal_core.method.pair import ROLES, Role
from ..dualreal_core.plots.contact_sheet import contact_sheet
from .patching import AppliedPair, applied_pairs, diffusion_model, exchanged
from .progress import Progress
from .rough_frames import rough_frames

if TYPE_CHECKING:
    from comfy.samplers import CFGGuider

STRIP_FRAMES = 5
SIZED = ("area", "mask", "control", "gligen")
"""Entries of a prompt that are about places of the latent."""
Change = Callable[[AppliedPair], AppliedPair]


@dataclass(frozen=True)
class Stage:
    """A part of denoising: a guider and the sigmas (S + 1,) that it is sampled at."""

    guider: CFGGuider
    sigmas: torch.Tensor


def stages_of(
    guider: CFGGuider, sigmas: torch.Tensor, low_guider: CFGGuider | None, low_sigmas: torch.Tensor | None, steps: int
) -> list[Stage]:
    """One stage, or one for each of two experts, in at most so many steps; 0 takes all.

    Raises:
        InputError: there is nothing to sample, it is not known where the experts switch, or one of them has no guider.
    """
    if low_guider is None:
        if low_sigmas is not None:
            raise InputError("low_noise_sigmas are of the low-noise model: wire its guider into low_noise_guider, or leave them out.")
        parts = [(guider, sigmas)]
    else:
        if low_sigmas is None:
            sigmas, low_sigmas = _split(sigmas, expert_boundary(diffusion_model(guider.model_patcher)))
        parts = [(guider, sigmas), (low_guider, low_sigmas)]
    counts = [max(len(own) - 1, 0) for _, own in parts]
    if not all(counts):
        raise InputError(
            "There are no steps to sample: wire SIGMAS of two or more values, of two experts some on either side."
        )
    wanted = counts
    if steps and steps < sum(counts):
        first = min(max(1, round(steps * counts[0] / sum(counts))), max(1, steps - 1)) if len(parts) > 1 else steps
        wanted = [first, max(1, steps - first)][: len(parts)]
    return [Stage(one, own[evenly_spread(len(own), count + 1)]) for (one, own), count in zip(parts, wanted, strict=True)]


def note_on_end(stages: list[Stage]) -> str:
    """A sentence where previews stop in noise, as by the sigmas of one of two experts alone; else empty."""
    end = float(stages[-1].sigmas[-1])
    if end <= 0:
        return ""
    return f"The previews end in noise, at sigma {end:.3g}, so scores tell little: give sigmas down to 0, of two experts both guiders."


def check_sides(stages: list[Stage]) -> None:
    """Raises InputError where no pair acts, or both sides are not there to be compared."""
    carried = [applied for stage in stages for patcher in _patchers(stage.guider).values() for applied in applied_pairs(patcher)]
    if not carried:
        raise InputError("The guider's MODEL carries no pair: wire Blend Two LoRAs or Apply StageBlender between loader and guider.")
    for role in ROLES:
        if not any(_has(applied, role) for applied in carried):
            raise InputError(f"The guider's MODEL has no {role} that acts, so there are no two sides to weigh: give a pair of both.")


def with_blend(blend: BlendCurves | SharePlan) -> Change:
    """Every pair of a MODEL by this blend."""
    return lambda applied: replace(applied, blend=blend.blend(applied.pair.config), parts=[])


def one_side(role: Role) -> Change:
    """Of every pair of a MODEL this side alone, at its even weight."""

    def change(applied: AppliedPair) -> AppliedPair:
        strengths = replace(
            applied.strengths, **{one: getattr(applied.strengths, one) if one == role and _has(applied, one) else 0.0 for one in ROLES}
        )
        return replace(applied, strengths=strengths, blend=BlendCurves().blend(applied.pair.config), parts=[])

    return change


def smaller(latent: Mapping[str, object], stages: list[Stage], size: float, length: float) -> tuple[dict[str, object], str]:
    """A LATENT of a share of the width and height and of the frames, and a sentence where it stays as it is.

    It stays where it holds something, or where the prompt holds something of its size.
    """
    samples = comfy.sample.fix_empty_latent_channels(
        stages[0].guider.model_patcher,
        latent["samples"],
        latent.get("downscale_ratio_spacial"),
        latent.get("downscale_ratio_temporal"),
    )
    whole = {name: value for name, value in latent.items() if not name.startswith("downscale_ratio")} | {"samples": samples}
    if size >= 1 and length >= 1:
        return whole, ""
    parts = samples.unbind() if samples.is_nested else [samples]
    if "noise_mask" in latent or any(bool(part.any()) for part in parts):
        return whole, "Sampled at full size: the latent holds a picture or a mask."
    if any(_is_sized(prompts) for stage in stages for prompts in stage.guider.original_conds.values()):
        return whole, "Sampled at full size: the prompt holds pictures or places of that size."
    video, shape = parts[0], list(parts[0].shape)
    shape[-2:] = [min(side, max(4, 2 * round(side * size / 2))) for side in shape[-2:]]
    if len(shape) == 5 and len(parts) == 1:  # sound is as long as its video
        shape[2] = 1 + round((shape[2] - 1) * length)
    small = video.new_zeros(shape)
    return whole | {"samples": comfy.nested_tensor.NestedTensor([small, *parts[1:]]) if len(parts) > 1 else small}, ""


def sample_previews(
    noise: object, stages: list[Stage], sampler: object, latent: Mapping[str, object], changes: Mapping[str, Change], node_id: str
) -> dict[str, torch.Tensor]:
    """Latents (V, C, F, h, w) of each change, the video's alone and as the model sees them; experts take turns once.

    Raises:
        InputError: a preview holds values that are no numbers.
    """
    view = _View(node_id, len(changes) * sum(len(stage.sigmas) - 1 for stage in stages), "")
    made = dict.fromkeys(changes, latent)
    for number, stage in enumerate(stages):
        for name, change in changes.items():
            view.begin(name, stage.guider.model_patcher)
            with _exchanged_in(stage.guider, change):
                made[name] = {**made[name], "samples": _sample(noise, stage, sampler, made[name], number == 0, view.step)}
    videos = {name: _video_of(one["samples"], stages[-1].guider.model_patcher) for name, one in made.items()}
    broken = next((name for name, video in videos.items() if not video.isfinite().all()), None)
    if broken is not None:
        raise InputError(f"The preview {broken!r} holds values that are no numbers (NaN): lower the strengths or the blend's weights.")
    return videos


def _sample(
    noise: object, stage: Stage, sampler: object, latent: Mapping[str, object], is_first: bool, callback: Callable[..., None]
) -> torch.Tensor:
    added = noise.generate_noise(latent) if is_first else comfy.sample.prepare_empty_noise(latent["samples"])
    samples = stage.guider.sample(
        added, latent["samples"], sampler, stage.sigmas, denoise_mask=latent.get("noise_mask"), callback=callback, disable_pbar=True,
        seed=noise.seed,
    )  # fmt: skip
    return samples.to(comfy.model_management.intermediate_device())


@contextmanager
def _exchanged_in(guider: CFGGuider, change: Change) -> Iterator[None]:
    """The guider's MODELs with changed pairs, for as long as this lasts."""
    own = _patchers(guider)
    for name, patcher in own.items():
        setattr(guider, name, exchanged(patcher, change))
    try:
        yield
    finally:
        for name, patcher in own.items():
            setattr(guider, name, patcher)


def _patchers(guider: CFGGuider) -> dict[str, ModelPatcher]:
    return {name: value for name, value in vars(guider).items() if isinstance(value, ModelPatcher) and applied_pairs(value)}


def _has(applied: AppliedPair, role: Role) -> bool:
    return role in applied.pair.sides and getattr(applied.strengths, role) > 0


def _split(sigmas: torch.Tensor, boundary: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    if boundary is None:
        raise InputError("It is not known at which noise these two models take turns: wire low_noise_sigmas, as from SplitSigmas.")
    switch = int((sigmas >= boundary).sum())
    return sigmas[: switch + 1], sigmas[switch:]


def _is_sized(value: object, key: str = "") -> bool:
    """Whether an entry of a prompt is about places of the latent, as text is not."""
    if key in SIZED:
        return value is not None
    if isinstance(value, torch.Tensor):
        return value.ndim > 3
    if isinstance(value, Mapping):
        return any(_is_sized(inner, str(name)) for name, inner in value.items())
    return isinstance(value, (list, tuple)) and any(_is_sized(inner) for inner in value)


def _video_of(samples: torch.Tensor, patcher: ModelPatcher) -> torch.Tensor:
    """(V, C, F, h, w) float32 on the CPU, as the DiT sees it."""
    video = patcher.model.latent_format.process_in((samples.unbind()[0] if samples.is_nested else samples).float())
    return (video if video.ndim == 5 else video.unsqueeze(2)).cpu()


class _View(Progress):
    """Progress over all previews, with a strip of frames of the one at work."""

    def begin(self, name: str, patcher: ModelPatcher) -> None:
        self.doing, self.patcher = f"Preview of {name}", patcher

    def step(self, step: int, denoised: torch.Tensor, *_: object) -> None:
        """After each step of each preview. denoised: (V, C, F, h, w), or nested."""
        video = denoised.unbind()[0] if denoised.is_nested else denoised
        frames = rough_frames((video if video.ndim == 5 else video.unsqueeze(2))[0], self.patcher.model.latent_format)
        self.advance(1, contact_sheet([(self.doing, "", frames)], STRIP_FRAMES))
