"""What an export holds of a blend, strengths for each step, and `dualreal export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from safetensors.torch import load_file
from tiny import TinyBase, fill, make_pair

from dualreal_core.cli import main
from dualreal_core.commands.arguments import export as arguments
from dualreal_core.errors import InputError
from dualreal_core.method.blend import PLANS
from dualreal_core.method.blend_weights import Denoising, StepFactors
from dualreal_core.method.curves import parse_curves
from dualreal_core.method.experts import join_experts
from dualreal_core.method.family_steps import even_steps, listed_steps, noise_levels
from dualreal_core.method.pair import AdapterPair
from dualreal_core.method.presets import PRESETS
from dualreal_core.storage import save_pair
from dualreal_core.storage.beside_export import BesideParts
from dualreal_core.storage.export_plan import SIDES, plan_export, read_blend
from dualreal_core.storage.exported_files import ExportRequest, write_planned
from dualreal_core.storage.lora_forms import DTYPES, FORMS
from dualreal_core.storage.step_strengths import TOOLS, FileStrengths, float_list, wan2gp_multiplier

SIX = Denoising.of_steps(6, 5.0)


@pytest.fixture(scope="module")
def base() -> TinyBase:
    return TinyBase("wan", 3)


def lora_pair(base: TinyBase, **settings: object) -> AdapterPair:
    return fill(make_pair(base, "lora", **{"scale": 2.0, "has_controller": False, **settings}))


def test_the_command_names_what_the_tables_have() -> None:
    assert (*map(tuple, (FORMS, DTYPES, SIDES, TOOLS)),) == (arguments.FORMS, arguments.DTYPES, arguments.SIDES, arguments.TOOLS)


def test_steps_are_those_of_a_flow_model() -> None:
    assert SIX.sigmas == pytest.approx([1, 0.9615, 0.9091, 0.8333, 0.7143, 0.5], abs=1e-4)
    again = Denoising.of_sigmas([*SIX.sigmas, 0.0], 5.0)
    assert again.sigmas == SIX.sigmas and again.stages == pytest.approx(SIX.stages)
    for wrong in ([0.5, 0.9], [1.2, 0.5], [0.0]):
        with pytest.raises(InputError, match="must fall from at most 1"):
            Denoising.of_sigmas(wrong)
    with pytest.raises(InputError, match="0 steps"):
        Denoising.of_steps(0)


def test_cogvideox_counts_noise_by_its_table(base: TinyBase) -> None:
    """ComfyUI lists its sigmas as noise over signal, from thousands down; the levels are those of its scheduler in diffusers."""
    scheduler = CogVideoXDDIMScheduler(beta_start=0.00085, beta_end=0.012, snr_shift_scale=1.0, rescale_betas_zero_snr=True)
    levels = (1 - scheduler.alphas_cumprod.double()).sqrt()
    assert noise_levels() == pytest.approx(levels.tolist(), abs=1e-5)
    steps = even_steps("cogvideox", 4, 1.0)
    assert steps.stages == (0, 0.25, 0.5, 0.75)
    sigmas = [level / (1 - level**2) ** 0.5 if level < 1 else 5000.0 for level in steps.sigmas]
    again = listed_steps("cogvideox", [*sigmas, 0.0], 1.0)
    assert again.sigmas == pytest.approx(steps.sigmas, abs=1e-6) and again.stages == pytest.approx(steps.stages, abs=1e-3)


def test_curves_are_a_file_of_each_side_times_strengths_for_each_step(base: TinyBase) -> None:
    """A curve over the noise level times one over depth comes back whole."""
    pair, curves = lora_pair(base), parse_curves("identity sigma 1:0.4 0.5:1.4; identity depth 0:1 1:0.5; motion depth 0:0.5 1:1")
    plan = plan_export(pair, None, curves, SIX)
    factors = plan.step_factors("identity")[""]
    assert factors.error < 1e-6
    expected = [[(0.4 + (1 - sigma) * 2) * depth for depth in (1, 0.75, 0.5)] for sigma in SIX.sigmas]
    found = torch.tensor(factors.factors)[:, None] * torch.tensor(plan.weights["identity"])
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert plan.weights["motion"] == pytest.approx([0.5, 0.75, 1.0]) and plan.step_factors("motion")[""].factors == pytest.approx([1.0] * 6)
    (said,) = plan.losses(["identity"])
    assert "runs from 0.2 to 1.4 over denoising and depth" in said and not plan.losses(["motion"])


def test_a_plan_over_both_axes_says_by_how_much_strengths_are_off(base: TinyBase) -> None:
    plan = plan_export(lora_pair(base), None, PLANS["paper trend"], SIX)
    assert 0.01 < plan.step_factors("identity")[""].error < 0.2


def test_fixed_weights_stay_and_strengths_are_of_them(base: TinyBase) -> None:
    plan = plan_export(lora_pair(base), {"identity": 1.0, "motion": 0.5}, PRESETS["movement first"], SIX)
    assert plan.weights == {"identity": [1.0] * 3, "motion": [0.5] * 3}
    assert plan.step_factors("motion")[""].factors == pytest.approx([2.4] * 4 + [1.301, 0.2996], abs=1e-3)


def test_each_expert_has_the_mean_over_its_own_steps(base: TinyBase) -> None:
    pair = join_experts(lora_pair(base), lora_pair(base), 0.9)
    plan = plan_export(pair, None, parse_curves("identity sigma 1:0 0.9:0 0.89:2 0:2"), SIX)
    assert plan.weights["identity"] == pytest.approx([0.0] * 3 + [2.0] * 3) and list(plan.by_expert) == ["high-noise", "low-noise"]
    assert len(plan.step_factors("identity")["high-noise"].factors) == 3


def test_an_expert_without_a_step_is_named(base: TinyBase) -> None:
    """Or its weights would be means over nothing, and its file would not be written."""
    pair, high = join_experts(lora_pair(base), lora_pair(base), 0.9), Denoising.of_sigmas([1.0, 0.95])
    with pytest.raises(InputError, match=r"No step is one of the low-noise expert, which runs at sigmas below 0\.9"):
        plan_export(pair, None, PRESETS["movement first"], high)
    assert plan_export(pair, denoising=high).weights["identity"] == [1.0] * 6
    early = {"stages": [0.0], "identity": [[1.0] * 3], "motion": [[1.0] * 3]}
    with pytest.raises(InputError, match=r"hold no step at stages 0\.471 to 1, where one of the experts runs"):
        plan_export(pair, None, json.dumps(early))


def test_fixed_weights_have_even_strengths(base: TinyBase) -> None:
    """Without a blend each step has the file as it is."""
    for given in ({}, {"fixed": {"identity": 0.7, "motion": 1.2}}, {"strengths": {"identity": 0.5, "motion": 0.0}}):
        plan = plan_export(lora_pair(base), denoising=SIX, **given)
        assert plan.step_factors("identity")[""].factors == pytest.approx([1.0] * 6) and not plan.losses(["identity", "motion"])


def test_what_is_left_out_is_of_the_sides_that_are_written(base: TinyBase, tmp_path: Path) -> None:
    pair, beside = lora_pair(base), {"identity": {"": BesideParts()}, "motion": {"": BesideParts(left=("blocks.0.modulation",))}}
    for side, is_said in (("identity", False), ("motion", True), ("mix", True)):
        written = write_planned(tmp_path / f"{side}.safetensors", pair, plan_export(pair), SIDES[side], ExportRequest(), {}, beside)
        assert ("such as blocks.0.modulation" in "\n".join(written.lines())) == is_said


def test_what_a_stage_blender_learned_is_said_to_be_left_out(base: TinyBase) -> None:
    pair = lora_pair(base, has_controller=True, learned_range=0.01, share_schedule=(0.4, 0.8))
    plan = plan_export(pair, denoising=SIX)
    assert plan.blend == "the pair's own" and plan.weights["identity"][0] == pytest.approx(0.8 + 0.8 * sum(SIX.stages) / 6)
    assert "up to 0.02 of the even weight, follows the video" in plan.losses(["identity", "motion"])[-1]
    with pytest.raises(InputError, match="follow the video, so they are no fixed numbers"):
        plan_export(lora_pair(base, has_controller=True))
    fixed = plan_export(lora_pair(base, has_controller=True), {"identity": 1.0, "motion": 1.0})
    assert not fixed.losses(["identity", "motion"])


def test_data_of_blend_map_are_taken(base: TinyBase, tmp_path: Path) -> None:
    record = {"stages": [0.0, 0.5], "identity": [[0.4, 1.0, 1.0], [0.6, 1.0, 2.0]], "motion": [[1.0] * 3] * 2}
    (tmp_path / "data.json").write_text(json.dumps(record))
    plan = plan_export(lora_pair(base), None, read_blend(str(tmp_path / "data.json")))
    assert plan.weights["identity"] == pytest.approx([0.5, 1.0, 1.5]) and plan.blend == "data of Blend Map"
    halves = plan_export(join_experts(lora_pair(base), lora_pair(base), 0.9), None, json.dumps(record))
    assert halves.weights["identity"] == pytest.approx([0.4, 1.0, 1.0, 0.6, 1.0, 2.0])
    of_one_group = json.dumps({"identity": [[1.0]], "motion": [[1.0]]})
    for wrong, sentence in (("{}", "no data of Blend Map"), (of_one_group, "of 1 groups of blocks")):
        with pytest.raises(InputError, match=sentence):
            plan_export(lora_pair(base), None, wrong)


def test_blends_by_name_text_and_file(tmp_path: Path) -> None:
    (tmp_path / "curves.txt").write_text("motion depth 0:1 1:0.8  # deep\n")
    assert read_blend("own") is None and read_blend("movement first") is PRESETS["movement first"]
    assert read_blend(str(tmp_path / "curves.txt")) == read_blend("motion depth 0:1 1:0.8")
    with pytest.raises(InputError, match="There is no blend 'nope'"):
        read_blend("nope")


def test_the_syntax_of_other_tools() -> None:
    factors = StepFactors((0.4, 0.4, 1.25), 0.0)
    assert wan2gp_multiplier(FileStrengths("cat", factors)) == "0.4,0.4,1.25"
    of_experts = [FileStrengths("cat", factors, phase, 2) for phase in (0, 1)]
    assert [wan2gp_multiplier(own) for own in of_experts] == ["0.4,0.4,1.25;0", "0;0.4,0.4,1.25"]
    assert wan2gp_multiplier(FileStrengths("cat", StepFactors((1.0, 1.0), 0.0), 1, 2)) == "0;1"
    assert float_list(of_experts[1]) == "0.4, 0.4, 1.25"


def test_export_from_end_to_end(base: TinyBase, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pair = lora_pair(base)
    save_pair(tmp_path / "pair.safetensors", pair, {"prompts": {"trigger": "sks"}})
    command = ["export", str(tmp_path / "pair.safetensors"), "--out", str(tmp_path / "loras" / "cat.safetensors")]
    assert main([*command, "--side", "identity", "--weights", "1", "1", "--to", "kohya", "--dtype", "bf16"]) == 0
    assert load_file(tmp_path / "loras" / "cat.safetensors")["lora_unet_blocks_0_self_attn_q.lora_up.weight"].dtype == torch.bfloat16
    assert "18 layers, rank 4" in capsys.readouterr().out
    assert main([*command, "--weights", "1", "1"]) == 2
    assert "cat.safetensors exists" in capsys.readouterr().err
    strengths = ["--side", "both", "--blend", "movement first", "--steps", "6", "--shift", "5", "--strengths", "wan2gp", "wrapper"]
    assert main([*command, *strengths]) == 0
    shown = capsys.readouterr().out
    assert "  all: 0.6622,0.6622,0.6622,0.6622,1.572,1.779 1.286,1.286,1.286,1.286,0.6969,0.1605" in shown
    assert "cat_motion.safetensors: 1.286, 1.286, 1.286, 1.286, 0.6969, 0.1605" in shown
    assert {path.name for path in (tmp_path / "loras").iterdir()} == {f"cat{side}.safetensors" for side in ("", "_identity", "_motion")}
    (tmp_path / "loras" / "cat_identity.safetensors").unlink()
    assert main([*command, "--side", "both"]) == 2  # the motion's file is there
    assert not (tmp_path / "loras" / "cat_identity.safetensors").exists()
    for wrong, sentence in (
        (["--strengths", "wrapper"], "write a file of each"),
        (["--blend", "own"], "has no blend of its own"),
        (["--steps", "4", "--sigmas", "1"], "leave one out"),
    ):
        assert main([*command, *wrong, "--overwrite"]) == 2
        assert sentence in capsys.readouterr().err
