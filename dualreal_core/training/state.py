"""Everything a run changes while it trains, saved and restored whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..dataset import PreparedItem
from ..method.pair import ROLES, AdapterPair, Role
from .experts import parts_of
from .optimizers import make_optimizer
from .scores import Evaluation
from .settings import TrainSettings


@dataclass
class RunState:
    """Position of a run between two optimizer steps.

    Attributes:
        step: optimizer steps done.
        generator: source of every random number of the run.
        optimizers: one for each part that has parameters; see `parts_of`.
        queues: batches still to come in this pass over the data, per role, as item indices.
        evaluations: all so far; when to stop follows from them.
        best: weights of the pair at the best of them, where they are kept.
        is_torn: an interrupt came while the optimizers were at work; such a state must not be saved.
    """

    step: int
    generator: torch.Generator
    optimizers: dict[str, torch.optim.Optimizer]
    queues: dict[Role, list[list[int]]] = field(default_factory=lambda: {role: [] for role in ROLES})
    evaluations: list[Evaluation] = field(default_factory=list)
    best: dict[str, torch.Tensor] | None = None
    is_torn: bool = False

    @classmethod
    def start(cls, pair: AdapterPair, settings: TrainSettings) -> RunState:
        """The state before the first step."""
        optimizers = {part: make_optimizer(settings, part, parameters) for part, parameters in parts_of(pair).items() if parameters}
        return cls(0, torch.Generator().manual_seed(settings.seed), optimizers)

    def state_dict(self, pair: AdapterPair) -> dict[str, object]:
        """Plain tensors, numbers and lists: loads with `weights_only=True`."""
        return {
            "step": self.step,
            "generator": self.generator.get_state(),
            "queues": self.queues,
            "optimizers": {part: optimizer.state_dict() for part, optimizer in self.optimizers.items()},
            "pair": pair.state_dict(),
            "evaluations": [evaluation.record() for evaluation in self.evaluations],
            "best": self.best,
        }

    def load_state_dict(self, saved: dict[str, object], pair: AdapterPair) -> None:
        """Restores what `state_dict` gave, the pair's weights included."""
        self.step, self.queues = saved["step"], saved["queues"]
        self.generator.set_state(saved["generator"])
        for part, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][part])
        pair.load_state_dict(saved["pair"])
        self.evaluations = [Evaluation.from_record(record) for record in saved["evaluations"]]
        self.best = saved["best"]

    def next_batch(self, role: Role, items: Sequence[PreparedItem], batch_size: int) -> list[PreparedItem]:
        """The next batch of a role: items of one shape; each item comes once per pass, a short batch is filled up."""
        if not self.queues[role]:
            self.queues[role] = self._shuffled(items, batch_size)
        return [items[index] for index in self.queues[role].pop()]

    def _shuffled(self, items: Sequence[PreparedItem], batch_size: int) -> list[list[int]]:
        shuffler = random.Random(int(torch.randint(2**62, (), generator=self.generator)))
        order = list(range(len(items)))
        shuffler.shuffle(order)
        buckets: dict[object, list[int]] = {}
        for index in order:
            buckets.setdefault(items[index].bucket, []).append(index)
        batches = []
        for bucket in buckets.values():
            for begin in range(0, len(bucket), batch_size):
                batch = bucket[begin : begin + batch_size]
                batches.append(batch + [shuffler.choice(bucket) for _ in range(batch_size - len(batch))])
        shuffler.shuffle(batches)
        return batches
