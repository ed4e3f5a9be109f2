"""Which evaluation was best, and when there is no more to be had: both follow from the evaluations alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..method.attach import Attachment
from ..method.pair import Role
from .evaluation import Evaluator
from .scores import Evaluation
from .settings import TrainSettings
from .state import RunState

LEAST_GAIN = 0.005
"""A side improves where its loss falls by this share of the base's loss. Evaluations share noise and timesteps, so smaller
steps up and down come from training itself."""


def best_of(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation with the lowest score; of equal ones, the first."""
    return min(evaluations, key=lambda evaluation: evaluation.score)


def evaluations_at_rest(evaluations: Sequence[Evaluation], role: Role) -> int:
    """How many evaluations in a row did not improve this side; the first one always improves it."""
    lowest, at_rest = evaluations[0].sides[role].loss_ratio, 0
    for evaluation in evaluations[1:]:
        ratio = evaluation.sides[role].loss_ratio
        if ratio < lowest - LEAST_GAIN:
            lowest, at_rest = ratio, 0
        else:
            at_rest += 1
    return at_rest


def is_exhausted(evaluations: Sequence[Evaluation], patience: int) -> bool:
    """Whether every side has rested for `patience` evaluations; 0 waits for ever."""
    if not patience or not evaluations:
        return False
    return all(evaluations_at_rest(evaluations, role) >= patience for role in evaluations[0].sides)


def is_over(state: RunState, settings: TrainSettings) -> bool:
    """Whether nothing is left to do: all steps are done, or no side improves any more."""
    return state.step >= settings.steps or is_exhausted(state.evaluations, settings.patience)


def evaluate_if_due(evaluator: Evaluator, attachment: Attachment, settings: TrainSettings, state: RunState) -> Evaluation | None:
    """Evaluates where the state's step asks for it and that was not yet done; remembers the pair if it is the best so far."""
    is_due = settings.evaluate_every and (state.step % settings.evaluate_every == 0 or state.step == settings.steps)
    if not is_due or not state.step or (state.evaluations and state.evaluations[-1].step == state.step):
        return None
    evaluation = evaluator.evaluate(state.step)
    evaluations = [*state.evaluations, evaluation]
    if settings.save_best and best_of(evaluations) is evaluation:
        state.best = {name: tensor.detach().cpu().clone() for name, tensor in attachment.pair.state_dict().items()}
    state.evaluations = evaluations
    return evaluation
