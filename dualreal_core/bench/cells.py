"""One cell: a row, a figure, a motion and a seed. Sampled and measured once; its file says what it was made from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..bases import Base, load_base
from ..files.atomic import atomic_path
from ..files.provenance import provenance
from ..method.attach import Attachment
from ..sampling import default_sampling, sample
from ..toyworld.trial import Trial
from ..training.loop import ALGORITHM_VERSION
from ..training.recipes import Recipe
from ..training.settings import TrainSettings
from .experiment import SAMPLE_SEED
from .measures import measure
from .pieces import Piece, Runs
from .prompts import requests
from .rows import Contestant, Subject, find_row


@dataclass(frozen=True)
class Cell:
    """A row, by its name, on one subject."""

    row: str
    subject: Subject

    @property
    def trial(self) -> Trial:
        """What photos, clips and prompts are drawn from."""
        return Trial(self.subject.identity, self.subject.motion, self.subject.seed)

    def plan(self, recipe: Recipe) -> tuple[Piece, ...]:
        """Its training runs."""
        return find_row(self.row).plan(self.subject, recipe)


@dataclass(frozen=True)
class Protocol:
    """What holds for all cells of a benchmark: our recipe, the denoising steps of a video (None: the base's own), and the code's method."""

    recipe: Recipe
    sampling_steps: int | None = None
    method: int = ALGORITHM_VERSION

    @classmethod
    def from_note(cls, note: Mapping) -> Protocol:
        """The protocol that `asdict` and JSON made `note` of.

        Raises:
            TypeError: a recipe of that time had other settings.
        """
        recipe = note["recipe"]
        return cls(Recipe(**{**recipe, "train": TrainSettings(**recipe["train"])}), note["sampling_steps"], note["method"])


class Results:
    """The folder of measured cells."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, cell: Cell) -> Path:
        """The result of a cell; its videos lie beside it."""
        subject = cell.subject
        return self.path / cell.row / f"{subject.identity}-{subject.motion}-{subject.seed}.json"

    def is_done(self, cell: Cell, protocol: Protocol) -> bool:
        """Whether the cell was measured, and is what would be made now."""
        file = self.file(cell)
        return file.exists() and is_current(json.loads(file.read_text(encoding="utf-8")), protocol)

    def read(self) -> list[dict]:
        """All results."""
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(self.path.glob("*/*.json"))]

    def videos(self, cell: Cell) -> torch.Tensor:
        """The cell's videos, (N, F, 3, 32, 32) in [-1, 1], the fused ones first."""
        return load_file(self.file(cell).with_suffix(".safetensors"))["videos"].float() / 127.5 - 1

    def make(self, cell: Cell, runs: Runs, protocol: Protocol) -> None:
        """Samples and measures a cell whose pieces are trained, unless it is done."""
        if self.is_done(cell, protocol):
            return
        row, pieces = find_row(cell.row), cell.plan(protocol.recipe)
        contestant = row.assemble([runs.load(piece) for piece in pieces], row.settings)
        base, asked, begin = load_base("toyworld"), requests(cell.trial), time.monotonic()
        videos = sample_videos(base, contestant, cell.trial, [one.prompt for some in asked.values() for one in some], protocol)
        seconds = time.monotonic() - begin
        ordered = iter(videos)
        scores = measure(cell.trial, asked, {name: list(islice(ordered, len(some))) for name, some in asked.items()})
        result = {
            "row": cell.row,
            "identity": cell.subject.identity,
            "motion": cell.subject.motion,
            "seed": cell.subject.seed,
            "scores": scores,
            "seconds": {"training": round(sum(runs.seconds(piece) for piece in _all(pieces)), 1), "sampling": round(seconds, 1)},
            "made_from": _made_from(cell, protocol),
            "provenance": provenance(),
        }
        with atomic_path(self.file(cell).with_suffix(".safetensors")) as temporary:
            save_file({"videos": ((torch.stack(videos) + 1) * 127.5).round().to(torch.uint8)}, temporary)
        with atomic_path(self.file(cell)) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def is_current(result: Mapping, protocol: Protocol) -> bool:
    """Whether a result is of what its row trains and samples now: that may change from version to version."""
    cell = Cell(result["row"], Subject(result["identity"], result["motion"], result["seed"]))
    return result["made_from"] == _made_from(cell, protocol)


def sample_videos(base: Base, contestant: Contestant, trial: Trial, prompts: Sequence[str], protocol: Protocol) -> list[torch.Tensor]:
    """One video per prompt, (F, 3, 32, 32) in [-1, 1], all in one batch; the base's weights are as before afterwards."""
    settings = replace(default_sampling(base), seed=SAMPLE_SEED + 100 * trial.seed, adapts_negative=contestant.adapts_negative)
    if protocol.sampling_steps is not None:
        settings = replace(settings, num_steps=protocol.sampling_steps)
    with base.encoders(), torch.no_grad():
        texts, negative = [base.encode_text(prompt) for prompt in prompts], base.encode_text("")
        condition = base.embed_image(trial.reference_image())
    kept = None
    if contestant.weights is not None:
        kept = {name: tensor.clone() for name, tensor in base.transformer.state_dict().items()}
        base.transformer.load_state_dict(contestant.weights)
    try:
        if contestant.pair is None:
            latents = sample(base, texts, negative, settings)
        else:
            with Attachment(base.transformer, contestant.pair, contestant.blend) as attachment:
                latents = sample(base, texts, negative, settings, attachment, condition)
    finally:
        if kept is not None:
            base.transformer.load_state_dict(kept)
    with base.encoders(), torch.no_grad():
        return [base.decode_latents(video).float() for video in latents]


def _all(pieces: Sequence[Piece]) -> list[Piece]:
    return [one for piece in pieces for one in [*piece.all_needs(), piece]]


def _made_from(cell: Cell, protocol: Protocol) -> dict[str, object]:
    return {
        "runs": [piece.key for piece in cell.plan(protocol.recipe)],
        "settings": dict(find_row(cell.row).settings),
        "sampling_steps": protocol.sampling_steps,
    }
