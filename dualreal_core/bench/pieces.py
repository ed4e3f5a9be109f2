"""Training runs that the benchmark's cells are made from. What several cells share is one piece, and trained once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..bases import load_base
from ..files.atomic import atomic_path
from ..method.pair import AdapterPair
from ..storage import load_pair, save_pair
from ..toyworld.figures import TUNING_IDENTITIES
from ..toyworld.paths import TUNING_MOTIONS
from ..toyworld.trial import Trial
from ..training.recipes import Recipe
from ..training.run import RunDirectory
from .baselines import TRAINERS, Trained
from .experiment import load_trial


@dataclass(frozen=True)
class Piece:
    """One training run.

    Attributes:
        trainer: name in `TRAINERS`.
        recipe: with steps and seed.
        identity, motion: what it sees photos and clips of; None where it sees none.
        needs: pieces it starts from.
    """

    trainer: str
    recipe: Recipe
    identity: str | None = None
    motion: str | None = None
    needs: tuple[Piece, ...] = ()

    @property
    def key(self) -> str:
        """Name of its folder; differs wherever the result could."""
        asked = [self.trainer, self.identity, self.motion, asdict(self.recipe), [piece.key for piece in self.needs]]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
        return "-".join([self.trainer, *filter(None, (self.identity, self.motion)), str(self.recipe.train.seed), digest])

    def all_needs(self) -> Iterator[Piece]:
        """Everything that must be trained before it, in order."""
        for piece in self.needs:
            yield from piece.all_needs()
            yield piece


class Runs:
    """The folder of trained pieces."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_done(self, piece: Piece) -> bool:
        """Whether the piece is trained."""
        return self._note(piece).exists()

    def seconds(self, piece: Piece) -> float:
        """How long its training took; of a run that was killed, the last part alone."""
        return json.loads(self._note(piece).read_text(encoding="utf-8"))["seconds"]

    def load(self, piece: Piece) -> Trained:
        """The trained pair, or weights of the DiT."""
        folder = self.path / piece.key
        weights = folder / "weights.safetensors"
        return load_file(weights) if weights.exists() else load_pair(folder / "pair.safetensors")[0]

    def train(self, piece: Piece) -> None:
        """Trains a piece whose needs are done, unless it is done itself. Runs of the dual-aware loop continue where they were killed."""
        if self.is_done(piece):
            return
        begin, folder, base = time.monotonic(), self.path / piece.key, load_base("toyworld")
        # photos do not depend on the motion, nor clips on the identity
        trial = Trial(piece.identity or TUNING_IDENTITIES[0], piece.motion or TUNING_MOTIONS[0], piece.recipe.train.seed)
        references = load_trial(base, trial, piece.recipe, folder / "references")
        trained = TRAINERS[piece.trainer](base, references, piece.recipe, folder / "run", [self.load(need) for need in piece.needs])
        _save(trained, folder)
        with atomic_path(self._note(piece)) as temporary:
            note = {"trainer": piece.trainer, "steps": piece.recipe.train.steps, "seconds": round(time.monotonic() - begin, 1)}
            temporary.write_text(json.dumps(note) + "\n", encoding="utf-8")
        RunDirectory(folder / "run").checkpoint_file.unlink(missing_ok=True)  # three times as large as the result

    def _note(self, piece: Piece) -> Path:
        return self.path / piece.key / "done.json"


def unique(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces and all they need, each once, needs first."""
    return list({one.key: one for piece in pieces for one in [*piece.all_needs(), piece]}.values())


def _save(trained: Trained, folder: Path) -> None:
    if isinstance(trained, AdapterPair):
        save_pair(folder / "pair.safetensors", trained)
        return
    weights: dict[str, torch.Tensor] = {name: tensor.contiguous() for name, tensor in trained.items()}
    with atomic_path(folder / "weights.safetensors") as temporary:
        save_file(weights, temporary)
