"""Training runs of the benchmark. One that several results share is trained once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
from .experiment import load_trial
from .trainers import TRAINERS, Trained


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        trainer: name in `TRAINERS`.
        recipe: with steps and seed.
        identity, motion: what it sees photos and clips of; None where it sees none.
        needs: runs it starts from.
    """

    trainer: str
    recipe: Recipe
    identity: str | None = None
    motion: str | None = None
    needs: tuple[Run, ...] = ()

    @property
    def key(self) -> str:
        """Name of its folder; differs wherever the result could."""
        recipe = {**asdict(self.recipe), "train": self.recipe.train.recorded()}
        recipe.pop("prompt_gate")  # which is no part of the training
        asked = [self.trainer, self.identity, self.motion, recipe, [run.key for run in self.needs]]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
        return "-".join([self.trainer, *filter(None, (self.identity, self.motion)), str(self.recipe.train.seed), digest])


class Runs:
    """The folder of finished runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_done(self, run: Run) -> bool:
        """Whether the run is finished."""
        return self._note(run).exists()

    def seconds(self, run: Run) -> float:
        """How long its training took; of a run that was killed, the last part alone."""
        return json.loads(self._note(run).read_text(encoding="utf-8"))["seconds"]

    def load(self, run: Run) -> Trained:
        """The trained pair, or weights of the DiT."""
        folder = self.path / run.key
        weights = folder / "weights.safetensors"
        return load_file(weights) if weights.exists() else load_pair(folder / "pair.safetensors")[0]

    def train(self, run: Run) -> None:
        """Does a run whose needs are done, unless it is done itself. Runs of the dual-aware loop continue where they were killed."""
        if self.is_done(run):
            return
        begin, folder, base = time.monotonic(), self.path / run.key, load_base("toyworld")
        # photos do not depend on the motion, nor clips on the identity
        trial = Trial(run.identity or TUNING_IDENTITIES[0], run.motion or TUNING_MOTIONS[0], run.recipe.train.seed)
        trainer, before = TRAINERS[run.trainer], [self.load(need) for need in run.needs]
        known = trial if trainer.is_data_free else load_trial(base, trial, run.recipe, folder / "references")
        trained = trainer.train(base, known, run.recipe, folder / "run", before)
        if isinstance(trained, AdapterPair):
            save_pair(folder / "pair.safetensors", trained)
        else:
            with atomic_path(folder / "weights.safetensors") as temporary:
                save_file({name: tensor.contiguous() for name, tensor in trained.items()}, temporary)
        with atomic_path(self._note(run)) as temporary:
            note = {"trainer": run.trainer, "steps": run.recipe.train.steps, "seconds": round(time.monotonic() - begin, 1)}
            temporary.write_text(json.dumps(note) + "\n", encoding="utf-8")
        RunDirectory(folder / "run").checkpoint_file.unlink(missing_ok=True)  # three times as large as the result

    def _note(self, run: Run) -> Path:
        return self.path / run.key / "done.json"


def with_needs(runs: Sequence[Run]) -> list[Run]:
    """Runs and all they need, each once, needs first."""
    return list({one.key: one for run in runs for one in [*with_needs(run.needs), run]}.values())
