"""The two files of one LoRA are found by their names, however these spell the experts; what is unclear stays so."""

from __future__ import annotations

import pytest

from dualreal_core.families.expert_names import HIGH, LOW, marked_expert, named_expert, partners_of, split_experts

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
    ("a/walk_high.safetensors", "b/walk_low.safetensors"),
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
    found = partners_of("c/walk_h.safetensors", ["a/walk_l.safetensors", "b/walk_l.safetensors"])
    assert found.files == ("a/walk_l.safetensors", "b/walk_l.safetensors") and found.expert == HIGH


@pytest.mark.parametrize(
    ("file", "named", "marked"),
    [
        ("wan2.2_t2v_high_noise_14B_fp16.safetensors", HIGH, HIGH),
        ("wan2.2_t2v_lowNoise.gguf", LOW, LOW),
        ("Wan2_2-T2V-LOW_fp8_e4m3fn_scaled.safetensors", LOW, LOW),
        ("walk_high.safetensors", None, HIGH),
        ("low_poly_world.safetensors", None, LOW),
        ("high_and_low_noise.safetensors", LOW, None),
        ("HIGH_LOW.safetensors", None, None),
        ("walk_h.safetensors", None, None),
        ("highway.safetensors", None, None),
    ],
)
def test_what_a_name_says_by_itself(file: str, named: str | None, marked: str | None) -> None:
    assert (named_expert(file), marked_expert(file)) == (named, marked)
    assert named_expert(None) is None


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
