"""The losses of a run, for a picture that is drawn again and again: each line of the metrics is read once."""

from __future__ import annotations

from array import array

from ..method.pair import Role
from .growing_file import GrowingFile

Points = dict[Role, tuple[array, array]]
"""Steps and losses by role, in the order they were written."""


class LossHistory:
    """Losses in a run's metrics as of the last `read`.

    Attributes:
        trained: of optimizer steps, on the trained side's own data.
        evaluated: of evaluations, with the other side off.
    """

    def __init__(self, metrics: GrowingFile) -> None:
        self._metrics = metrics
        self.trained: Points = {}
        self.evaluated: Points = {}

    def read(self) -> LossHistory:
        """Takes in what was appended to the metrics since the last time; all of it where a resumed run cut them back.

        Raises:
            InputError: a line is damaged.
        """
        goes_on, records = self._metrics.appended()
        if not goes_on:
            self.trained, self.evaluated = {}, {}
        for record in records:
            if "evaluation" in record:
                for role, side in record["evaluation"].items():
                    _add(self.evaluated, role, record["step"], side["single_loss"])
            else:
                _add(self.trained, record["role"], record["step"], record["loss"])
        return self


def _add(points: Points, role: Role, step: int, loss: float) -> None:
    steps, losses = points.setdefault(role, (array("d"), array("d")))
    steps.append(step)
    losses.append(loss)
