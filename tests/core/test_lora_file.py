"""LoRA files: names under any prefix, what is left out and said of it, models by their names, trigger words, and what cannot be read."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from tiny import TinyBase

from dualreal_core.errors import InputError
from dualreal_core.storage import load_pair, save_pair
from dualreal_core.storage.lora_file import load_side, triggers_of
from dualreal_core.storage.lora_file.keys import FileLayer, clean, layers_of, split_key
from dualreal_core.storage.lora_file.models import recognise
from dualreal_core.storage.lora_file.resolve import Names, title_of

LAYER = "blocks.1.attn1.to_q"


@pytest.fixture(scope="module")
def wan() -> TinyBase:
    return TinyBase("wan", 2)


@pytest.fixture(scope="module")
def names(wan: TinyBase) -> Names:
    return Names(wan.transformer)


def matrices(name: str, height: int = 32, width: int = 32, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(name))
    down, up = torch.randn(2, width, generator=generator), torch.randn(height, 2, generator=generator)
    return {f"{name}.lora_A.weight": scale * down, f"{name}.lora_B.weight": up}


def side_of(base: TinyBase, folder, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, **how):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "lora.safetensors", metadata)
    return load_side(base.transformer, folder / "lora.safetensors", "identity", **how)


PREFIXES = [
    "", "base_model.model.", "transformer.", "diffusion_model.", "model.diffusion_model.", "unet.", "dit.", "pipe.dit.", "module.",
    "pipe.transformer.", "base_model.model.diffusion_model.", "model.", "net.", "unknown_wrapper.", "module._orig_mod.",
]  # fmt: skip
FLAT = ["lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_", "lora_dit_", "", "lora_", "lycoris_transformer_", "lora_unet_dit_"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_dotted_prefix(names, prefix):
    for name in (LAYER, "blocks.1.self_attn.q", "blocks.0.ffn.2", "head.head", "blocks.1.modulation"):
        assert names.find(clean(prefix + name)) == names.dotted[name], name


@pytest.mark.parametrize("prefix", FLAT)
def test_any_flat_prefix(names, prefix):
    for name in (LAYER, "blocks.1.self_attn.q", "blocks.0.ffn.2", "time_projection.1"):
        assert names.find(prefix + name.replace(".", "_")) == names.dotted[name], name


@pytest.mark.parametrize(
    "name",
    [
        "vace_blocks.1.self_attn.q", "lora_unet_vace_blocks_1_self_attn_q", "text_encoder.blocks.1.self_attn.q", "umt5.blocks.0.ffn.0",
        "lora_te1_blocks_1_self_attn_q", "refiner.blocks.1.self_attn.q", "vae.blocks.0.attn1.to_q", "blocks.7.self_attn.q",
        "audio_encoder.blocks.1.attn1.to_q", "blocks.0.head.head",
    ],
)  # fmt: skip
def test_what_lies_under_something_else_is_no_layer_of_the_model(names, name):
    assert names.find(name) is None


def test_parts_are_told_from_names_of_layers_and_adapters():
    for key, wanted in {
        "a.b.lora_A.default.weight": ("a.b", "down", "default"),
        "a.b.lora_B.my-style_0.weight": ("a.b", "up", "my-style_0"),
        "a.b.lora_B.bias": ("a.b", "up_bias", None),
        "a.lora_down.weight": ("a", "down", None),
        "a.to_q_lora.up.weight": ("a.to_q", "up", None),
        "a.lora.down.weight": ("a", "down", None),
        "a.lora_linear_layer.up.weight": ("a", "up", None),
        "a.lora_magnitude_vector.default.weight": ("a", "dora_scale", "default"),
        "a.lokr_w2_a": ("a", "lokr_w2_a", None),
        "a.modulation.diff": ("a.modulation", "diff", None),
        "a.modulation": ("a.modulation", "value", None),
    }.items():
        assert split_key(key) == wanted
    assert clean("a._orig_mod.b.base_layer") == "a.b"
    assert clean("a.processor.to_q") == "a.to_q"
    assert clean("head.modules_to_save.default") == clean("head.modules_to_save") == "head"
    assert clean("head.original_module") is None


def test_what_is_left_out_and_how_much_of_the_norm_that_is(wan, tmp_path):
    tensors = matrices("blocks.1.self_attn.q") | matrices("blocks.1.cross_attn.k_img", scale=2.0)
    tensors |= {"blocks.0.norm3.diff": torch.ones(32), **matrices("text_encoder.layer")}
    report = side_of(wan, tmp_path, tensors).report
    acts = float((tensors["blocks.1.self_attn.q.lora_B.weight"] @ tensors["blocks.1.self_attn.q.lora_A.weight"]).norm())
    assert report.norms == pytest.approx((0.0, acts), rel=1e-5) and report.norm == pytest.approx(acts, rel=1e-5)
    assert [(share.title, share.num_layers) for share in report.beside] == [("norms", 1)]
    assert report.beside[0].norm == pytest.approx(32**0.5)
    assert [(share.title, share.num_layers, share.num_tensors) for share in report.left_out] == [("img k/v", 1, 0), ("text encoder", 0, 2)]
    assert report.kinds == {"LoRA": 1, "full differences": 1}
    said, in_core = report.sentence(), report.sentence(applies_beside=False)
    assert "with constant strength: norms, 1 layer as blocks.0.norm3" in said and "left out: img k/v" in said
    assert "constant" not in in_core and "left out: norms, 1 layer" in in_core
    assert side_of(wan, tmp_path, matrices(LAYER)).report.sentence() == ""


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (matrices("blocks.5.self_attn.q"), "another model"),
        (matrices(LAYER) | matrices("blocks.5.self_attn.q"), "deeper model.*blocks up to 5"),
        (matrices("double_blocks.0.img_attn.qkv", 9216, 3072), r"seems to be of Flux"),
        (matrices(LAYER, 5120, 5120), r"5120 to 5120 wide.*seems to be of Wan 14B"),
        (matrices(LAYER) | matrices("blocks.1.self_attn.q"), "two updates of the same outputs"),
        ({f"{LAYER}.diff_b": torch.ones(32), "blocks.1.self_attn.q.diff_b": torch.ones(32)}, "two updates of the same outputs"),
        ({f"{LAYER}.lora_A.weight": torch.ones(2, 32)}, "only one of the two matrices"),
        ({f"{LAYER}.lora_A.weight": torch.ones(2, 32), f"{LAYER}.lora_B.weight": torch.ones(32, 3)}, "rank 2 and 3"),
        ({f"{LAYER}.lora_A.weight": torch.ones(2, 32).fill_(torch.inf), f"{LAYER}.lora_B.weight": torch.ones(32, 2)}, "no numbers"),
        ({f"{LAYER}.lora_A.{one}.weight": torch.ones(2, 32) for one in ("cat", "dog")}, r"several adapters \(cat, dog\)"),
        ({f"{LAYER}.vera_lambda_b": torch.ones(2)}, "method VeRA"),
        ({"blocks.0.norm3.diff": torch.ones(32)}, "no layer of this model"),
        ({"text_encoder.q.lora_A.weight": torch.ones(2, 4)}, "text encoder alone"),
        ({name: torch.ones(0, 32) if "_A" in name else torch.ones(32, 0) for name in matrices(LAYER)}, "rank 0"),
        ({f"{LAYER}.weight": torch.ones(32, 32)}, "no LoRA"),
        (matrices(LAYER) | {f"{LAYER}.lora_A.weight": torch.ones(2, 32, dtype=torch.int32)}, "whole numbers in down"),
        (matrices(LAYER) | {f"{LAYER}.lora_A.weight_scale": torch.ones(1)}, "lora_A.weight_scale of blocks.1.attn1.to_q.*no kind"),
        (matrices(LAYER) | {f"{LAYER}.scale": torch.ones(1), f"{LAYER}.alpha": torch.ones(1)}, "both an alpha and a scale"),
    ],
)
def test_refusals_name_the_reason(wan, tmp_path, tensors, message):
    with pytest.raises(InputError, match=rf"lora\.safetensors .*{message}"):
        side_of(wan, tmp_path, tensors)


def test_a_weight_and_its_bias_may_have_names_of_two_programs(wan, tmp_path):
    bias = torch.linspace(-1, 1, 32)
    alone = side_of(wan, tmp_path, matrices(LAYER)).report
    report = side_of(wan, tmp_path, matrices(LAYER) | {"blocks.1.self_attn.q.diff_b": bias}).report
    assert report.kinds == {"LoRA": 1, "biases": 1} and not report.left_out
    assert report.norm**2 == pytest.approx(alone.norm**2 + float(bias.square().sum()), rel=1e-5)


SETTINGS = {
    "aLoRA": {"alora_invocation_tokens": [1]}, "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"}, "QA-LoRA": {"use_qalora": True},
    "olora": {"init_lora_weights": "olora"}, "layer_replication": {"layer_replication": [[0, 2]]}, "DELORA": {"peft_type": "DELORA"},
}  # fmt: skip


@pytest.mark.parametrize("named", SETTINGS)
def test_settings_that_give_a_file_another_meaning_are_refused(wan, tmp_path, named):
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "init_lora_weights": "gaussian", "use_qalora": False, "layer_replication": None}
    for settings in ({}, SETTINGS[named]):
        metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{name}": value for name, value in {**plain, **settings}.items()})}
        with pytest.raises(InputError, match=named) if settings else nullcontext():
            side_of(wan, tmp_path, matrices(LAYER), metadata)


def test_a_number_that_is_a_parameter_is_none_of_a_lora():
    tensors = {"blocks.0.norm.scale": torch.ones(3), "blocks.0.q.lora_A": torch.ones(1, 2), "blocks.0.q.scale": torch.ones(1)}
    assert {name: set(layer.parts) for name, layer in layers_of(tensors).items()} == {
        "blocks.0.q": {"down", "scaling"}, "blocks.0.norm.scale": {"value"}
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["dora_scale", "set_weight"])
def test_what_depends_on_weights_that_cannot_be_read_is_refused(wan, tmp_path, kind):
    dora = matrices(LAYER) | {f"{LAYER}.dora_scale": torch.ones(32, 1)}
    tensors = {f"{LAYER}.set_weight": torch.ones(32, 32)} if kind == "set_weight" else dora
    with pytest.raises(InputError, match="depends on the model's own weights, and these cannot be read"):
        side_of(wan, tmp_path, tensors, weight_of=lambda name: None)
    side_of(wan, tmp_path, tensors)


def test_other_files(wan, tmp_path):
    tensors = matrices(LAYER)
    torch.save({"state_dict": tensors}, tmp_path / "lora.pt")
    assert load_side(wan.transformer, tmp_path / "lora.pt", "motion").report.num_layers == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({f"base_model.model.{name}": tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6}))
    side = load_side(wan.transformer, folder, "motion")
    assert side.report.norm == pytest.approx(3 * load_side(wan.transformer, tmp_path / "lora.pt", "motion").report.norm)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError, match="no complete LoRA file"):
        load_side(wan.transformer, tmp_path / "text.safetensors", "motion")
    with pytest.raises(InputError, match="does not exist"):
        load_side(wan.transformer, tmp_path / "nothing.safetensors", "motion")


def tree(tensors: dict[str, torch.Tensor]) -> dict[str, object]:
    """Modules in modules instead of dotted names."""
    return {"blocks": {"1": {"attn1": {"to_q": {name.removeprefix(f"{LAYER}."): tensor for name, tensor in tensors.items()}}}}}


@pytest.mark.parametrize(
    ("wrapped", "factor"),
    [
        (lambda tensors: {"generator_lora": tensors, "critic_lora": {LAYER: torch.ones(3)}, "step": 7}, 1),
        (lambda tensors: {"adapter of a script": tensors, "optimizer": {"lr": 0.1}}, 1),
        (lambda tensors: {**tensors, "step": 100}, 1),
        (lambda tensors: {"state_dict": tensors, "alpha": 6, "rank": 2}, 3),
        (lambda tensors: {"lora_weights": tensors, "lora_config": {"r": 2, "lora_alpha": 6, "target_modules": {"q"}}}, 3),
        (lambda tensors: tree(tensors), 1),
        (lambda tensors: tree(tensors) | {"more": {"x": torch.ones(1)}}, 1),
    ],
)  # fmt: skip
def test_what_trainers_wrap_a_lora_in(wan, tmp_path, wrapped, factor):
    side_of(wan, tmp_path, matrices(LAYER))
    torch.save(wrapped(matrices(LAYER)), tmp_path / "lora.pt")
    plain, side = (load_side(wan.transformer, tmp_path / f"lora.{suffix}", "motion").report for suffix in ("safetensors", "pt"))
    assert side.num_layers == 1
    assert side.norm == pytest.approx(factor * plain.norm)


@pytest.mark.parametrize("content", [{}, {"step": 1}, {"a": {"b": {}}}, [torch.ones(2)], torch.ones(2)])
def test_torch_files_without_tensors_by_name(wan, tmp_path, content):
    torch.save(content, tmp_path / "lora.pt")
    with pytest.raises(InputError, match="is no LoRA file"):
        load_side(wan.transformer, tmp_path / "lora.pt", "motion")


def test_a_file_in_several_parts(wan, tmp_path):
    first, second = tmp_path / "model-00001-of-00002.safetensors", tmp_path / "model-00002-of-00002.safetensors"
    tensors = matrices(LAYER) | matrices("blocks.0.ffn.2", 32, 48)
    names = list(tensors)
    save_file({name: tensors[name] for name in names[::2]}, first, {"lora_alpha": "2"})
    with pytest.raises(InputError, match=f"{second.name} is not beside it"):
        load_side(wan.transformer, first, "motion")
    save_file({name: tensors[name] for name in names[1::2]}, second)
    for path in (first, second, tmp_path):
        assert load_side(wan.transformer, path, "motion").report.num_layers == 2
    save_file(tensors, tmp_path / "epoch_2.safetensors")
    with pytest.raises(InputError, match="folder of 2 files"):
        load_side(wan.transformer, tmp_path, "motion")


def test_both_experts_in_one_file(wan, tmp_path):
    tensors = {f"transformer{number}.{name}": tensor for number in ("_1", "_2") for name, tensor in matrices(LAYER).items()}
    with pytest.raises(InputError, match="both experts"):
        side_of(wan, tmp_path, tensors)
    assert "Left out 2 tensors of the low-noise expert" in side_of(wan, tmp_path, tensors, expert="high-noise").report.sentence()


MODELS = {
    "Wan 14B": ("diffusion_model.blocks.39.self_attn.q", 5120),
    "Wan 2.1 1.3B": ("lora_unet_blocks_0_ffn_0", 1536),
    "Wan 2.2 5B": ("transformer.blocks.0.attn1.to_q", 3072),
    "LTX-Video 2B": ("transformer.transformer_blocks.0.attn1.to_q", 2048),
    "LTX-Video 13B": ("diffusion_model.transformer_blocks.0.attn1.to_q", 4096),
    "LTX-2": ("diffusion_model.transformer_blocks.0.audio_attn1.to_q", 2048),
    "HunyuanVideo": ("transformer.single_transformer_blocks.39.attn.to_q", 3072),
    "HunyuanVideo 1.5": ("diffusion_model.double_blocks.0.img_attn.qkv", 2048),
    "CogVideoX 5B": ("transformer.transformer_blocks.0.attn1.to_q", 3072),
    "CogVideoX 2B": ("transformer.transformer_blocks.0.attn1.to_q", 1920),
    "MiniMax-H3": ("blocks.0.attn.qkv_proj", 5376),
    "Kandinsky 5": ("lora_unet_visual_transformer_blocks_0_self_attention_to_query", 1792),
    "Flux": ("transformer.single_transformer_blocks.3.attn.to_q", 3072),
    "SDXL": ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 640),
    "Stable Diffusion 1.5": ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 320),
    "Stable Diffusion 3": ("transformer.transformer_blocks.0.attn.add_q_proj", 1536),
    "Qwen-Image": ("transformer.transformer_blocks.0.img_mlp.net.0.proj", 3072),
    "Z-Image": ("diffusion_model.layers.0.attention.to_q", 3840),
}


@pytest.mark.parametrize("title", MODELS)
def test_models_are_known_by_names_and_widths(title):
    name, width = MODELS[title]
    assert recognise([FileLayer(name, {"down": torch.ones(1, width)})]).startswith(title)


def test_unknown_names_are_of_no_model():
    assert recognise([FileLayer("encoder.layer.0.dense", {"down": torch.ones(1, 768)})]) is None


def test_titles():
    for name, title in {
        "diffusion_model.blocks.0.norm3": "norms",
        "blocks.0.self_attn.norm_q": "norms",
        "head.head": "head",
        "lora_unet_time_projection_1": "embeddings",
        "blocks.3.modulation": "modulation",
        "transformer_blocks.0.audio_attn1.to_q": "sound",
        "vace_blocks.0.self_attn.q": "VACE blocks",
    }.items():
        assert title_of(name) == title, name


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": "sks cat"}, ("sks cat",)),
        ({"trigger_words": '["ohwx", "a man"]'}, ("ohwx", "a man")),
        ({"ss_tag_frequency": '{"10_sks dog": {"sks dog": 12, "grass": 4}}'}, ("sks dog",)),
        ({"ss_tag_frequency": '{"img": {"zwx walking": 9, "street": 3, "night": 9}}'}, ("zwx walking", "night")),
        ({"training_info": '{"trigger_word": "p3rs0n"}'}, ("p3rs0n",)),
        ({"ss_tag_frequency": "{", "modelspec.trigger_phrase": "None"}, ()),
        ({}, ()),
    ],
)
def test_trigger_words(metadata, words):
    assert triggers_of(metadata) == words


def test_trigger_words_stand_in_the_header(wan, tmp_path):
    side = side_of(wan, tmp_path, matrices(LAYER), {"trigger_word": "sks cat"})
    assert side.header["prompts"] == {"trigger": "sks cat"} and side.report.triggers == ("sks cat",)
    assert SimpleNamespace(**side.header).source == "lora.safetensors"


FUSED = {
    "LoRA": {"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.ones(96, 2)},
    "LoKr": {"lokr_w1": torch.ones(6, 2), "lokr_w2": torch.ones(16, 16)},
    "DoRA": {"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.ones(96, 2), "dora_scale": torch.ones(1, 32)},
}


@pytest.mark.parametrize("kind", FUSED)
def test_layers_that_a_file_joins_have_weights_of_their_own(wan, tmp_path, kind):
    pair = side_of(wan, tmp_path, {f"blocks.1.attn1.to_qkv.{part}": tensor for part, tensor in FUSED[kind].items()}).pair
    assert len(pair.sides["identity"]) == 3
    weights = list(pair.parameters())
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == len(weights)
    save_pair(tmp_path / "pair.safetensors", pair)
    for name, weight in load_pair(tmp_path / "pair.safetensors")[0].state_dict().items():
        torch.testing.assert_close(weight, pair.state_dict()[name])


def test_a_file_is_held_as_numbers_once(wan, tmp_path, monkeypatch):
    """A file may have gigabytes."""
    layers = []
    monkeypatch.setattr("dualreal_core.storage.lora_file.side.check_twins", lambda *given: layers.extend(given[3].values()))
    side_of(wan, tmp_path, matrices(LAYER))
    assert {tensor.device.type for layer in layers for tensor in layer.parts.values()} == {"meta"}
