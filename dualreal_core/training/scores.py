"""What an evaluation says about each side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..method.pair import Role


@dataclass(frozen=True)
class SideScores:
    """How one side does on the data it is evaluated on. Losses are the base's own objective.

    Attributes:
        loss: with both sides on.
        single_loss: with the other side off.
        base_loss: of the base without the pair.
        train_loss_ratio: with the other side off, relative to the base's, of data it was trained on; None where nothing is held out.
        leakage: root mean square change that this side alone makes to the base's prediction on the other side's data and
            captions, relative to the change that it makes on its own: 0 none, 1 as much.
    """

    loss: float
    single_loss: float
    base_loss: float
    train_loss_ratio: float | None
    leakage: float

    @property
    def loss_ratio(self) -> float:
        """Loss with the other side off, relative to the base's: 1 - `loss_ratio` is what this side has learned."""
        return self.single_loss / self.base_loss

    @property
    def interference(self) -> float:
        """Loss that the other side adds, relative to the base's."""
        return (self.loss - self.single_loss) / self.base_loss


@dataclass(frozen=True)
class Evaluation:
    """Scores of the trained sides after a step."""

    step: int
    sides: Mapping[Role, SideScores]

    @property
    def score(self) -> float:
        """Sum of what the sides leave of the base's loss, each alone; infinite where one is no number.

        What one side adds to the other's loss grows while both learn, so it is told apart, as `interference`.
        """
        total = sum(side.loss_ratio for side in self.sides.values())
        return total if math.isfinite(total) else math.inf

    def record(self) -> dict[str, object]:
        """As a line of the metrics."""
        return {"step": self.step, "evaluation": {role: asdict(side) for role, side in self.sides.items()}}

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Evaluation:
        """What `record` gave."""
        return cls(record["step"], {role: SideScores(**side) for role, side in record["evaluation"].items()})
