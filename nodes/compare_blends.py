"""Compare Blends: previews of several blends beside either side alone, what each keeps of both, and the one that keeps most."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..dualreal_core.dataset.segments import evenly_spread
from ..dualreal_core.errors import InputError
from ..dualreal_core.method.blend import SharePlan
from ..dualreal_core.method.candidates import parse_candidates
from ..dualreal_core.method.curves import BlendCurves
from ..dualreal_core.metrics.preview_judge import RULE, RULES, Scores, best_of, judge
from ..dualreal_core.plots.contact_sheet import contact_sheet
from ..dualreal_core.plots.thumbnails import thumbnail_frames
from .previews import Stage, check_sides, note_on_end, one_side, sample_previews, smaller, stages_of, with_blend
from .progress import interruptible, told
from .rough_frames import rough_frames
from .sampled_part import latent_mark
from .types import CATEGORY, BlendType
from .videos import named

AUTOMATIC = "automatic"
FEWEST, MOST = 2, 5
DEFAULT_CANDIDATES = "movement first 0\nmovement first 0.4\nmovement first 0.8\neven"
REFERENCES = {"identity_only": "identity alone", "motion_only": "motion alone"}
STANDS_FOR = {"identity alone": "looks 1, movement 0", "motion alone": "movement 1, looks 0"}
DRAWN = "wired blend"
TAKEN = (*REFERENCES, *REFERENCES.values(), DRAWN)
SHEET_FRAMES = 9
LOOKED_AT = 8
"""Frames of each preview that a CLIP_VISION sees."""
Candidate = BlendCurves | SharePlan


@dataclass(frozen=True)
class Compared:
    """What previews showed.

    Attributes:
        scores: by name of the candidate.
        frames: (F, 3, h, w) in [-1, 1] of the references and candidates, some of each, as small as the sheet shows them.
        note: what is to be said of how they were sampled, or empty.
    """

    scores: Mapping[str, Scores]
    frames: Mapping[str, torch.Tensor]
    note: str


@dataclass(frozen=True)
class _Latest:
    guider: weakref.ref
    key: tuple
    compared: Compared


_latest: list[_Latest] = []
"""The last comparison, so that choosing by hand samples nothing again; it goes with its guider."""


class CompareBlends(io.ComfyNode):
    """Samples candidates, judges them and gives one."""

    CHOICES: ClassVar[list[str]] = [AUTOMATIC, *map(str, range(1, MOST + 1))]

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealCompareBlends",
            display_name="Compare Blends",
            category=CATEGORY,
            description="Samples short previews of several blends from the same noise, scores what each keeps of movement and looks "
            "against either side alone, and proposes one.",
            is_output_node=True,
            search_aliases=["dualreal", "blend sheet", "xy plot", "choose blend", "preview blends"],
            inputs=[
                io.Noise.Input("noise", tooltip="As for SamplerCustomAdvanced: all previews start from the same noise."),
                io.Guider.Input(
                    "guider",
                    tooltip="As for SamplerCustomAdvanced; its MODEL comes from Blend Two LoRAs or Apply StageBlender. Of two experts that "
                    "of the high-noise model.",
                ),
                io.Sampler.Input("sampler", tooltip="As for SamplerCustomAdvanced."),
                io.Sigmas.Input("sigmas", tooltip="As for SamplerCustomAdvanced. Of two experts those of the high-noise model, or all."),
                io.Latent.Input("latent_image", tooltip="As for SamplerCustomAdvanced. Of a batch the mean is judged."),
                io.String.Input(
                    "candidates", default=DEFAULT_CANDIDATES, multiline=True,
                    tooltip="Two to five blends, one a line: a preset, 'movement first' with the identity's weight in noise, or curves "
                    "('late = identity sigma 1:0.4 0:1.4; motion sigma 1:1.2 0:0.6').",
                ),
                io.Int.Input(
                    "steps", default=12, min=0, max=100,
                    tooltip="Most steps of a preview: of more sigmas, so many are taken evenly. 0 takes all, as the video itself.",
                ),
                io.Float.Input(
                    "size", default=1.0, min=0.25, max=1.0, step=0.05,
                    tooltip="Share of the video's width and height for the previews, 0.25 to 1. Smaller ones are faster and tell less.",
                ),
                io.Float.Input(
                    "length", default=1.0, min=0.1, max=1.0, step=0.05,
                    tooltip="Share of the video's frames for the previews, 0.1 to 1. The movement must still show.",
                ),
                io.Combo.Input(
                    "choice", options=cls.CHOICES, default=AUTOMATIC,
                    tooltip="'automatic' gives the blend that keeps most of both; a number gives that line's. Changing it samples nothing "
                    "again.",
                ),
                io.Combo.Input(
                    "rule", options=list(RULES), default=RULE, advanced=True,
                    tooltip="What 'automatic' goes by: the mean of both scores, each from 0 to 1, or the smaller of both.",
                ),
                BlendType.Input("blend", optional=True, tooltip=f"A further candidate, '{DRAWN}', as from Blend Curves or Schedule Blend."),
                io.Vae.Input(
                    "vae", optional=True,
                    tooltip="Decodes the frames on the sheet. Without it they are as rough as previews while sampling.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="Judges looks by embeddings of decoded frames, so it needs vae. Without it latents tell, more roughly.",
                ),
                io.Guider.Input("low_noise_guider", optional=True, tooltip="For two experts (Wan 2.2): that of the low-noise model."),
                io.Sigmas.Input(
                    "low_noise_sigmas", optional=True,
                    tooltip="For two experts: those of the low-noise model, as from SplitSigmas. Without them 'sigmas' is split where the "
                    "experts switch.",
                ),
            ],
            outputs=[
                BlendType.Output(display_name="blend", tooltip="The blend that was chosen, for Blend Two LoRAs or Apply StageBlender."),
                io.Image.Output(display_name="sheet", tooltip="A row of frames for each preview, with its scores."),
                io.String.Output(display_name="data", tooltip="JSON: scores and curves of each candidate, what is proposed and chosen."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, noise, guider, sampler, sigmas, latent_image, candidates, steps, size, length, choice, rule, blend=None, vae=None,
        clip_vision=None, low_noise_guider=None, low_noise_sigmas=None,
    ) -> io.NodeOutput:  # fmt: skip
        blends: dict[str, Candidate] = dict(parse_candidates(candidates))
        taken = next((name for name in blends if name in TAKEN), None)
        if taken is not None:
            raise InputError(f"A candidate cannot be named {taken!r}: give it another name.")
        if blend is not None:
            blends[DRAWN] = blend
        if not FEWEST <= len(blends) <= MOST:
            raise InputError(f"There are {len(blends)} candidates: give {FEWEST} to {MOST}, one a line, a wired blend among them.")
        if choice != AUTOMATIC and int(choice) > len(blends):
            raise InputError(f"choice is {choice}, and there are {len(blends)} candidates: choose one of them, or '{AUTOMATIC}'.")
        if clip_vision is not None and vae is None:
            raise InputError("clip_vision judges decoded frames: wire the model's VAE into vae as well.")
        stages = stages_of(guider, sigmas, low_noise_guider, low_noise_sigmas, steps)
        check_sides(stages)
        settings = (candidates, str(blend), size, length, *_marks(latent_image), *(tuple(stage.sigmas.tolist()) for stage in stages))
        parts = [weakref.ref(one) for one in (vae, clip_vision, *(stage.guider for stage in stages)) if one is not None]
        key = (noise, sampler, *settings, *parts)
        compared = next((one.compared for one in _latest if one.guider() is guider and one.key == key), None)
        if compared is None:
            changes = {name: one_side(role) for name, role in zip(REFERENCES.values(), ("identity", "motion"), strict=True)}
            changes |= {name: with_blend(blend) for name, blend in blends.items()}
            latent, note = smaller(latent_image, stages, size, length)
            videos = sample_previews(noise, stages, sampler, latent, changes, cls.hidden.unique_id)
            notes = " ".join(filter(None, (note, note_on_end(stages))))
            compared = _judged(videos, list(blends), stages, vae, clip_vision, notes)
            _latest[:] = [_Latest(weakref.ref(guider, lambda _: _latest.clear()), key, compared)]
        proposed = best_of(compared.scores, rule) or next(iter(blends))
        chosen = proposed if choice == AUTOMATIC else list(blends)[int(choice) - 1]
        sheet = _sheet(compared, proposed, chosen)
        text = _told(compared, proposed, chosen, rule)
        curves = {name: {"curves": str(blend), **vars(compared.scores[name])} for name, blend in blends.items()}
        data = json.dumps({"candidates": curves, "rule": rule, "proposed": proposed, "chosen": chosen}, indent=1)
        shown = {**ui.PreviewImage(sheet, cls=cls).as_dict(), **told(text).as_dict()}
        return io.NodeOutput(blends[chosen], sheet, data, ui=shown)


def _marks(latent: Mapping[str, object]) -> list[str]:
    """Tell a LATENT from others."""
    tensors = {name: value for name, value in latent.items() if isinstance(value, torch.Tensor) or hasattr(value, "is_nested")}
    parts = {name: value.unbind() if value.is_nested else [value] for name, value in tensors.items()}
    return [f"{name} {[tuple(part.shape) for part in parts[name]]} {latent_mark(value)}" for name, value in tensors.items()]


def _judged(videos: Mapping[str, torch.Tensor], names: list[str], stages: list[Stage], vae, clip_vision, note: str) -> Compared:
    """videos: latents (V, C, F, h, w) of the references and candidates by name."""
    patcher = stages[-1].guider.model_patcher
    frames = {name: _frames(video, patcher, vae) for name, video in videos.items()}
    references = {name: videos[shown] for name, shown in REFERENCES.items()}
    embeddings = None
    if clip_vision is not None:
        keys = {shown: name for name, shown in REFERENCES.items()}
        embeddings = {keys.get(name, name): _embedded(clip_vision, shown) for name, shown in frames.items()}
    scores = judge({name: videos[name] for name in names}, **references, embeddings=embeddings)
    some = {name: thumbnail_frames(shown[evenly_spread(len(shown), min(len(shown), SHEET_FRAMES))]) for name, shown in frames.items()}
    return Compared(scores, some, note)


def _frames(video: torch.Tensor, patcher, vae) -> torch.Tensor:
    """Frames (F, 3, H, W) in [-1, 1] of the first video, decoded where there is a VAE."""
    if vae is None:
        return rough_frames(video[0], patcher.model.latent_format)
    model = getattr(vae, "first_stage_model", None)
    with named("vae cannot decode the previews", "wire the VAE of this model"), interruptible(model):
        decoded = vae.decode(patcher.model.latent_format.process_out(video[:1]))
    return decoded.reshape(-1, *decoded.shape[-3:])[..., :3].movedim(-1, 1).float().cpu() * 2 - 1


def _embedded(clip_vision, frames: torch.Tensor) -> torch.Tensor:
    """(N, D) of some frames (F, 3, H, W) in [-1, 1]."""
    model = getattr(clip_vision, "model", None)
    seen = frames[evenly_spread(len(frames), min(len(frames), LOOKED_AT))].movedim(1, -1) / 2 + 0.5
    with named("clip_vision cannot encode the previews", "wire a CLIP or DINOv2 encoder of Load CLIP Vision"), interruptible(model):
        embeddings = clip_vision.encode_image(seen.clamp(0, 1), crop=True)["image_embeds"].float().cpu()
    return embeddings.mean(1) if embeddings.ndim == 3 else embeddings


def _sheet(compared: Compared, proposed: str, chosen: str) -> torch.Tensor:
    """(1, H, W, 3) in [0, 1]"""
    numbers = {name: index for index, name in enumerate(compared.scores, 1)}
    rows = []
    for name, frames in compared.frames.items():
        if name not in numbers:
            rows.append((name, STANDS_FOR[name], frames))
            continue
        marks = [word for word, one in (("proposed", proposed), ("chosen", chosen)) if one == name]
        told = [f"{role} {value:.2f}" for role, value in _by_role(compared.scores[name]).items() if value is not None]
        rows.append((f"{numbers[name]}: {name}", ", ".join(told + marks), frames))
    sheet = contact_sheet(rows, SHEET_FRAMES)
    return torch.from_numpy(np.asarray(sheet.convert("RGB"), dtype=np.float32) / 255)[None]


def _by_role(scores: Scores) -> dict[str, float | None]:
    return {"motion": scores.movement, "identity": scores.looks}


def _told(compared: Compared, proposed: str, chosen: str, rule: str) -> str:
    """The table of scores as text, and what was chosen."""
    lines = [
        f"{index}: {name}: movement {_shown(scores.movement)}, looks {_shown(scores.looks)}"
        for index, (name, scores) in enumerate(compared.scores.items(), 1)
    ]
    found = list(compared.scores.values())
    if all(scores.movement is None for scores in found):
        lines.append("The motion shows in no track of the previews, so movement is not judged: look at the sheet.")
    if all(scores.looks is None for scores in found):
        lines.append("The looks of both sides hardly differ in the previews, so looks are not judged: look at the sheet.")
    if best_of(compared.scores, rule) is None:
        lines.append(f"Nothing could be judged, so the first candidate is given: {proposed}.")
    else:
        lines.append(f"Proposed by the {rule} of both: {proposed}.")
    if chosen != proposed:
        lines.append(f"Chosen by hand: {chosen}.")
    return "\n".join(filter(None, (*lines, compared.note)))


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


NODES: list[type[io.ComfyNode]] = [CompareBlends]
