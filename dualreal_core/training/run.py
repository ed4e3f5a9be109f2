"""A training run: steps, evaluations and checkpoints, with everything in one folder (`RunDirectory`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict

from ..bases import Base
from ..dataset import PreparedItem
from ..errors import InputError, first_line
from ..method.attach import Attachment
from ..method.pair import Role
from .directory import RunDirectory
from .evaluation import Evaluator
from .loop import StepResult, train
from .report import Outcome
from .scores import Evaluation
from .settings import TrainSettings
from .state import RunState
from .stopping import best_of, evaluate_if_due, is_over
from .validation import split_items


def run_training(
    base: Base,
    attachment: Attachment,
    items: Mapping[Role, Sequence[PreparedItem]],
    settings: TrainSettings,
    directory: RunDirectory,
    is_resumed: bool = False,
    stop_after: int | None = None,
    save_every: int = 100,
    on_evaluation: Callable[[Evaluation], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[StepResult]:
    """`train` with files: restores the last checkpoint, evaluates, writes metrics and checkpoints, saves on every way out.

    Once the run is over, the pair is the result: the last state, or the best one where that is kept. Who leaves before the
    last step must close the generator (`contextlib.closing`): only then what cannot be saved is raised.

    Args:
        stop_after: stop once so many steps were done in this call.
        on_evaluation: called after each evaluation, before its step is yielded.
        on_note: called with each sentence that the user should read.

    Raises:
        DivergedError: after the last good state was saved.
        InputError: a file cannot be read or written; where that is the checkpoint, it names the steps that are lost.
    """
    splits = {role: split_items(items[role], role, settings.validation_split, settings.seed) for role in items}
    trained = {role: split.trained for role, split in splits.items()}
    evaluator = Evaluator(base, attachment, splits, settings)
    state = RunState.start(attachment.pair, settings)
    say = on_note or (lambda note: None)
    if is_resumed:
        directory.load(state, attachment)
    if directory.former_steps is not None:
        directory.log("lengthened", step=state.step, before=directory.former_steps, after=settings.steps)
        say(
            f"Continues a run of {directory.former_steps} steps after its step {state.step}, up to step {settings.steps}: "
            f"the learning rate follows the new length from step {state.step + 1} on."
        )

    def evaluate() -> None:
        evaluation = evaluate_if_due(evaluator, attachment, settings, state)
        if evaluation is not None:
            directory.add_metrics(evaluation.record())
            if on_evaluation is not None:
                on_evaluation(evaluation)

    last_step = settings.steps if stop_after is None else min(settings.steps, state.step + stop_after)
    saved = state.step, len(state.evaluations)

    def save() -> None:
        nonlocal saved
        if (state.step, len(state.evaluations)) > saved:
            directory.save(state, attachment)
            saved = state.step, len(state.evaluations)

    try:
        evaluate()
        if state.step < last_step and not is_over(state, settings):
            with closing(train(base, attachment, trained, settings, state)) as steps:
                for done in steps:
                    directory.add_metrics(asdict(done))
                    evaluate()
                    if state.step % save_every == 0:
                        save()
                    yield done
                    if state.step >= last_step or is_over(state, settings):
                        break
        save()
    except BaseException as reason:
        if not state.is_torn:
            try:
                save()
            except (InputError, KeyboardInterrupt) as problem:
                raise InputError(_loss(directory, problem, reason, saved[0], state.step)) from reason
        elif state.step > saved[0]:
            say(f"Training ended within an optimizer step, and half a step cannot be saved. {_lost_steps(saved[0], state.step)}")
        raise
    directory.is_over = is_over(state, settings)
    if directory.is_over:
        if state.best is not None:
            attachment.pair.load_state_dict(state.best)
        if state.evaluations:
            kept = best_of(state.evaluations) if settings.save_best else state.evaluations[-1]
            directory.write_report(Outcome(state.step, settings.steps, kept, state.evaluations, splits))
    directory.log("finished" if directory.is_over else "stopped", step=state.step)


def _loss(directory: RunDirectory, problem: BaseException, reason: BaseException, saved: int, step: int) -> str:
    """What could not be saved, why, what is lost by it, and what had ended training before."""
    if isinstance(reason, GeneratorExit):  # whoever took the steps left; an error that made him leave is under way
        reason = reason.__context__
    if reason is None or str(reason) == str(problem):
        ended = ""
    elif "Interrupt" in type(reason).__name__:  # Python's, or ComfyUI's
        ended = "Training was interrupted."
    else:
        ended = f"Training had ended: {reason if isinstance(reason, InputError) else f'{type(reason).__name__}: {first_line(reason)}'}"
    second = f"{directory.checkpoint_file} could not be written because that was interrupted in turn."
    unsaved = str(problem) if isinstance(problem, InputError) else second
    return " ".join(filter(None, (unsaved, _lost_steps(saved, step), ended)))


def _lost_steps(saved: int, step: int) -> str:
    if step == saved:
        return f"The last good checkpoint reaches step {saved}: no step is lost, but its evaluation."
    reaches = f"The last good checkpoint reaches step {saved}" if saved else "There is no good checkpoint"
    return f"{reaches}: {f'step {step} is' if step == saved + 1 else f'steps {saved + 1} to {step} are'} lost."
