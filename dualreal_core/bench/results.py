"""Results of the benchmark: a method on one trial, sampled and measured once; its file says what it was made from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..bases import Base, load_base
from ..files.atomic import atomic_path
from ..files.provenance import provenance
from ..precision import lowered
from ..sampling import SAMPLING_VERSION, default_sampling
from ..toyworld.trial import Trial
from ..training.loop import ALGORITHM_VERSION
from ..training.recipes import Recipe
from ..training.settings import Precision, TrainSettings
from .candidate import Candidate
from .experiment import sample_videos
from .joining.forms import FORMS
from .measures import measure
from .prompts import requests
from .registry import BASE, find_method
from .request_sets import ALL_REQUESTS, FORMER_REQUESTS, NAMES_NEITHER
from .runs import Run, Runs, with_needs

_NEUTRAL = {"precision": "fp32", "asks": list(FORMER_REQUESTS), "guidance": None}
"""Parts of a protocol that came later, and the values that former versions had."""


@dataclass(frozen=True)
class Protocol:
    """What holds for all results of a benchmark: our recipe, the denoising steps of a video (None: the base's own), and the algorithm.

    Attributes:
        precision: of the activations in sampling.
        asks: the sets of prompts that are sampled.
        guidance: scale of classifier-free guidance; None: the base's own.
    """

    recipe: Recipe
    sampling_steps: int | None = None
    algorithm_version: int = ALGORITHM_VERSION
    precision: Precision = "fp32"
    asks: tuple[str, ...] = ALL_REQUESTS
    guidance: float | None = None

    def recorded(self) -> dict[str, object]:
        """Plain values: those that came later only where they change something, so that folders of former versions mean the same."""
        values = json.loads(json.dumps(asdict(self)))
        values["recipe"].pop("prompt_gate")  # each method has a gate or none, whatever the recipe says
        return {name: value for name, value in values.items() if name not in _NEUTRAL or value != _NEUTRAL[name]}

    @classmethod
    def from_note(cls, note: Mapping) -> Protocol:
        """The protocol that `recorded` and JSON made `note` of.

        Raises:
            KeyError, TypeError: a version of other names or settings wrote it.
        """
        recipe = note["recipe"]
        later = {name: note.get(name, former) for name, former in _NEUTRAL.items()}
        trained = Recipe(**{**recipe, "train": TrainSettings(**recipe["train"])})
        return cls(trained, note["sampling_steps"], note["algorithm_version"], **{**later, "asks": tuple(later["asks"])})


@dataclass(frozen=True)
class Case:
    """A method, by its name, on one trial: what one result is of."""

    method: str
    trial: Trial

    @classmethod
    def of(cls, result: Mapping) -> Case:
        """The case that a result is of."""
        return cls(result["method"], Trial(result["identity"], result["motion"], result["seed"]))

    @property
    def place(self) -> str:
        """'vex-zigzag-0'."""
        return f"{self.trial.identity}-{self.trial.motion}-{self.trial.seed}"

    def runs(self, recipe: Recipe) -> tuple[Run, ...]:
        """Its training runs."""
        return find_method(self.method).runs(self.trial, recipe)

    def made_from(self, protocol: Protocol) -> dict[str, object]:
        """What its result depends on; that may change from version to version."""
        method = find_method(self.method)
        return {
            "runs": [run.key for run in self.runs(protocol.recipe)],
            "settings": dict(method.settings),
            **({} if method.curves is None else {"curves": FORMS[method.curves]}),
            "sampling_steps": protocol.sampling_steps,
            "sampling_version": SAMPLING_VERSION,
            **{name: value for name, value in protocol.recorded().items() if name in _NEUTRAL},
        }


class Results:
    """The folder of results."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, case: Case) -> Path:
        """The result of a case; its videos lie beside it."""
        return self.path / case.method / f"{case.place}.json"

    def is_done(self, case: Case, protocol: Protocol) -> bool:
        """Whether the case was measured, and is what would be made now."""
        file = self.file(case)
        return file.exists() and is_current(json.loads(file.read_text(encoding="utf-8")), protocol)

    def read(self) -> list[dict]:
        """All results."""
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(self.path.glob("*/*.json"))]

    def videos(self, case: Case) -> torch.Tensor:
        """The videos of a case, (N, F, 3, 32, 32) in [-1, 1], the fused ones first."""
        return self._tensors(case)["videos"].float() / 127.5 - 1

    def make(self, case: Case, runs: Runs, protocol: Protocol) -> None:
        """Samples and measures a case whose runs are finished, unless it is done; before it the base, whose frames it is held against."""
        if self.is_done(case, protocol):
            return
        trial, trained = case.trial, case.runs(protocol.recipe)
        method, base, begin = find_method(case.method), load_base("toyworld"), time.monotonic()
        candidate = method.assemble([runs.load(run) for run in trained], base, trial)
        joined = time.monotonic() - begin
        asked, begin = {name: some for name, some in requests(trial).items() if name in protocol.asks}, time.monotonic()
        videos = sample_candidate(base, candidate, trial, [one.prompt for some in asked.values() for one in some], protocol)
        seconds = time.monotonic() - begin
        ordered = iter(videos)
        by_set = {name: list(islice(ordered, len(some))) for name, some in asked.items()}
        untouched = {name: torch.stack(by_set[name]) for name in NAMES_NEITHER if name in asked}
        of_base = untouched
        if untouched and case.method != BASE:
            self.make(replace(case, method=BASE), runs, protocol)
            of_base = self._tensors(replace(case, method=BASE))
        scores = measure(trial, asked, by_set, of_base)
        result = {
            "method": case.method,
            "identity": trial.identity,
            "motion": trial.motion,
            "seed": trial.seed,
            "scores": scores,
            "seconds": {
                "training": round(sum(runs.seconds(run) for run in with_needs(trained)), 1),
                "joining": round(joined, 2),
                "sampling": round(seconds, 1),
            },
            **({"note": candidate.note} if candidate.note else {}),
            "made_from": case.made_from(protocol),
            "provenance": provenance(),
        }
        kept = {"videos": ((torch.stack(videos) + 1) * 127.5).round().to(torch.uint8), **(untouched if case.method == BASE else {})}
        with atomic_path(self.file(case).with_suffix(".safetensors")) as temporary:
            save_file(kept, temporary)
        with atomic_path(self.file(case)) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    def _tensors(self, case: Case) -> dict[str, torch.Tensor]:
        return load_file(self.file(case).with_suffix(".safetensors"))


def is_current(result: Mapping, protocol: Protocol) -> bool:
    """Whether a result is of what its method trains and samples now."""
    return result["made_from"] == Case.of(result).made_from(protocol)


def sample_candidate(base: Base, candidate: Candidate, trial: Trial, prompts: Sequence[str], protocol: Protocol) -> list[torch.Tensor]:
    """See `sample_videos`; the base's weights are as before afterwards."""
    settings = replace(default_sampling(base), adapts_negative=candidate.adapts_negative)
    if protocol.sampling_steps is not None:
        settings = replace(settings, num_steps=protocol.sampling_steps)
    if protocol.guidance is not None:
        settings = replace(settings, guidance_scale=protocol.guidance)
    if candidate.weights is None:
        with lowered(base, protocol.precision == "bf16"):
            return sample_videos(
                base, trial, prompts, settings, candidate.pair, candidate.blend, turns=candidate.turns, strengths=candidate.strengths
            )
    kept = {name: tensor.clone() for name, tensor in base.transformer.state_dict().items()}
    base.transformer.load_state_dict(candidate.weights)
    try:
        with lowered(base, protocol.precision == "bf16"):
            return sample_videos(base, trial, prompts, settings)
    finally:
        base.transformer.load_state_dict(kept)
