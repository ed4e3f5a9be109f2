"""Configuration files: what they change, and that nothing in them is passed over."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from tiny import TinyBase

from dualreal_core.errors import InputError
from dualreal_core.method.pair import ROLES, PairConfig, iterate_sides, new_pair
from dualreal_core.training.recipes import DUALREAL, NOT_SET, PAPER, RECIPES, fit_warmup, read_recipe, with_train
from dualreal_core.training.settings import TrainSettings


@pytest.fixture
def read(tmp_path):
    def reading(text: str, recipe=DUALREAL):
        (tmp_path / "config.toml").write_text(text, encoding="utf-8")
        return read_recipe(tmp_path / "config.toml", recipe)

    return reading


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_an_empty_file_changes_nothing(read, recipe):
    assert read("", recipe) == recipe and read("[train]\n[pair]\n[crops]\n", recipe) == recipe


def test_recipes_make_pairs():
    base = TinyBase("wan")
    skip, ours = (new_pair(base.transformer, **recipe.pair) for recipe in (PAPER, DUALREAL))
    assert skip.config.identity_kind == skip.config.motion_kind == "bottleneck-skip" and skip.config.scale == 0.2
    assert ours.config.identity_kind == ours.config.motion_kind == "lora" and ours.config.scale == 2
    assert skip.controller is not None and skip.config.controller_dim is None and ours.controller is None
    for role in ROLES:
        assert ours.config.rank(role) == 32 and ours.config.scaling(role) == 1
    assert PAPER.train == TrainSettings() and PAPER.crops.num_crops == 1 and DUALREAL.crops.num_crops == 4


def test_prodigy_comes_with_its_rate(read):
    assert read("[train]\noptimizer = 'prodigy'\n", DUALREAL).train.learning_rate == 1
    assert read("[train]\noptimizer = 'prodigy'\nlearning_rate = 0.5\n", DUALREAL).train.learning_rate == 0.5
    assert read("[train]\noptimizer = 'adamw8bit'\n", DUALREAL).train.learning_rate == DUALREAL.train.learning_rate


@pytest.mark.parametrize("part", ["identity", "motion", "controller"])
def test_prodigy_takes_no_small_rate_for_a_part_either(part):
    """It would hardly learn, and nothing would say so."""
    with pytest.raises(ValueError, match=f"{part}_learning_rate is 0.0005; prodigy finds its own step"):
        TrainSettings(optimizer="prodigy", learning_rate=1, **{f"{part}_learning_rate": 5e-4})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_values_take_effect(read, recipe):
    changed = read(
        """
        # a comment
        [train]
        steps = 12
        learning_rate = 1          # a whole number where a fraction may stand
        motion_learning_rate = 0.2
        optimizer = "prodigy"
        gradient_checkpointing = true
        [pair]
        identity_kind = "lora"
        rank = 4
        target_layers = ["to_q", "to_v"]
        share_schedule = [0, 0.5, 1]
        has_controller = false
        controller_dim = 5
        conditions_motion = false
        [crops]
        num_crops = 3
        crop_margin = 0.2
        """,
        recipe,
    )
    assert changed.train == replace(
        recipe.train, steps=12, learning_rate=1, motion_learning_rate=0.2, optimizer="prodigy", gradient_checkpointing=True
    )
    own = {"identity_kind": "lora", "rank": 4, "target_layers": ("to_q", "to_v"), "has_controller": False, "controller_dim": 5}
    own["alpha"] = 4.0
    own["share_schedule"] = (0, 0.5, 1)
    assert changed.pair == {**recipe.pair, **own} and not changed.conditions_motion
    assert (changed.crops.num_crops, changed.crops.crop_margin) == (3, 0.2)
    pair = new_pair(TinyBase("wan").transformer, **changed.pair)
    layers = {layer for role, _, layer, _ in iterate_sides(pair) if role == "identity"}
    assert pair.controller is None and layers == {"attn1.to_q", "attn1.to_v"}
    assert changed.name == recipe.name


def sizes(recipe) -> tuple[float, ...]:
    """Rank, alpha and hidden width of the identity, then of the motion."""
    config = new_pair(TinyBase("wan", 2).transformer, **recipe.pair).config
    return tuple(getattr(config, f"{role}_{name}") for role in ROLES for name in ("rank", "alpha", "bottleneck_dim"))


@pytest.mark.parametrize(("lines", "expected"), [
    ("", (32, 32, 64, 32, 32, 64)),
    ("rank = 8", (8, 8, 64, 8, 8, 64)),
    ("motion_rank = 8", (32, 32, 64, 8, 8, 64)),
    ("motion_rank = 4\nrank = 16", (16, 16, 64, 4, 4, 64)),
    ("rank = 16\nalpha = 8\nmotion_rank = 4", (16, 8, 64, 4, 8, 64)),
    ("identity_rank = 8\nidentity_alpha = 2\nmotion_rank = 4", (8, 2, 64, 4, 4, 64)),
    ("alpha = 8\nmotion_alpha = 2", (32, 8, 64, 32, 2, 64)),
    ("bottleneck_dim = 24\nmotion_bottleneck_dim = 12", (32, 32, 24, 32, 32, 12)),
])  # fmt: skip
def test_a_size_is_for_both_sides_unless_one_has_its_own(read, lines, expected):
    """A rank brings its alpha along, for its side."""
    assert sizes(read(f"[pair]\n{lines}\n")) == expected


def test_a_size_for_both_sides_takes_the_place_of_what_a_recipe_sets_for_one(read):
    own = replace(DUALREAL, pair={**DUALREAL.pair, "motion_rank": 4, "motion_alpha": 2.0})
    assert sizes(own) == (32, 32, 64, 4, 2, 64)
    assert sizes(read("[pair]\nrank = 16\n", own)) == (16, 16, 64, 16, 16, 64)
    assert sizes(read("[pair]\nidentity_rank = 16\n", own)) == (16, 16, 64, 4, 2, 64)


def test_every_setting_can_be_set(read):
    """A file that states each default reads to the same recipe."""

    def line(item, value) -> str:
        shown = (
            {True: "true", False: "false"}[value]
            if isinstance(value, bool)
            else repr(list(value) if item.type.startswith("tuple") else value)
        )
        return f"{item.name} = {shown}\n"

    train = "".join(line(item, item.default) for item in fields(TrainSettings) if item.default is not None)
    own = [item for item in fields(PairConfig) if item.name not in NOT_SET and item.default is not None]
    pair = "".join(line(item, item.default) for item in own)
    changed = read(f"[train]\n{train}[pair]\n{pair}", PAPER)
    assert changed.train == PAPER.train and changed.pair == {**{item.name: item.default for item in own}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[trian]\nsteps = 3\n", ["'trian' at its top level", "[train], [pair], [crops]"]),
        ("steps = 3\n", ["'steps' at its top level"]),
        ("train = 3\n", ["'train' at its top level"]),
        ("[[train]]\nsteps = 3\n", ["'train' at its top level"]),
        ("[train]\nstep = 3\n", ["'step' in [train]", "steps"]),
        ("[train]\nrank = 3\n", ["'rank' in [train]"]),
        ("[train.more]\nsteps = 3\n", ["'more' in [train]"]),
        ("[pair]\nfamily = 'wan'\n", ["'family' in [pair]"]),
        ("[pair]\ndim = 3\n", ["'dim' in [pair]"]),
        ("[pair]\nmotion_condition_dim = 3\n", ["'motion_condition_dim' in [pair]"]),
        ("[train]\noptimizer = 'prodigy'\nlearning_rate = 1e-3\n", ["prodigy finds its own step", "set it to 1"]),
        ("[crops]\nnum_clip_frames = 3\n", ["'num_clip_frames' in [crops]"]),
    ],
)
def test_unknown_names(read, text, words):
    with pytest.raises(InputError) as caught:
        read(text)
    assert "config.toml" in str(caught.value) and all(word in str(caught.value) for word in words), caught.value


VALUES = {
    "train": [
        "steps = 0",
        "steps = 1.5",
        "steps = 'many'",
        "steps = true",
        "steps = []",
        "motion_ratio = 1.5",
        "motion_ratio = nan",
        "learning_rate = 0",
        "learning_rate = -1e-3",
        "learning_rate = '1e-3'",
        "learning_rate = nan",
        "learning_rate = inf",
        "weight_decay = inf",
        "seed = 99999999999999999999",
        "optimizer = 'sgd'",
        "optimizer = 3",
        "optimizer = ['adamw']",
        "precision = 'fp16'",
        "warmup_steps = -1",
        "identity_batch = 1.0",
        "seed = 'x'",
        "clip_norm = 0",
        "gradient_checkpointing = 'no'",
        "gradient_checkpointing = 0",
        "beta1 = 1.0",
        "beta2 = -0.1",
        "eps = 0.0",
        "weight_decay = -1.0",
        "background_weight = 2",
        "accumulation = 0",
        "controller_learning_rate = 'low'",
        "steps = 1979-05-27",
    ],
    "pair": [
        "identity_kind = 'magic'",
        "identity_kind = 1",
        "rank = 0",
        "rank = 2.5",
        "motion_rank = 0",
        "identity_rank = 2.5",
        "identity_rank = 'x'",
        "motion_alpha = -1",
        "motion_alpha = inf",
        "identity_bottleneck_dim = 0",
        "controller_dim = 0",
        "rank = 'x'",
        "bottleneck_dim = -1",
        "scale = 0",
        "learned_range = 0.5",
        "has_controller = 0",
        "has_controller = 'no'",
        "conditions_motion = 'no'",
        "target_layers = 'to_q'",
        "target_layers = [1]",
        "share_schedule = ['late']",
        "share_schedule = 0.5",
        "share_schedule = [0.5, 1.5]",
        "num_groups = 0",
        "alpha = 'x'",
        "motion_condition_dim = 'x'",
    ],
    "crops": [
        "num_crops = 0",
        "num_crops = 1.5",
        "num_crops = 'x'",
        "crop_margin = -1",
        "crop_margin = '0'",
    ],
}


@pytest.mark.parametrize(("table", "line"), [(table, line) for table, lines in VALUES.items() for line in lines])
def test_invalid_values(read, table, line):
    with pytest.raises(InputError, match=r"config\.toml") as caught:
        read(f"[{table}]\n{line}\n")
    key = line.partition(" ")[0].removeprefix("crop_")
    assert key in str(caught.value), "the message does not name the key"


@pytest.mark.parametrize(
    "text", ["[train\nx = 1", "[train]\nsteps = \n", "[train]\nsteps = 1\nsteps = 2\n", "just some words\n", "[train]\nsteps : 3\n"]
)
def test_invalid_toml(read, text):
    with pytest.raises(InputError, match=r"config\.toml is no valid TOML \(.*line.*\): correct that line"):
        read(text)


def test_the_mark_that_some_editors_write_first_is_no_fault(read):
    assert read("\ufeff[train]\nsteps = 3\n").train.steps == 3


def test_not_text(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe[train]")
    with pytest.raises(InputError, match=r"config\.toml is no valid TOML"):
        read_recipe(tmp_path / "config.toml", DUALREAL)


@pytest.mark.parametrize("name", ["nowhere.toml", ""])
def test_missing_file(tmp_path, name):
    with pytest.raises(InputError, match=r"cannot be read .*: check the path of the configuration"):
        read_recipe(tmp_path / name, DUALREAL)


def test_with_train():
    changed = with_train(PAPER, steps=3, seed=9)
    assert (changed.train.steps, changed.train.seed) == (3, 9) and PAPER.train.steps == 1000
    with pytest.raises(ValueError, match=r"steps is 0; it must be at least 1"):
        with_train(PAPER, steps=0)


@pytest.mark.parametrize(("text", "warmup_steps", "is_said"), [
    ("steps = 12", 2, True),
    ("steps = 1000", 200, False),
    ("steps = 3000\nwarmup_steps = 700", 600, True),
    ("steps = 4\nwarmup_steps = 0", 0, False),
])  # fmt: skip
def test_warm_up_takes_a_fifth_of_the_steps_at_most_and_says_so(read, text, warmup_steps, is_said):
    """Whoever sets steps: with a longer warm-up than steps the rate would never arrive."""
    fitted, note = fit_warmup(read(f"[train]\n{text}\n", PAPER))
    assert fitted.train.warmup_steps == warmup_steps and (note is not None) == is_said
    assert note is None or f"{warmup_steps} instead of" in note
    assert max(fitted.train.schedule(step) for step in range(fitted.train.steps)) == 1
