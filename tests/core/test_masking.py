"""Dual-aware Adaptation: what a step may and may not touch, over every optimizer and under accumulation."""

from __future__ import annotations

import copy
import importlib.util
import math

import pytest
import torch
from tiny import TinyBase, all_items, fill, is_same, make_items, make_pair, model_inputs, weights_hash

from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import ROLES, AdapterPair, PairConfig, Role, lora_shapes, site_keys
from dualreal_core.training.loop import DivergedError, train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

PACKAGES = {"adamw": "torch", "prodigy": "prodigyopt"}
OPTIMIZERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"SKIPPED LOUDLY: no {package}: masking under {name} is untested"
        ),
    )
    for name, package in PACKAGES.items()
]
FAMILIES = ["cogvideox", "wan"]
UNCLIPPED = 1e9


class RecordingBase(TinyBase):
    """Remembers what the DiT was asked, and with what attached; can spoil its answer.

    Attributes:
        spoil_at: number of the call whose output becomes NaN, or None.
        spoils_gradient: spoil the gradient of that call instead.
    """

    def __init__(self, family: str, num_blocks: int = 2) -> None:
        super().__init__(family, num_blocks)
        self.calls: list[dict] = []
        self.attachment: Attachment | None = None
        self.spoil_at: int | None = None
        self.spoils_gradient = False

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        self.calls.append(
            {
                "inputs": (latents, timestep, text),
                "role": "identity" if latents.shape[2] == 1 else "motion",
                "condition": self.attachment.condition,
                "strengths": dict(self.attachment.strengths),
            }
        )
        output = super().predict(latents, timestep, text)
        if len(self.calls) - 1 == self.spoil_at:
            if self.spoils_gradient:
                output.register_hook(lambda gradient: gradient * math.nan)
            else:
                output = output * math.nan
        return output


class Run:
    """A run on a recording base that can be stepped."""

    def __init__(
        self, family: str = "wan", kind: str = "bottleneck", settings: TrainSettings | None = None, is_filled: bool = True, **pair: object
    ) -> None:
        self.base = RecordingBase(family)
        self.pair: AdapterPair = make_pair(self.base, kind, num_groups=2, **pair)
        if is_filled:
            fill(self.pair)
        self.settings = settings or make_settings()
        self.state = RunState.start(self.pair, self.settings)
        self.attachment = self.base.attachment = Attachment(self.base.transformer, self.pair)
        self.items = all_items()
        self.steps = train(self.base, self.attachment, self.items, self.settings, self.state)

    def snapshot(self) -> dict:
        return copy.deepcopy(self.state.state_dict(self.pair))

    def part(self, part: str) -> list[torch.nn.Parameter]:
        return self.pair.controller_parameters() if part == "controller" else self.pair.role_parameters(part)


def make_settings(**changes: object) -> TrainSettings:
    defaults = {"steps": 12, "warmup_steps": 0, "motion_batch": 2, "seed": 3, "learning_rate": 1e-2, "weight_decay": 0.1}
    if changes.get("optimizer") == "prodigy":
        defaults["learning_rate"] = 1.0
    return TrainSettings(**{**defaults, **changes})


def frozen(role: Role) -> Role:
    return "identity" if role == "motion" else "motion"


def side_of(snapshot: dict, part: str) -> tuple[dict, dict]:
    """Weights of a part, and its optimizer's moments."""
    prefix = "controller." if part == "controller" else f"sides.{part}."
    weights = {name: tensor for name, tensor in snapshot["pair"].items() if name.startswith(prefix)}
    return weights, snapshot["optimizers"][part]["state"]


@pytest.mark.parametrize("kind", ["bottleneck", "bottleneck-skip", "lora"])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_side_is_untouched(optimizer, accumulation, kind):
    settings = make_settings(optimizer=optimizer, accumulation=accumulation, frozen_adapter_dropout=0.3, condition_drop=0.3)
    run = Run(kind=kind, settings=settings)
    fired: list[str] = []
    for role in ROLES:
        for parameter in run.part(role):
            parameter.register_hook(lambda gradient, role=role: fired.append(role))
    seen_grads = []
    for optimizer_of_part in run.state.optimizers.values():
        step = optimizer_of_part.step

        def watched(step=step) -> None:
            seen_grads.append({role: [parameter.grad is not None for parameter in run.part(role)] for role in ROLES})
            step()

        optimizer_of_part.step = watched
    roles, before = [], run.snapshot()
    for done in run.steps:
        after = run.snapshot()
        roles.append(done.role)
        assert is_same(before["optimizers"][frozen(done.role)], after["optimizers"][frozen(done.role)])
        assert is_same(side_of(before, frozen(done.role)), side_of(after, frozen(done.role)))
        for part in (done.role, "controller"):
            assert not is_same(side_of(before, part)[0], side_of(after, part)[0]) or optimizer == "prodigy", part
            assert not is_same(side_of(before, part)[1], side_of(after, part)[1]), part
        assert fired and set(fired) == {done.role}
        assert not any(any(grads[frozen(done.role)]) for grads in seen_grads) and any(seen_grads[0][done.role])
        fired.clear(), seen_grads.clear()
        before = after
    assert set(roles) == set(ROLES), "only one role was drawn, so this test shows nothing"
    assert [call["role"] for call in run.base.calls] == [role for role in roles for _ in range(accumulation)]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in run.pair.parameters())


def test_the_optimizers_tested_are_all_that_run_here():
    from typing import get_args

    from dualreal_core.training.settings import OptimizerName

    assert {*get_args(OptimizerName)} == {*PACKAGES, "adamw8bit"}  # that one needs an accelerator


def unmasked_gradients(run: Run, weights: dict, calls: list[dict], losses: list[tuple]) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss of the recorded batches with respect to every parameter of a pair with these weights."""
    base = TinyBase(run.base.family.name, 2)
    pair = AdapterPair(run.pair.config, site_keys(base.transformer), lora_shapes_of(base, run.pair.config))
    pair.load_state_dict(weights)
    with Attachment(base.transformer, pair) as attachment:
        for call, (latents, noise, timestep) in zip(calls, losses, strict=True):
            attachment.condition, attachment.strengths = call["condition"], call["strengths"]
            output = base.predict(*call["inputs"])
            (base.objective.loss_per_sample(output, latents, noise, timestep).mean() / len(calls)).backward()
    return {name: parameter.grad for name, parameter in pair.named_parameters()}


def lora_shapes_of(base: TinyBase, config: PairConfig) -> dict:
    return {role: lora_shapes(base.transformer, config, role) for role in ROLES}


class RecordingObjective:
    """Remembers what the loss was computed from."""

    def __init__(self, objective) -> None:
        self.objective, self.losses = objective, []
        self.sample_timesteps, self.stage, self.add_noise = objective.sample_timesteps, objective.stage, objective.add_noise
        self.noise_level = objective.noise_level

    def loss_per_sample(self, output, latents, noise, timestep, mask=None) -> torch.Tensor:
        self.losses.append((latents, noise, timestep))
        return self.objective.loss_per_sample(output, latents, noise, timestep, mask)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_active_gradients_equal_unmasked_ones(family, kind, accumulation):
    """And the norm that is clipped is that of the masked gradients."""
    run = Run(family, kind, make_settings(steps=6, accumulation=accumulation, clip_norm=UNCLIPPED))
    run.base.objective = RecordingObjective(run.base.objective)
    seen: dict[str, torch.Tensor] = {}
    step = run.state.optimizers["controller"].step

    def watched() -> None:
        seen.update({name: parameter.grad.clone() for name, parameter in run.pair.named_parameters() if parameter.grad is not None})
        step()

    run.state.optimizers["controller"].step = watched
    weights = run.snapshot()["pair"]
    for done in run.steps:
        expected = unmasked_gradients(run, weights, run.base.calls, run.base.objective.losses)
        assert {name for name in expected if expected[name] is not None} > set(seen)
        for name, gradient in seen.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)
        masked = f"sides.{frozen(done.role)}."
        kept = [gradient for name, gradient in expected.items() if gradient is not None and not name.startswith(masked)]
        assert len(kept) == len(seen)
        norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in kept))
        assert done.gradient_norm == pytest.approx(norm, rel=1e-4)
        assert norm < math.sqrt(
            sum(float(gradient.double().square().sum()) for gradient in expected.values() if gradient is not None)
        )
        weights = run.snapshot()["pair"]
        run.base.calls.clear(), run.base.objective.losses.clear(), seen.clear()


def test_clipped_norm():
    run = Run(settings=make_settings(clip_norm=1e-3))
    norms = []
    step = run.state.optimizers["controller"].step

    def watched() -> None:
        norms.append(math.sqrt(sum(float(p.grad.double().square().sum()) for p in run.pair.parameters() if p.grad is not None)))
        step()

    run.state.optimizers["controller"].step = watched
    done = list(run.steps)
    assert min(one.gradient_norm for one in done) > 1e-3
    assert norms == pytest.approx([1e-3] * len(done), rel=1e-2)


def test_weights_joined_for_speed_follow_optimizers_that_write_past_the_version_count():
    """As prodigy does."""
    run = Run(kind="lora")
    for optimizer in run.state.optimizers.values():
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.step = lambda parameters=parameters: [parameter.data.mul_(1.5) for parameter in parameters]
    with torch.no_grad():
        before = run.base.predict(*model_inputs())
    next(run.steps)
    with torch.no_grad():
        after = run.base.predict(*model_inputs())
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, run.base.predict(*model_inputs()).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("ratio", "role"), [(0.0, "identity"), (1.0, "motion")])
def test_motion_ratio_ends(ratio, role):
    run = Run(settings=make_settings(motion_ratio=ratio))
    before = run.snapshot()
    assert {done.role for done in run.steps} == {role}
    assert is_same(side_of(before, frozen(role)), side_of(run.snapshot(), frozen(role)))


def test_motion_ratio_is_a_probability():
    run = Run(settings=make_settings(steps=60, motion_ratio=0.25))
    assert 6 <= [done.role for done in run.steps].count("motion") <= 24


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_frozen_adapter_dropout(drop):
    run = Run(settings=make_settings(frozen_adapter_dropout=drop))
    used: set[str] = set()
    for role in ROLES:
        for adapter in run.pair.sides[role].values():
            adapter.code = lambda *args, role=role, code=adapter.code: (used.add(role), code(*args))[1]
    for done in run.steps:
        assert used == ({done.role} if drop else set(ROLES))
        assert run.attachment.strengths == {"identity": 1.0, "motion": 1.0}, "a preview between two steps would lack a side"
        used.clear()


@pytest.mark.parametrize("drop", [0.0, 0.5, 1.0])
def test_condition_drop(drop):
    run = Run(settings=make_settings(steps=40, condition_drop=drop))
    list(run.steps)
    conditions = {role: [call["condition"] for call in run.base.calls if call["role"] == role] for role in ROLES}
    assert all(given is None for given in conditions["identity"])
    shares = [given is None for given in conditions["motion"]]
    assert len(shares) > 8 and ({0.0: not any(shares), 1.0: all(shares)}.get(drop, 0 < sum(shares) < len(shares)))
    known = torch.cat([item.conditions for item in run.items["motion"]])
    picked = [row for given in conditions["motion"] if given is not None for row in given]
    assert all((known == row).all(1).any() for row in picked)
    assert drop == 1.0 or len({tuple(row.tolist()) for row in picked}) > len(run.items["motion"]), "always the same frame is picked"


def test_condition_belongs_to_its_clip():
    run = Run(settings=make_settings(steps=10, motion_ratio=1.0))
    run.base.objective = RecordingObjective(run.base.objective)
    list(run.steps)
    for call, (latents, _, _) in zip(run.base.calls, run.base.objective.losses, strict=True):
        for row, given in zip(latents, call["condition"], strict=True):
            [item] = [item for item in run.items["motion"] if torch.equal(item.latents, row)]
            assert (item.conditions == given).all(1).any()


def test_items_without_condition():
    run = Run(settings=make_settings(motion_ratio=1.0))
    run.items["motion"] = make_items("identity")
    assert len(list(run.steps)) == 12 and all(call["condition"] is None for call in run.base.calls)


@pytest.mark.parametrize(("kind", "scale", "share"), [("bottleneck", 2.0, 0.95), ("bottleneck-skip", 0.2, 0.99), ("lora", 2.0, 0.95)])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_goes_down(family, kind, scale, share):
    """Over 60 steps, on timesteps and noise that are the same before and after."""
    settings = make_settings(steps=60, weight_decay=0.0, identity_batch=2, warmup_steps=5)
    run = Run(family, kind, settings, is_filled=False, scale=scale)

    def losses() -> dict[Role, float]:
        found = {}
        for role in ROLES:
            generator = torch.Generator().manual_seed(11)
            total = 0.0
            for item in run.items[role]:
                latents = item.latents[None].expand(8, -1, -1, -1, -1)
                noise = torch.randn(latents.shape, generator=generator)
                timestep = run.base.objective.sample_timesteps(8, generator)
                run.attachment.condition = None if item.conditions is None else item.conditions[:1]
                noisy = run.base.objective.add_noise(latents, noise, timestep)
                with torch.no_grad():
                    output = run.base.predict(noisy, timestep, item.text.expand(8, -1, -1))
                total += float(run.base.objective.loss_per_sample(output, latents, noise, timestep).mean())
            found[role] = total / len(run.items[role])
        return found

    before = losses()
    assert len(list(run.steps)) == 60
    after = losses()
    assert all(after[role] < share * before[role] for role in ROLES), (before, after)


@pytest.mark.parametrize("spoils_gradient", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_divergence_changes_nothing(accumulation, spoils_gradient):
    for offset in {0, accumulation - 1}:
        run = Run(settings=make_settings(accumulation=accumulation))
        run.base.spoils_gradient = spoils_gradient
        run.base.spoil_at = 4 * accumulation + offset
        good = [next(run.steps) for _ in range(4)]
        before, calls = run.snapshot(), len(run.base.calls)
        with pytest.raises(DivergedError, match=r"loss is .* at step 5: the last good state is kept; lower the learning rate"):
            next(run.steps)
        assert is_same(before, run.snapshot())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in run.pair.parameters())
        run.base.spoil_at = None
        spoiled = [call["inputs"] for call in run.base.calls[calls:]]
        again = list(train(run.base, run.attachment, run.items, run.settings, run.state))
        assert is_same(spoiled, [call["inputs"] for call in run.base.calls[calls + len(spoiled) :][: len(spoiled)]])
        assert good + again == list(Run(settings=run.settings).steps), "the step that diverged is not repeated exactly"


class Stop(BaseException):
    """Stands for Ctrl+C."""


@pytest.mark.parametrize("error", [Stop, RuntimeError])
def test_an_error_within_a_step_changes_nothing(error):
    run = Run(settings=make_settings(accumulation=2))
    for _ in range(3):
        next(run.steps)
    before, forward = run.snapshot(), run.base.transformer.forward
    calls = []

    def failing(*args: object, **kwargs: object):
        calls.append(1)
        if len(calls) == 2:
            raise error("stop")
        return forward(*args, **kwargs)

    run.base.transformer.forward = failing
    with pytest.raises(error):
        next(run.steps)
    assert len(calls) == 2 and is_same(before, run.snapshot())


def test_caller_may_stop_between_steps():
    run = Run()
    next(run.steps)
    run.steps.close()
    assert run.state.step == 1 and run.attachment.strengths == {"identity": 1.0, "motion": 1.0}
    rest = list(train(run.base, run.attachment, run.items, run.settings, run.state))
    assert [done.step for done in rest] == list(range(2, 13))
    whole = Run()
    list(whole.steps)
    assert weights_hash(run.pair) == weights_hash(whole.pair)


def test_global_generator_is_neither_used_nor_moved():
    hashes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        run = Run()
        list(run.steps)
        assert torch.equal(before, torch.get_rng_state())
        hashes.append(weights_hash(run.pair))
    assert hashes[0] == hashes[1]


def test_learning_rates_of_the_parts():
    settings = make_settings(
        steps=8, warmup_steps=4, learning_rate=1e-3, identity_learning_rate=2e-3, motion_learning_rate=3e-3, controller_learning_rate=4e-3
    )
    run = Run(settings=settings)
    peaks = {"identity": 2e-3, "motion": 3e-3, "controller": 4e-3}
    for done in run.steps:
        factor = settings.schedule(done.step - 1)
        assert done.learning_rate == pytest.approx(peaks[done.role] * factor)
        for part in (done.role, "controller"):
            assert run.state.optimizers[part].param_groups[0]["lr"] == pytest.approx(peaks[part] * factor)
