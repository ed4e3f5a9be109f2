"""Evaluations: what is held out, what is measured, and that measuring changes nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import TinyBase, all_items, fill, is_same, make_items, make_pair, weights_hash

from dualreal_core.method.attach import Attachment
from dualreal_core.training.evaluation import NUM_ROWS, Evaluator, fixed_batches, fixed_timesteps
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.validation import Split, split_items

SETTINGS = TrainSettings(evaluate_every=1, motion_batch=2)


def views(names: str, num_crops: int = 2) -> list:
    """Samples of photos, each of some views; the letters are their fingerprints."""
    items = make_items("identity", len(names) * num_crops)
    return [
        dataclasses.replace(item, fingerprint=names[index // num_crops], source=f"{names[index // num_crops]} {index % num_crops}")
        for index, item in enumerate(items)
    ]


def prints(items) -> set[str]:
    return {item.fingerprint for item in items}


def splits(items: dict, amount: float = 0.0) -> dict[str, Split]:
    return {role: split_items(items[role], role, amount, 0) for role in items}


def evaluate(base, pair, items=None, amount=0.0, settings=SETTINGS):
    with Attachment(base.transformer, pair) as attachment:
        return Evaluator(base, attachment, splits(items or all_items(), amount), settings).evaluate(1).sides


@pytest.mark.parametrize(("amount", "num_held_out"), [(0.1, 1), (0.4, 2), (1, 1), (2, 2)])
def test_whole_photos_are_held_out(amount, num_held_out):
    split = split_items(views("abcde"), "identity", amount, 0)
    assert len(prints(split.validation)) == num_held_out and not prints(split.validation) & prints(split.trained)
    assert len(split.validation) == 2 * num_held_out and len(split.trained) + len(split.validation) == 10
    assert split.num_files == 5 and len(split.names) == num_held_out
    assert split.basis == f"held out: {num_held_out} of 5 photos"


def test_three_remain_to_train_on():
    split = split_items(views("abcde"), "identity", 4, 0)
    assert len(prints(split.trained)) == 3 and "held out: 2 of 5 photos, as 3 must remain" in split.basis


@pytest.mark.parametrize("names", ["a", "abc"])
def test_too_few_are_not_held_out(names):
    split = split_items(views(names), "motion", 0.2, 0)
    assert split.validation == [] and len(split.trained) == 2 * len(names)
    assert split.basis == f"training data: {len(names)} clips are too few to hold out any"
    assert "none held out" in split_items(views(names), "motion", 0, 0).basis


def test_the_seed_and_the_content_decide_what_is_held_out():
    chosen = [prints(split_items(views("abcdefgh"), "identity", 1, seed).validation) for seed in range(12)]
    assert len({frozenset(one) for one in chosen}) > 1
    for seed, before in enumerate(chosen):
        assert prints(split_items(views("hgfedcba"), "identity", 1, seed).validation) == before
        assert prints(split_items(views("xabcdefgh"), "identity", 1, seed).validation) in (before, {"x"})


def test_samples_of_unknown_origin_are_files_of_their_own():
    items = make_items("motion", 5)
    split = split_items(items, "motion", 2, 0)
    assert split.num_files == 5 and len(split.validation) == 2
    reordered = split_items(items[::-1], "motion", 2, 0)
    assert {item.source for item in reordered.validation} == {item.source for item in split.validation}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"evaluate_every": -1}, "evaluate_every is -1; it must not be negative"),
        ({"patience": -1, "evaluate_every": 1}, "patience is -1; it must not be negative"),
        ({"validation_split": -0.1, "evaluate_every": 1}, "validation_split is -0.1; it must not be negative"),
        ({"validation_split": 1.5, "evaluate_every": 1}, "validation_split is 1.5; it must be a share below 1 or a whole number"),
        ({"validation_split": float("nan"), "evaluate_every": 1}, "validation_split is nan"),
        ({"validation_split": float("inf"), "evaluate_every": 1}, "validation_split is inf"),
        ({"validation_split": 0.2}, "validation_split is 0.2, but evaluate_every is 0"),
        ({"save_best": True}, "save_best is True, but evaluate_every is 0"),
        ({"patience": 2}, "patience is 2, but evaluate_every is 0"),
    ],
    ids=str,
)
def test_settings_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainSettings(**settings)


@pytest.mark.parametrize("family", ["cogvideox", "wan"])
def test_timesteps_are_the_noisier_of_those_that_training_draws(family):
    objective = TinyBase(family, 2).objective
    batches = fixed_batches(make_items("identity", 3), "identity", fixed_timesteps(objective, "identity"), NUM_ROWS, 1.0)
    timesteps = torch.cat([batch.timestep for batch in batches]).float()
    drawn = objective.sample_timesteps(20000, torch.Generator().manual_seed(0)).float()
    shares = torch.stack([(drawn < timestep).float().mean() for timestep in timesteps.sort().values])
    assert (shares - (0.5 + (torch.arange(NUM_ROWS) + 0.5) / NUM_ROWS / 2)).abs().max() < 0.03
    noise = [objective.add_noise(0 * batch.latents, 0 * batch.noise + 1, batch.timestep)[:, 0, 0, 0, 0] for batch in batches]
    assert torch.equal(torch.cat(noise).argsort(), timesteps.argsort())


def test_every_file_is_seen_before_one_is_seen_twice():
    timesteps = fixed_timesteps(TinyBase("wan", 2).objective, "identity")
    batches = fixed_batches(views("abc", 4), "identity", timesteps, 1, 1.0)
    first = {item.latents.sum().item() for item in views("abc", 4)[::4]}
    assert {batch.latents.sum().item() for batch in batches[:3]} == first and len(batches) == NUM_ROWS


@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
def test_an_untrained_pair_is_the_base(kind):
    for side in evaluate(base := TinyBase("wan", 2), make_pair(base, kind, num_groups=2)).values():
        assert side.loss == side.single_loss == side.base_loss and side.loss_ratio == 1
        assert side.leakage == side.interference == 0


def test_losses_are_those_of_the_model():
    """Against the plain model, and against pairs that lack the other side."""
    base, items = TinyBase("wan", 2), all_items()
    pair = fill(make_pair(base, "lora", num_groups=2, has_controller=False))
    sides = evaluate(base, pair, items)
    for role, other in (("identity", "motion"), ("motion", "identity")):
        single = make_pair(base, "lora", num_groups=2, has_controller=False, **{f"{other}_kind": "none"})
        single.load_state_dict({name: value for name, value in pair.state_dict().items() if f"sides.{other}" not in name})
        losses = {}
        for name, tried in (("base_loss", None), ("single_loss", single), ("loss", pair)):
            attachment = Attachment(base.transformer, tried) if tried else None
            rows = []
            for batch in fixed_batches(items[role], role, fixed_timesteps(base.objective, role), 2, 1.0):
                noisy = base.objective.add_noise(batch.latents, batch.noise, batch.timestep)
                with torch.no_grad():
                    output = base.predict(noisy, batch.timestep, base.batch_texts(batch.texts))
                rows.append(base.objective.loss_per_sample(output, batch.latents, batch.noise, batch.timestep))
            losses[name] = float(torch.cat(rows).mean())
            if attachment:
                attachment.detach()
        assert losses == pytest.approx({name: getattr(sides[role], name) for name in losses}, rel=1e-5)
        assert len({round(loss, 6) for loss in losses.values()}) == 3


def test_the_motion_side_sees_its_condition():
    base, items = TinyBase("wan", 2), all_items()
    pair = fill(make_pair(base, num_groups=2))
    blind = {**items, "motion": [dataclasses.replace(item, conditions=None) for item in items["motion"]]}
    assert evaluate(base, pair, items)["motion"].single_loss != evaluate(base, pair, blind)["motion"].single_loss


@pytest.mark.parametrize("focus", [0.0, 3.0])
def test_leak_compares_the_change_on_both_kinds_of_data(focus):
    """And nothing else: it is 1 on equal data, also where each side is looked at in stages of its own."""
    base, settings = TinyBase("wan", 2), dataclasses.replace(SETTINGS, timestep_bias=focus)
    pair = fill(make_pair(base, "lora", num_groups=2, share_schedule=(0.2, 0.8)))
    photos = make_items("identity")
    for side in evaluate(base, pair, {"identity": photos, "motion": photos}, settings=settings).values():
        assert side.leakage == pytest.approx(1)
    sides = evaluate(base, pair, settings=settings)
    assert all(side.leakage > 0 for side in sides.values()) and sides["identity"].leakage != pytest.approx(sides["motion"].leakage)


def test_rows_have_the_stage_that_training_gives_them():
    """A blend that follows denoising must see it: a course that is uneven weighs the sides otherwise than an even one."""
    base = TinyBase("wan", 2)
    losses = []
    for share_schedule in ((), (0.0, 1.0)):
        pair = fill(make_pair(base, "lora", num_groups=2, share_schedule=share_schedule))
        for parameter in pair.controller_parameters():
            parameter.data.zero_()
        losses.append(evaluate(base, pair)["identity"].single_loss)
    assert losses[0] != losses[1]


def test_each_side_is_looked_at_where_it_trains():
    base = TinyBase("wan", 2)
    stages = {role: base.objective.stage(fixed_timesteps(base.objective, role, (0.2, 0.8), 3.0)).mean() for role in ("identity", "motion")}
    assert stages["identity"] > stages["motion"] + 0.1
    pair = make_pair(base, "lora", num_groups=2, share_schedule=(0.2, 0.8))
    plain, focused = (evaluate(base, pair, settings=dataclasses.replace(SETTINGS, timestep_bias=focus)) for focus in (0.0, 3.0))
    for role in stages:
        assert plain[role].base_loss != focused[role].base_loss


def test_masks_weigh_the_loss():
    base = TinyBase("wan", 2)
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., :2] = 1
    items = all_items()
    masked = {**items, "identity": [dataclasses.replace(item, mask=mask) for item in items["identity"]]}
    pair = make_pair(base, num_groups=2)
    assert evaluate(base, pair, items)["identity"].base_loss != evaluate(base, pair, masked)["identity"].base_loss


def test_training_data_is_compared_where_others_are_held_out():
    base = TinyBase("wan", 2)
    pair = fill(make_pair(base, "lora", num_groups=2))
    assert all(side.train_loss_ratio is None for side in evaluate(base, pair).values())
    for side in evaluate(base, pair, all_items(6), 2).values():
        assert side.train_loss_ratio > 0 and side.train_loss_ratio != side.loss_ratio


@pytest.mark.parametrize(("side", "ratio"), [("identity", 0.0), ("motion", 1.0)])
def test_a_single_side(side, ratio):
    """A pair that has one side only, and a pair of which one side is never trained."""
    base = TinyBase("wan", 2)
    other = "motion" if side == "identity" else "identity"
    settings = dataclasses.replace(SETTINGS, motion_ratio=ratio)
    for kinds in ({f"{other}_kind": "none"}, {}):
        sides = evaluate(base, fill(make_pair(base, "lora", num_groups=2, **kinds)), settings=settings)
        assert list(sides) == [side] and sides[side].leakage > 0
        assert (sides[side].interference == 0) == bool(kinds)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluating_changes_nothing(precision):
    base = TinyBase("wan", 2)
    pair = fill(make_pair(base, num_groups=2))
    before = weights_hash(pair), weights_hash(base.transformer), torch.get_rng_state()
    with Attachment(base.transformer, pair) as attachment:
        attachment.condition, attachment.stage, attachment.strengths = torch.ones(1, 6), 0.3, {"identity": 0.5, "motion": 0.0}
        evaluator = Evaluator(base, attachment, splits(all_items()), dataclasses.replace(SETTINGS, precision=precision))
        first, second = evaluator.evaluate(1), evaluator.evaluate(1)
        assert first == second
        assert torch.equal(attachment.condition, torch.ones(1, 6)) and attachment.stage == 0.3
        assert attachment.strengths == {"identity": 0.5, "motion": 0.0}
    assert is_same(before, (weights_hash(pair), weights_hash(base.transformer), torch.get_rng_state()))
    assert all(parameter.grad is None for parameter in pair.parameters())
