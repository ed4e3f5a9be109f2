"""One run for both experts of a model: each step trains one, at its own noise, and the other one rests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TinyBase, all_items, is_same

from dualreal_core.api import Training
from dualreal_core.bases.two_experts import TwoExpertBase
from dualreal_core.dataset import PreparedSet
from dualreal_core.errors import InputError
from dualreal_core.method.experts import expert_of
from dualreal_core.method.pair import ROLES
from dualreal_core.storage import load_pair
from dualreal_core.training.optimizers import optimizer_class
from dualreal_core.training.recipes import DUALREAL, Recipe, with_train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

BOUNDARY, TURN, STEPS = 0.6, 3, 14
SIZES = {"num_groups": 2, "rank": 2, "alpha": 2.0, "has_controller": True, "controller_dim": 4}
CHANGES = {
    "steps": STEPS, "expert_steps": TURN, "warmup_steps": 0, "evaluate_every": 4, "motion_batch": 2, "frozen_adapter_dropout": 0.5,
    "preservation_ratio": 0.5, "timestep_bias": 1.0,
}  # fmt: skip


class Expert(TinyBase):
    """Notes what it was called with, and when it was told to rest."""

    def __init__(self, seed: int) -> None:
        super().__init__("wan", 2, seed=seed)
        self.architecture, self.events = self.transformer, []

    def rest(self) -> None:
        self.events.append("rest")

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        self.events.append(self.objective.levels(timestep, torch.device("cpu"))[1].flatten())
        return super().predict(latents, timestep, text)

    def take_levels(self) -> torch.Tensor:
        """Noise levels of all calls since the last time."""
        taken, self.events = [event for event in self.events if isinstance(event, torch.Tensor)], []
        return torch.cat([torch.zeros(0), *taken])


def recipe(kind: str = "lora", **changes: object) -> Recipe:
    pair = {**DUALREAL.pair, **SIZES, "identity_kind": kind, "motion_kind": kind, "bottleneck_dim": 3}
    return replace(with_train(DUALREAL, **{**CHANGES, **changes}), pair=pair)


class Session:
    """One process at a run of two experts."""

    def __init__(self, folder: Path, wanted: Recipe | None = None) -> None:
        self.base = TwoExpertBase(Expert(0), Expert(1), BOUNDARY)
        data = {role: PreparedSet(items, tuple(item.source for item in items)) for role, items in all_items().items()}
        self.training = Training(self.base, data, wanted or recipe(), folder)

    def steps(self, is_resumed: bool = False, stop_after: int | None = None, save_every: int = 100) -> list[int]:
        with closing(self.training.steps(is_resumed, stop_after, save_every)) as steps:
            return [done.step for done in steps]


def saved(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without any interruption."""
    folder = tmp_path_factory.mktemp("whole")
    assert Session(folder).steps() == list(range(1, STEPS + 1))
    return folder


@pytest.mark.parametrize("stop_after", [1, TURN - 1, TURN, TURN + 1, 2 * TURN, STEPS - 1])
def test_stopped_and_resumed_it_is_the_same_bit_for_bit(tmp_path, whole, stop_after):
    Session(tmp_path).steps(stop_after=stop_after)
    assert Session(tmp_path).steps(is_resumed=True)[0] == stop_after + 1
    assert is_same(saved(tmp_path), saved(whole))
    assert (tmp_path / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("step", "save_every"), [(TURN, TURN), (TURN + 1, TURN), (2 * TURN - 1, 2)])
def test_killed_and_resumed_it_is_the_same_bit_for_bit(tmp_path, whole, step, save_every):
    """The copy of its folder is what a process leaves that ends without a word; what was done since its checkpoint is done again."""
    with closing(Session(tmp_path / "alive").training.steps(save_every=save_every)) as steps:
        for done in steps:
            if done.step == step:
                shutil.copytree(tmp_path / "alive", tmp_path / "killed")
                break
    assert Session(tmp_path / "killed").steps(is_resumed=True)[0] == step // save_every * save_every + 1
    assert is_same(saved(tmp_path / "killed"), saved(whole))
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


@pytest.mark.parametrize("step", [TURN, TURN + 1])
def test_left_within_a_step_it_is_the_same_bit_for_bit(tmp_path, whole, step):
    """With an interrupt in the model's call, right at a switch and after it."""
    session, calls = Session(tmp_path), []
    expert = session.base.experts[TrainSettings(expert_steps=TURN).expert_at(step, 2)]
    predict = expert.predict

    def interrupted(*given: torch.Tensor) -> torch.Tensor:
        calls.append(0)
        if session.training.directory.metrics()[-1]["step"] >= step:
            raise KeyboardInterrupt
        return predict(*given)

    expert.predict = interrupted
    with pytest.raises(KeyboardInterrupt):
        session.steps()
    Session(tmp_path).steps(is_resumed=True)
    assert calls and is_same(saved(tmp_path), saved(whole))


@pytest.mark.parametrize(("kind", "optimizer"), [("lora", "adamw"), ("bottleneck", "adamw"), ("lora", "adamw8bit"), ("lora", "prodigy")])
def test_the_resting_expert_is_untouched_bit_for_bit(tmp_path, kind, optimizer):
    """Weights, optimizer state, the StageBlender's outputs for it; also when momentum and decay would move them."""
    try:
        optimizer_class(optimizer)
    except InputError as problem:
        pytest.skip(str(problem))
    rate = 1.0 if optimizer == "prodigy" else 0.01
    session = Session(tmp_path, recipe(kind, weight_decay=0.1, learning_rate=rate, optimizer=optimizer))
    training, moved = session.training, set()

    def snapshot(index: int) -> tuple[dict, dict, torch.Tensor]:
        name, view = training.pair.config.experts[index], expert_of(training.pair, index)
        weights = {key: tensor.clone() for role in ROLES for key, tensor in view.sides[role].state_dict(prefix=role).items()}
        parts = {part: state for part, state in current["optimizers"].items() if part.startswith(name)} if current else {}
        rows = slice(index * 2, index * 2 + 2)
        out = [parameter.detach()[rows].clone() for parameter in training.pair.controller.out.parameters()]
        of_out = [*current["optimizers"]["controller"]["state"].values()][-2:] if current else []
        values = [value for state in of_out for value in state.values() if isinstance(value, torch.Tensor)]
        kept = [value[rows] for value in values if value.shape[:1] == (4,)]
        return weights, parts, [*out, *kept]

    current: dict = {}
    with closing(training.steps(save_every=1)) as steps:
        next(steps)
        before = None
        for _ in range(4 * TURN - 1):
            current = saved(tmp_path) if (tmp_path / "checkpoint.pt").exists() else {}
            before = [snapshot(index) for index in range(2)]
            done = next(steps)
            active = training.recipe.train.expert_at(done.step - 1, 2)
            current = saved(tmp_path)
            after = [snapshot(index) for index in range(2)]
            assert is_same(after[1 - active], before[1 - active]), done.step
            assert not is_same(after[active][0], before[active][0])
            moved.add((active, done.role))
            resting = expert_of(training.pair, 1 - active)
            assert all(parameter.grad is None for role in ROLES for parameter in resting.role_parameters(role))
    assert len(moved) == 4


def test_each_part_of_each_expert_has_an_optimizer_of_its_own(tmp_path):
    """So that no state of one, not even a count, follows the other's steps."""
    pair = Session(tmp_path).training.pair
    optimizers = RunState.start(pair, TrainSettings()).optimizers
    assert list(optimizers) == ["high-noise identity", "high-noise motion", "low-noise identity", "low-noise motion", "controller"]
    sizes = {part: sum(len(group["params"]) for group in optimizer.param_groups) for part, optimizer in optimizers.items()}
    assert sum(sizes.values()) == len(list(pair.parameters())) and len(set(list(sizes.values())[:4])) == 1


def test_rates_of_sides_hold_in_both_experts(tmp_path):
    settings = TrainSettings(identity_learning_rate=0.25, motion_learning_rate=0.5)
    optimizers = RunState.start(Session(tmp_path).training.pair, settings).optimizers
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()]
    assert rates == [0.25, 0.5, 0.25, 0.5, settings.learning_rate]


def test_each_expert_sees_noise_of_its_own_range_alone(tmp_path):
    session = Session(tmp_path)
    high, low = session.base.experts
    seen: dict[int, int] = {0: 0, 1: 0}
    with closing(session.training.steps()) as steps:
        for done in steps:
            levels = high.take_levels(), low.take_levels()
            active = session.training.recipe.train.expert_at(done.step - 1, 2)
            is_evaluated = done.step % 4 == 0 or done.step == STEPS
            assert len(levels[active]) and (len(levels[1 - active]) > 0) == is_evaluated
            assert (levels[0] >= BOUNDARY).all() and (levels[1] < BOUNDARY).all()
            seen[active] += 1
    assert seen == {0: 8, 1: 6}


def test_one_expert_is_at_work_at_a_time_and_changes_at_switches_alone(tmp_path):
    """Evaluations bring each to work once, the one that is there first."""
    session = Session(tmp_path, recipe(evaluate_every=0))
    order: list[int] = []
    at_work = session.base.at_work
    session.base.at_work = lambda index: (order.append(index), at_work(index))[1]
    session.steps()
    assert order == [step // TURN % 2 for step in range(STEPS)]
    rests = [expert.events.count("rest") for expert in session.base.experts]
    assert rests == [2 + 1, 2 + 1]  # the one more: what the header records of both
    session = Session(tmp_path / "evaluated", recipe(expert_steps=STEPS // 2, evaluate_every=3, steps=6))
    session.steps(stop_after=2)
    before = [expert.events.count("rest") for expert in session.base.experts]
    session.steps(is_resumed=True, stop_after=1)
    after = [expert.events.count("rest") for expert in session.base.experts]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 0]


def test_evaluations_change_nothing_of_what_is_learned(tmp_path, whole):
    Session(tmp_path, recipe(evaluate_every=0)).steps()
    assert is_same(saved(tmp_path)["pair"], saved(whole)["pair"])


def test_the_pair_holds_both_and_its_file_says_how(tmp_path, whole):
    session = Session(tmp_path)
    session.steps()
    session.training.save(tmp_path / "pair.safetensors")
    pair, header = load_pair(tmp_path / "pair.safetensors")
    assert pair.config.experts == ("high-noise", "low-noise") and pair.config.boundary == BOUNDARY
    assert header["training"]["expert_steps"] == TURN and set(header["base"]) == {"name", "encoders", "high-noise", "low-noise"}
    assert header["base"]["high-noise"]["signature"] != header["base"]["low-noise"]["signature"]
    for index in range(2):
        assert all(
            tensor.any() for role in ROLES for name, tensor in expert_of(pair, index).sides[role].state_dict().items() if "up" in name
        )
    (note,) = [note for note in session.training.notes if "both experts" in note]
    assert note == (
        f"Trains both experts in turns of {TURN} steps: the high-noise one at noise levels (sigma) {BOUNDARY:g} to 1, the low-noise one at "
        f"noise levels (sigma) 0 to {BOUNDARY:g}."
    )


@pytest.mark.parametrize(("steps", "asked", "turn"), [(14, 50, 7), (1, 50, 1), (200, 50, 50), (200, 20, 20)])
def test_each_expert_has_its_turn_in_short_runs_too(tmp_path, steps, asked, turn):
    training = Session(tmp_path, recipe(steps=steps, expert_steps=asked)).training
    assert training.recipe.train.expert_steps == turn
    assert any("Experts take turns of" in note for note in training.notes) == (turn != asked)


def test_a_run_is_made_longer_with_longer_turns(tmp_path):
    Session(tmp_path, recipe(steps=4, expert_steps=50, evaluate_every=0)).steps()
    assert Session(tmp_path, recipe(steps=8, expert_steps=50, evaluate_every=0)).steps(is_resumed=True) == [5, 6, 7, 8]


def test_other_turns_are_another_run(tmp_path):
    Session(tmp_path).steps(stop_after=1)
    with pytest.raises(InputError, match="training: expert_steps"):
        Session(tmp_path, recipe(expert_steps=TURN + 1)).steps(is_resumed=True)


def test_one_model_has_no_turns(tmp_path):
    """So its run is the same whatever they are set to."""
    base = TinyBase("wan", 2)
    data = {role: PreparedSet(items, tuple(item.source for item in items)) for role, items in all_items().items()}
    for turn in (50, 5):
        training = Training(base, data, recipe(expert_steps=turn), tmp_path)
        assert "expert_steps" not in training.header["training"] and training.pair.config.experts == ()
        training.close()


def test_a_range_that_leaves_an_expert_nothing_is_refused(tmp_path):
    words = r"sigma_min 0.7 and sigma_max 1 leave the low-noise expert nothing .* 0 to 0.6: leave both to the model"
    with pytest.raises(InputError, match=words):
        Session(tmp_path, recipe(sigma_min=0.7))
    assert Session(tmp_path, recipe(sigma_min=0.3)).training.notes[-1].endswith("0.3 to 0.6.")


@pytest.mark.parametrize("boundary", [0.0, 1.0, 1.5])
def test_a_boundary_that_is_none_is_refused(boundary):
    with pytest.raises(InputError, match="boundary between both experts"):
        TwoExpertBase(Expert(0), Expert(1), boundary)


def test_experts_of_two_sizes_are_refused():
    small = Expert(0)
    small.transformer = small.architecture = TinyBase("wan", 3).transformer
    with pytest.raises(InputError, match="The high-noise expert has num_blocks 2 and the low-noise expert 3"):
        TwoExpertBase(Expert(0), small, BOUNDARY)


def optimizer_steps(state: Mapping[str, object]) -> int:
    """How often an optimizer has stepped."""
    return max((int(one["step"]) for one in state["state"].values()), default=0)


def test_the_schedule_of_the_rate_is_one_over_the_run(whole):
    """Each expert's optimizers step in its turns alone, at the rate of the run's step."""
    optimizers, settings = saved(whole)["optimizers"], recipe().train
    by_expert = {name: sum(optimizer_steps(optimizers[f"{name} {role}"]) for role in ROLES) for name in ("high-noise", "low-noise")}
    assert by_expert == {"high-noise": 8, "low-noise": 6} and optimizer_steps(optimizers["controller"]) == STEPS
    rates = {group["lr"] for group in optimizers["controller"]["param_groups"]}
    assert rates == {settings.learning_rate * settings.schedule(STEPS - 1)}
