"""The two files of one LoRA are found by their names, however these spell the experts; what is unclear stays so."""

from __future__ import annotations

import pytest

from dualreal_core.families.expert_names import HIGH, LOW, lora_expert, named_expert, partners_of, split_experts

TOGETHER = [
    ("wan22_walk_high_noise.safetensors", "wan22_walk_low_noise.safetensors"),
    ("wan22_walk_high_noise_000002000.safetensors", "wan22_walk_low_noise_000002000.safetensors"),
    ("Wan22-I2V-A14B-HIGH-rank64.safetensors", "Wan22-I2V-A14B-LOW-rank64.safetensors"),
    ("WalkHighNoise_v1.safetensors", "WalkLowNoise_v1.safetensors"),
    ("walk highnoise.safetensors", "Walk_Low-Noise.safetensors"),
    ("walk_HIGH.safetensors", "walk-low-noise.safetensors"),
    ("high_walk.safetensors", "low_walk.safetensors"),
    ("walk_h.safetensors", "walk_l.safetensors"),
    ("walk-H-14B.safetensors", "walk_L_14B.safetensors"),
    ("walk_HN.safetensors", "walk_LN.safetensors"),
    ("transformer.safetensors", "transformer_2.safetensors"),
    ("walk_transformer_1.safetensors", "walk_transformer_2.safetensors"),
    ("folder/high/walk.safetensors", "folder/low/walk.safetensors"),
    ("folder\\walk_high.safetensors", "folder\\walk_low.safetensors"),
    ("low_poly_high.safetensors", "low_poly_low.safetensors"),
    ("歩くhigh.safetensors", "歩くlow.safetensors"),
    ("cat/high_noise.safetensors", "cat/low_noise.safetensors"),
    ("cat_high_noise/step2000.safetensors", "cat_low_noise/step2000.safetensors"),
    ("walk_i2vHIGH.safetensors", "walk_i2vLOW.safetensors"),
]
OTHERS = [
    "high.safetensors",
    "walk.safetensors",
    "run_low_noise.safetensors",
    "walk_low_noise_v9.safetensors",
    "wan22_walk_high_noise_v2.pt",
]


@pytest.mark.parametrize(("high", "low"), TOGETHER)
def test_partners_find_each_other(high: str, low: str) -> None:
    files = [high, *OTHERS, low]
    assert (partners_of(high, files).files, partners_of(high, files).expert) == ((low,), HIGH)
    assert (partners_of(low, files).files, partners_of(low, files).expert) == ((high,), LOW)


@pytest.mark.parametrize(
    ("file", "files"),
    [
        ("walk.safetensors", ["walk_low.safetensors", "walk_high.safetensors"]),
        ("walk_high_v1.safetensors", ["walk_low_v2.safetensors", "walk_high_v1.safetensors"]),
        ("walk_high.safetensors", ["run_low.safetensors", "walk_high_2.safetensors"]),
        ("high_low.safetensors", ["low_high.safetensors"]),
        ("walk_h264.safetensors", ["walk_h265.safetensors"]),
        ("walk_high.safetensors", ["walk_l.safetensors", "walk_transformer_2.safetensors"]),
        ("cat/high_noise.safetensors", ["dog/low_noise.safetensors"]),
        ("cat/lora_high.safetensors", ["dog/lora_low.safetensors", "lora_low.safetensors"]),
        ("cat/step2000_h.safetensors", ["dog/step2000_l.safetensors"]),
        ("a/walk_high.safetensors", ["b/walk_low.safetensors"]),
    ],
)
def test_nothing_is_guessed(file: str, files: list[str]) -> None:
    assert partners_of(file, files).files == ()


def test_the_nearest_is_taken() -> None:
    here, there = "a/walk_low.safetensors", "b/walk_low.safetensors"
    assert partners_of("a/walk_high.safetensors", [there, here]).files == (here,)
    assert partners_of("high/walk_high.safetensors", ["walk_low.safetensors", "low/walk_low.safetensors"]).files == (
        "low/walk_low.safetensors",
    )
    spelled_alike = "walk_low_noise.safetensors"
    assert partners_of("walk_high_noise.safetensors", ["walk_LOW.safetensors", spelled_alike]).files == (spelled_alike,)


def test_several_equally_near_are_all_named() -> None:
    found = partners_of("c/walk_h.safetensors", ["c/walk_l.safetensors", "c/walk-L.safetensors"])
    assert found.files == ("c/walk_l.safetensors", "c/walk-L.safetensors") and found.expert == HIGH


@pytest.mark.parametrize(
    ("file", "expert"),
    [
        ("wan2.2_t2v_high_noise_14B_fp16.safetensors", HIGH),
        ("wan2.2_t2v_lowNoise.gguf", LOW),
        ("merge-High__Noise.safetensors", HIGH),
        ("LOWNOISE/model.safetensors", LOW),
        ("models/Wan2.2-T2V-A14B-high_noise", HIGH),
        ("high_noise_low_vram.safetensors", HIGH),
        ("Wan2_2-T2V-LOW_fp8_e4m3fn_scaled.safetensors", LOW),
        ("Wan2_2-I2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ.safetensors", HIGH),
        ("smoothMixWan2214BI2V_i2vHigh.safetensors", HIGH),
        ("wan22RemixT2VI2V_i2vLowV20.safetensors", LOW),
        ("DaSiWa_Wan22_I2V_14B_q8High.gguf", HIGH),
        ("wan22_i2v_high_14b.safetensors", HIGH),
        ("Wan2.2_Remix_i2v_14b_high_lighting_fp8.safetensors", HIGH),
        ("wan22_t2vlow_q4.gguf", LOW),
        ("Wan2.2-A14B-I2V-HN-Q4_K_M.gguf", HIGH),
        ("low_Wan2.2_T2V.gguf", LOW),
        ("high/wan2.2_t2v_14B.safetensors", HIGH),
        ("low\\wan2.2_t2v_14B.safetensors", LOW),
        ("Wan2.1_T2V_LOW_VRAM.safetensors", None),
        ("wan2.1_HIGH_quality.safetensors", None),
        ("LOW/wan2.1_t2v.safetensors", None),
        ("wan2.1_t2v_HIGH_v2.2.safetensors", None),
        ("t2v_14B_high.safetensors", None),
        ("Wan2.2_T2V_LOW_VRAM.safetensors", None),
        ("wan2.2_ti2v_5B_highvram.safetensors", None),
        ("low storage/wan2.2_t2v.safetensors", None),
        ("wan2.2_high_and_low_noise.safetensors", None),
        ("wan2.2_high_noise_low_noise.safetensors", None),
        ("wan2.2_HIGH_LOW_merged.safetensors", None),
        ("", None),
        (None, None),
    ],
)
def test_which_expert_a_model_is_by_its_name(file: str | None, expert: str | None) -> None:
    assert named_expert(file) == expert


@pytest.mark.parametrize(
    ("file", "expert"),
    [
        ("walk_high.safetensors", HIGH),
        ("MyLora_high_e20.safetensors", HIGH),
        ("x_HN.safetensors", HIGH),
        ("x_ln_v2.safetensors", LOW),
        ("walkLow.safetensors", LOW),
        ("wan22_walk_high_noise_000002000.safetensors", HIGH),
        ("low.safetensors", LOW),
        ("high_lora_v2.safetensors", HIGH),
        ("low/walk.safetensors", LOW),
        ("Wan22-I2V-A14B-LOW-rank64.safetensors", LOW),
        ("low_poly_high_v1.safetensors", HIGH),
        ("LOW_POLY_style.safetensors", None),
        ("MyLowPolyStyle.safetensors", None),
        ("low_angle.safetensors", None),
        ("camera_low_angle_v2.safetensors", None),
        ("highland_dance.safetensors", None),
        ("slow_walk.safetensors", None),
        ("low_res.safetensors", None),
        ("high_quality.safetensors", None),
        ("low_vram.safetensors", None),
        ("high_horse_v1.safetensors", None),
        ("low things/walk.safetensors", None),
        ("wan2.1_walk_high.safetensors", None),
        ("walk_h.safetensors", None),
        ("high_and_low_noise.safetensors", None),
        ("walk_high_low.safetensors", None),
    ],
)
def test_which_expert_a_lora_is_for_by_its_name(file: str, expert: str | None) -> None:
    assert lora_expert(file) == expert


@pytest.mark.parametrize(
    ("high", "low", "stripped"),
    [
        ("transformer.blocks.0.attn1.to_q", "transformer_2.blocks.0.attn1.to_q", "transformer.blocks.0.attn1.to_q"),
        ("transformer_1.blocks.0.q", "transformer_2.blocks.0.q", "transformer.blocks.0.q"),
        ("diffusion_model.transformer_1.blocks.0.q", "diffusion_model.transformer_2.blocks.0.q", "diffusion_model.blocks.0.q"),
        ("lora_unet_transformer_1_blocks_0_q", "lora_unet_transformer_2_blocks_0_q", "lora_unet_blocks_0_q"),
        ("lora_transformer_blocks_0_q", "lora_transformer_2_blocks_0_q", "lora_transformer_blocks_0_q"),
    ],
)
def test_one_file_is_split_by_its_keys(high: str, low: str, stripped: str) -> None:
    suffix = ".lora_A.weight"
    assert split_experts({high + suffix: 1, low + suffix: 2}) == {HIGH: {stripped + suffix: 1}, LOW: {stripped + suffix: 2}}
    assert split_experts({low + suffix: 2}) == {LOW: {stripped + suffix: 2}}


def test_keys_of_one_dit_are_not_split() -> None:
    assert split_experts({"transformer.transformer_blocks.2.attn.to_q.lora_A.weight": 1, "transformer_blocks.1.ff.lora_A.weight": 2}) == {}
