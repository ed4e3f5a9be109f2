"""Evaluate: how much of an identity and of a motion is in videos, and how steady they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import comfy.model_management
import numpy
import torch
from comfy_api.latest import Input, io, ui

from ..dualreal_core.errors import InputError
from ..dualreal_core.metrics.features import Models, References, VideoFeatures
from ..dualreal_core.metrics.motion import MAX_FRAMES, num_reference_frames, patch_grid, spread_indices
from ..dualreal_core.metrics.registry import METRICS
from ..dualreal_core.metrics.scores import measure
from ..dualreal_core.metrics.toyworld_metrics import TOYWORLD_METRICS, ToyworldReferences, ToyworldVideo, find_nearest
from ..dualreal_core.plots import score_table
from ..dualreal_core.toyworld.scores import sprite_bank
from .progress import Progress, interruptible
from .videos import clip_source, named, with_file_name

EMBEDDING, TOY_WORLD = "embedding", "toy world"
BATCH = 8
"""Frames that the image encoder sees at once; an interrupt waits no longer than one batch."""
METRICS_OF = {
    EMBEDDING: [metric for metric in METRICS if set(metric.needs) <= {"clip", "patches", "identity", "motion"}],
    TOY_WORLD: [*TOYWORLD_METRICS, *(metric for metric in METRICS if not metric.needs)],
}
COLUMNS = {
    EMBEDDING: {"identity": "clip_i", "motion": "motion_fidelity", "consistency": "temporal_consistency"},
    TOY_WORLD: {"identity": "sprite_likeness", "motion": "path_likeness", "consistency": "sprite_consistency"},
}
"""Heading in the table, and output, by metric."""


class Evaluate(io.ComfyNode):
    """Videos against identity and motion references."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealEvaluate",
            display_name="Evaluate",
            category="DualReal",
            description="Scores videos: likeness to an identity, likeness of movement to a motion, temporal consistency and flicker.",
            search_aliases=["score", "metrics", "CLIP-I", "compare videos", "benchmark"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="Decoded frames, as VAE Decode gives them: each item of the list is one video."),
                io.Image.Input("identity_references", tooltip="Images of the identity, of any size, as a list or a batch."),
                io.Video.Input("motion_references", tooltip="Clips of the motion; the scores against each of them are averaged."),
                io.Combo.Input(
                    "metric",
                    options=[EMBEDDING, TOY_WORLD],
                    default=EMBEDDING,
                    tooltip="embedding: any video, by the clip_vision. toy world: the embedded model's videos, exactly, without a model.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Image encoder for the metric 'embedding', CLIP or DINOv2. Scores of different encoders do not compare.",
                ),
                io.String.Input(
                    "names",
                    optional=True,
                    force_input=True,
                    tooltip="Row labels, one per video in the same order; 'video 1' and so on where nothing is wired.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="table", tooltip="Picture of the scores, a row per video; the best of each column is bold."),
                io.Float.Output(display_name="identity", tooltip="Of the last video: mean cosine with the identity references, -1 to 1."),
                io.Float.Output(display_name="motion", tooltip="Of the last video: 1 the same movement, about 0 an unrelated one."),
                io.Float.Output(display_name="consistency", tooltip="Of the last video: mean cosine of consecutive frames, -1 to 1."),
                io.String.Output(display_name="data", tooltip="All scores as JSON, with the values of every frame; null where undefined."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, images, identity_references, motion_references, metric, clip_vision=None, names=None) -> io.NodeOutput:
        videos = _checked("images", "video", images)
        photos = _checked("identity_references", "image", identity_references)
        num_frames = num_reference_frames(map(len, videos))
        motions = [_read_motion(index, video, num_frames) for index, video in enumerate(motion_references, start=1)]
        if all(len(motion) == 1 for motion in motions):
            raise InputError("motion_references holds no clip of two or more frames; wire at least one video of the motion.")
        labels, targets, nearest = _labels(names, len(videos)), {}, [{}] * len(videos)
        if metric[0] == TOY_WORLD:
            features = [ToyworldVideo(video, f"video {index}") for index, video in enumerate(videos, start=1)]
            references = ToyworldReferences(photos, motions)
            targets = {"identity_target": sprite_bank().names[references.sprite], "motion_target": references.motion}
            nearest = [find_nearest(video, references) for video in features]
        else:
            num_tracked = sum(min(len(video), MAX_FRAMES) for video in videos if len(video) > 1)
            models = Models(_Encoder(clip_vision, sum(map(len, videos + photos + motions)) + num_tracked, cls.hidden.unique_id))
            features = [VideoFeatures.of_images(models, video) for video in videos]
            references = References(models, photos, [VideoFeatures.of_images(models, motion) for motion in motions])
        scored = [
            {"name": label, "num_frames": len(video.frames), **asdict(measure(video, references, METRICS_OF[metric[0]])), **like}
            for label, video, like in zip(labels, features, nearest, strict=True)
        ]
        given = f"{_count(sum(map(len, photos)), 'identity image')}, {_count(len(motions), 'motion clip')}"
        table = _draw(scored, metric[0], given + (f" ({', '.join(targets.values())})" if targets else ""))
        data = json.dumps({"metric": metric[0], **targets, "videos": scored}, indent=1, allow_nan=False)
        last = (scored[-1]["scores"][name] or 0.0 for name in COLUMNS[metric[0]].values())
        return io.NodeOutput(table, *last, data, ui=ui.PreviewImage(table, cls=cls))


class _Encoder:
    """The wired CLIP_VISION, a batch at a time. Frames are (F, H, W, 3) in [0, 1]."""

    def __init__(self, clip_vision: list | None, num_frames: int, node_id: str) -> None:
        if not clip_vision or clip_vision[0] is None:
            raise InputError("Metric 'embedding' needs an image encoder; wire Load CLIP Vision into clip_vision.")
        self.model = clip_vision[0]
        self.progress = Progress(node_id, num_frames, "Looking at frames")

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """(F, D). Cropped at the centre, as CLIP itself was trained and its scores are published."""
        embeddings = self._encode(frames, "image_embeds", is_cropped=True)
        return embeddings.mean(1) if embeddings.ndim == 3 else embeddings  # ComfyUI gives no pooled one for SigLIP

    def tokens(self, frames: torch.Tensor) -> torch.Tensor:
        """(F, h, w, D). The whole frame, squeezed to a square: movement at its sides counts."""
        tokens = self._encode(frames, "penultimate_hidden_states", is_cropped=False)
        try:
            return patch_grid(tokens)
        except ValueError as problem:
            raise InputError(
                f"clip_vision gives {tokens.shape[1]} tokens, no square of patches; wire a CLIP or DINOv2 encoder."
            ) from problem

    def _encode(self, frames: torch.Tensor, name: str, is_cropped: bool) -> torch.Tensor:
        parts = []
        for batch in frames.split(BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            model = getattr(self.model, "model", None)
            with named("clip_vision cannot encode the frames", "wire a CLIP or DINOv2 encoder of Load CLIP Vision"), interruptible(model):
                parts.append(self.model.encode_image(batch, crop=is_cropped)[name].float())
            self.progress.advance(len(batch))
        encoded = torch.cat(parts)
        if not encoded.isfinite().all():
            raise InputError("clip_vision gives NaN for finite frames; load another image encoder or start ComfyUI with --fp32-text-enc.")
        return encoded


def _checked(name: str, noun: str, items: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """(F, H, W, 3) float each."""
    if not items or any(not len(item) for item in items):
        raise InputError(f"{name} holds {'an item without frames' if items else 'nothing'}; wire at least one {noun}.")
    for index, item in enumerate(items, start=1):
        broken = (~item.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        if broken:
            raise InputError(
                f"{name}: {noun} {index} holds NaN in frame {broken[0] + 1} of {len(item)}, so its sampling or decoding failed; "
                "lower the strengths or decode in fp32."
            )
    return [_rgb(item) for item in items]


def _read_motion(index: int, video: Input.Video, num_frames: int) -> torch.Tensor:
    """(F, H, W, 3), F at most num_frames."""
    name = with_file_name(f"motion_references: video {index}", video)
    source = clip_source(name, "", video)
    probe = source.probe()
    if not probe.times:
        raise InputError(f"{name} holds no frames; replace the file or encode it anew.")
    shown = probe.shown
    shown = shown if len(shown) <= num_frames else [shown[place] for place in spread_indices(len(shown), num_frames)]
    needed = len(shown) * probe.height * probe.width * 3 * (1 + 2 * torch.float32.itemsize)  # as bytes, as numbers, and the stack of these
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        gib = needed / 2**30, free / 2**30
        raise InputError(f"{name}: decoding it needs {gib[0]:.1f} GiB and {gib[1]:.1f} are free; shorten it or make it smaller.")
    frames, _ = source.frames(shown, (probe.height, probe.width))
    if not frames.isfinite().all():
        raise InputError(f"{name} holds NaN; wire a clip whose frames are whole.")
    return frames


def _rgb(frames: torch.Tensor) -> torch.Tensor:
    """(F, H, W, C) -> (F, H, W, 3): grey in three channels, no alpha."""
    return frames[..., :3].expand(*frames.shape[:3], 3).float().cpu()


def _labels(names: Sequence[str] | None, num_videos: int) -> list[str]:
    if names and len(names) != num_videos:
        raise InputError(f"names holds {len(names)} and images {num_videos}; give one name per video, or none.")
    places = [f"video {index}" for index in range(1, num_videos + 1)]
    given = [name.strip() or place for name, place in zip(names or places, places, strict=True)]
    return [f"{name} ({place})" if given.count(name) > 1 else name for name, place in zip(given, places, strict=True)]


def _draw(scored: Sequence[Mapping], metric: str, given: str) -> torch.Tensor:
    """(1, H, W, 3) in [0, 1]."""
    rows = []
    for video in scored:
        scores = {heading: video["scores"][name] for heading, name in COLUMNS[metric].items()}
        nearest = [video[name] for name in ("nearest_identity", "nearest_motion") if video.get(name) is not None]
        remark = _count(video["num_frames"], "frame") + (f"; most like {', '.join(nearest)}" if nearest else "")
        rows.append((video["name"], remark, {**scores, "T.Flicker": video["scores"]["temporal_flickering"]}))
    table = score_table(rows, f"Evaluation: {metric}", f"against {given}; 1 is best")
    return torch.from_numpy(numpy.asarray(table).astype(numpy.float32) / 255)[None]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"


NODES: list[type[io.ComfyNode]] = [Evaluate]
