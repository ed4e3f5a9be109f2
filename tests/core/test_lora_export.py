"""Pairs out as LoRA files: what diffusers and peft make of them on every family, mixes, experts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import MiniMaxH3Transformer3DModel
from diffusers.loaders import lora_conversion_utils as conversion
from diffusers.models.transformers.transformer_kandinsky import Kandinsky5Transformer3DModel
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import FAMILY_NAMES, OTHER_FAMILIES, TinyBase, fill, make_pair, model_inputs
from tiny_pipelines import PIPELINES, run, transformers
from torch import nn

from dualreal_core.errors import InputError
from dualreal_core.families import CANONICAL
from dualreal_core.families.layer_naming import Naming, places_of_blocks
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import PLANS
from dualreal_core.method.blend_weights import BlendWeights, Denoising
from dualreal_core.method.experts import join_experts
from dualreal_core.method.pair import AdapterPair, PairConfig, lora_key, new_pair
from dualreal_core.pipelines import applied
from dualreal_core.storage import export_lora
from dualreal_core.storage.lora_forms import FORMS

IDENTITY, MOTION = (1.0, 0.5, 0.0), (0.8, 1.2, 0.4)
FAMILIES = (*FAMILY_NAMES, *OTHER_FAMILIES)


class ByGroup:
    """A blend of weights that differ by group, in units of a pair's even weight."""

    def __init__(self, pair: AdapterPair, identity: tuple[float, ...] = IDENTITY, motion: tuple[float, ...] = MOTION) -> None:
        self.numbers = torch.tensor([[*identity, *motion]]) * pair.config.scale / 2

    def scheduled(self, stage: object, noise_level: object = None) -> torch.Tensor:
        return self.numbers

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        return scheduled.view(1, 2, -1).transpose(1, 2)


def lora_pair(base: TinyBase, **settings: object) -> AdapterPair:
    return fill(make_pair(base, "lora", **{"scale": 0.5, "alpha": 6.0, "motion_rank": 3, "num_groups": 3, **settings}))


def output(base: TinyBase) -> torch.Tensor:
    with torch.no_grad():
        return base.predict(*model_inputs())


def adapted(base: TinyBase, pair: AdapterPair) -> torch.Tensor:
    with Attachment(base.transformer, pair, ByGroup(pair)) as attachment:
        attachment.audio_strength = 1.0
        return output(base)


def written(tmp_path: Path, pair: AdapterPair, form: str) -> Path:
    (file,) = export_lora(tmp_path / "mix.safetensors", pair, {"identity": IDENTITY, "motion": MOTION}, form)
    return file.path


def without_prefix(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}


def by_diffusers(path: Path, transformer: nn.Module) -> None:
    transformer.load_lora_adapter(path.parent, weight_name=path.name, prefix="transformer")


def by_diffusers_without_metadata(path: Path, transformer: nn.Module) -> None:
    transformer.load_lora_adapter(load_file(path), prefix="transformer")


def by_peft(path: Path, transformer: nn.Module) -> None:
    fields = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    inject_adapter_in_model(LoraConfig(**{name: fields[name] for name in LORA_FIELDS}), transformer)
    result = set_peft_model_state_dict(transformer, without_prefix(path / "adapter_model.safetensors", "base_model.model."))
    assert not result.unexpected_keys and not [name for name in result.missing_keys if "lora_" in name]


def by_peft_folder(path: Path, transformer: nn.Module) -> None:
    PeftModel.from_pretrained(transformer, path)


LORA_FIELDS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
READERS = {
    "diffusers": ("diffusers", by_diffusers),
    "diffusers without metadata": ("diffusers", by_diffusers_without_metadata),
    "peft": ("peft", by_peft),
    "peft's folder": ("peft", by_peft_folder),
}


BRIEF = {(family, reader) for family in FAMILIES for reader in ("diffusers", "peft's folder")}


@pytest.mark.parametrize(
    ("family", "reader"),
    [
        pytest.param(family, reader, marks=() if (family, reader) in BRIEF else pytest.mark.thorough)
        for family in FAMILIES
        for reader in READERS
    ],
)
def test_others_compute_what_the_pair_does(family: str, reader: str, tmp_path: Path) -> None:
    base, other = TinyBase(family, 4), TinyBase(family, 4)
    pair = lora_pair(base)
    expected = adapted(base, pair)
    form, read = READERS[reader]
    read(written(tmp_path, pair, form), other.transformer)
    assert (expected - output(base)).norm() > 0.02 * expected.norm()
    torch.testing.assert_close(output(other), expected, rtol=1e-5, atol=1e-5)


PIPELINES_TRIED = ("wan", "wan experts", "cogvideox", "ltx", "ltx2", "hunyuan", "hunyuan 1.5")


def pipeline_round_trip(name: str, folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents of a pipeline with a pair of one side on both prompts, without it, and with its file by the pipeline's own loader."""
    pipe, other = PIPELINES[name].make(), PIPELINES[name].make()
    settings = {"identity_kind": "lora", "motion_kind": "none", "rank": 3, "num_groups": 1, "scale": 2.0}
    pairs = [fill(new_pair(one, **settings), 7 + seed, 0.3) for seed, one in enumerate(transformers(pipe))]
    pair = pairs[0] if len(pairs) == 1 else join_experts(*pairs, 0.8)
    with applied(pipe, pair, adapts_negative=True, audio_strength=1.0):
        expected = run(pipe, name)
    files = export_lora(folder / "identity.safetensors", pair, {"identity": 1.0}, "diffusers")
    if hasattr(other, "load_lora_weights"):
        for index, file in enumerate(files):
            other.load_lora_weights(file.path, **({"load_into_transformer_2": True} if index else {}))
    else:
        other.transformer.load_lora_adapter(files[0].path, prefix="transformer")
    return expected, run(pipe, name), run(other, name)


@pytest.mark.parametrize("name", PIPELINES_TRIED)
def test_pipelines_sample_what_the_pair_does(name: str, tmp_path: Path) -> None:
    expected, plain, found = pipeline_round_trip(name, tmp_path)
    effect = (expected - plain).norm()
    assert effect > 0.01 * expected.norm()
    assert (found - expected).norm() < 1e-4 * effect


def pair_of(family: str, layers: dict[int, dict[str, tuple[int, int]]], num_blocks: int) -> AdapterPair:
    """A pair of both sides, in numbers alone, on layers of these (in, out) widths by block."""
    shapes = {lora_key(block, layer): (*widths, 3) for block, own in layers.items() for layer, widths in own.items()}
    config = PairConfig(
        family, 8, num_blocks, 8, "lora", "lora", identity_rank=3, motion_rank=3, identity_alpha=3.0, motion_alpha=3.0, num_groups=1,
        scale=2.0, has_controller=False,
    )  # fmt: skip
    return fill(AdapterPair(config, lora_shapes={"identity": shapes, "motion": shapes}))


def deltas(tensors: dict[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """`up @ down` by layer."""
    layers = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    return {layer.removeprefix(prefix): tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"] for layer in layers}


CONVERTED = {
    "wan": (
        {"attn1.to_q": (8, 8), "attn2.to_k": (8, 8), "ffn.net.0.proj": (8, 12), "ffn.net.2": (12, 8)},
        conversion._convert_non_diffusers_wan_lora_to_diffusers,
    ),
    "ltx": ({"attn1.to_q": (8, 8), "ff.net.0.proj": (8, 12)}, conversion._convert_non_diffusers_ltxv_lora_to_diffusers),
    "ltx2": ({"attn1.to_q": (8, 8), "audio_to_video_attn.to_q": (8, 8)}, conversion._convert_non_diffusers_ltx2_lora_to_diffusers),
    "minimax-h3": (
        {"attn.qkv_proj": (8, 36), "attn.out_proj": (12, 8), "mlp.fc1": (8, 20), "mlp.fc2": (10, 8)},
        conversion._convert_non_diffusers_minimax_h3_lora_to_diffusers,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", CONVERTED)
def test_names_of_comfyui_become_those_of_diffusers_by_its_own_converter(family: str, tmp_path: Path) -> None:
    layers, convert = CONVERTED[family]
    pair = pair_of(family, dict.fromkeys(range(2), layers), 2)
    for form in ("comfyui", "diffusers"):
        export_lora(tmp_path / f"{form}.safetensors", pair, {"identity": 1.0, "motion": 0.5}, form)
    theirs = deltas(convert(load_file(tmp_path / "comfyui.safetensors")))
    ours = deltas(load_file(tmp_path / "diffusers.safetensors"))
    assert theirs.keys() == ours.keys() and len(ours) >= 4
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-6)


def test_kandinsky_has_the_names_of_its_class_in_diffusers() -> None:
    with torch.device("meta"):
        transformer = Kandinsky5Transformer3DModel(model_dim=32, ff_dim=48, num_visual_blocks=1, num_text_blocks=1, axes_dims=(4, 6, 6))
    block = transformer.get_submodule(f"{Naming('kandinsky5', 'diffusers').block_list(0)}.0")
    for listed in CANONICAL["kandinsky5"].block_lists:
        for layer in (*(layer for site in listed.sites for layer in site.linear_layers), *listed.other_layers):
            assert isinstance(block.get_submodule(layer), nn.Linear)


def test_a_layer_of_which_parts_alone_were_changed_has_those_parts(tmp_path: Path) -> None:
    pair = pair_of("hunyuan", {0: {"img_attn.qkv": (8, 24)}}, 54)
    for side in pair.sides.values():
        side["0-img_attn/qkv"].up.weight.data[8:] = 0
    (file,) = export_lora(tmp_path / "query.safetensors", pair, {"identity": 1.0}, "diffusers")
    assert set(deltas(load_file(file.path))) == {"transformer.transformer_blocks.0.attn.to_q"}


@pytest.mark.parametrize(
    ("num_blocks", "layers", "expected"),
    [
        (60, [(3, "img_attn.qkv"), (41, "linear1")], (1, 21)),
        (54, [(3, "txt_mlp.0")], (0, 41)),
        (6, [(3, "img_attn.qkv"), (4, "linear1")], (1, 37)),
    ],
)
def test_blocks_of_two_kinds_are_told_apart(num_blocks: int, layers: list[tuple[int, str]], expected: tuple[int, int]) -> None:
    places = places_of_blocks("hunyuan", num_blocks, layers)
    if num_blocks == 6:
        assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    else:
        assert places[41] == expected


def test_where_blocks_cannot_be_told_apart_it_is_said() -> None:
    with pytest.raises(InputError, match=r"between 2 and 5 are double ones"):
        places_of_blocks("hunyuan", 7, [(1, "img_mlp.0"), (5, "linear2")])


def test_both_experts_have_a_file_each(tmp_path: Path) -> None:
    base = TinyBase("wan", 2)
    high, low = lora_pair(base, num_groups=2, has_controller=False), lora_pair(base, num_groups=2, has_controller=False, motion_kind="none")
    pair = join_experts(high, low, 0.875)
    files = export_lora(tmp_path / "cat.safetensors", pair, {"motion": (1.0, 0.5, 2.0, 2.0), "identity": (1.0, 0.0, 0.0, 0.7)})
    assert [(file.path.name, file.expert) for file in files] == [
        ("cat_high_noise.safetensors", "high-noise"), ("cat_low_noise.safetensors", "low-noise"),
    ]  # fmt: skip
    assert files[0].ranks == (3, 7) and files[1].ranks == (4, 4)  # rank 3 of the motion is in both groups of the first expert alone
    (only,) = export_lora(tmp_path / "motion.safetensors", pair, {"motion": 1.0}, "kohya")
    assert only.expert == "high-noise" and not (tmp_path / "motion_low_noise.safetensors").exists()
    folders = export_lora(tmp_path / "adapter", pair, {"identity": 1.0}, "peft")
    assert [folder.path.name for folder in folders] == ["adapter_high_noise", "adapter_low_noise"]


@pytest.mark.parametrize(("dtype", "near"), [("fp32", 1e-6), ("bf16", 2e-2), ("fp16", 2e-3)])
@pytest.mark.parametrize("form", FORMS)
def test_dtypes_and_strength_without_metadata(form: str, dtype: str, near: float, tmp_path: Path) -> None:
    pair = lora_pair(TinyBase("wan", 3))
    (file,) = export_lora(tmp_path / "lora.safetensors", pair, {"identity": 1.0}, form, dtype=dtype)
    path = file.path / "adapter_model.safetensors" if FORMS[form].is_folder else file.path
    tensors = load_file(path)
    name = FORMS[form].layer("blocks.0.self_attn.q" if FORMS[form].host == "comfy" else "blocks.0.attn1.to_q")
    down, up = (tensors[f"{name}.{FORMS[form].parts[part]}"] for part in ("down", "up"))
    assert {str(down.dtype), str(up.dtype)} == {{"fp32": "torch.float32", "bf16": "torch.bfloat16", "fp16": "torch.float16"}[dtype]}
    adapter = pair.sides["identity"]["0-attn1/to_q"]
    expected = adapter.up.weight @ adapter.down.weight * adapter.scaling * pair.config.scale / 2
    scale = float(tensors[f"{name}.alpha"]) / len(down) if FORMS[form].has_alpha else 1.0
    assert (up.float() @ down.float() * scale - expected).norm() < near * expected.norm()


def test_metadata_say_where_a_file_comes_from(tmp_path: Path) -> None:
    pair = lora_pair(TinyBase("wan", 3))
    header = {
        "digest": "abc", "consent": "The owner agrees.", "prompts": {"trigger": "sks cat", "motion": "a person dances"},
        "datasets": {"identity": ["1"]}, "sources": {"identity": "cat.safetensors"},
    }  # fmt: skip
    for form in FORMS:
        (file,) = export_lora(tmp_path / form / "mix.safetensors", pair, {"identity": 1.0, "motion": 0.8}, form, header, "even")
        path = file.path / "adapter_model.safetensors" if FORMS[form].is_folder else file.path
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
        record = json.loads(metadata["dualreal_export"])
        assert metadata["modelspec.trigger_phrase"] == "sks cat, a person dances"
        assert record["consent"] == "The owner agrees." and record["pair_digest"] == "abc" and record["blend"] == "even"
        assert record["weights"] == {"identity": [1.0] * 3, "motion": [0.8] * 3}
    (file,) = export_lora(tmp_path / "motion.safetensors", pair, {"motion": 1.0}, "kohya", header)
    with safe_open(file.path, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["modelspec.trigger_phrase"] == "a person dances"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"], metadata["ss_network_module"]) == ("3", "3", "networks.lora")


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    pair = lora_pair(TinyBase("wan", 3))
    for form, name in (("comfyui", "lora.safetensors"), ("peft", "folder")):
        export_lora(tmp_path / name, pair, {"identity": 1.0}, form)
        with pytest.raises(InputError, match=f"{name} exists"):
            export_lora(tmp_path / name, pair, {"motion": 1.0}, form)
        export_lora(tmp_path / name, pair, {"motion": 1.0}, form, overwrites=True)


def test_what_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    pair = lora_pair(TinyBase("wan", 3))
    out = tmp_path / "lora.safetensors"
    for change, sentence in (
        ({"form": "onnx"}, "no form 'onnx'"),
        ({"dtype": "fp8"}, "no dtype 'fp8'"),
        ({"weights": {"identity": 0.0}}, "nothing to write"),
        ({"weights": {"identity": (1.0, 1.0)}}, "2 weights of the identity"),
        ({"path": tmp_path / "lora.ckpt"}, "end it in .safetensors"),
    ):
        with pytest.raises(InputError, match=sentence):
            export_lora(**{"path": out, "pair": pair, "weights": {"identity": 1.0}, **change})
    with torch.no_grad():
        pair.sides["identity"]["0-attn1/to_q"].up.weight.fill_(1e6)
    with pytest.raises(InputError, match="values that float16 cannot"):
        export_lora(out, pair, {"identity": 1.0}, dtype="fp16")
    assert not list(tmp_path.iterdir())


def test_the_mean_of_a_plan_and_what_it_loses() -> None:
    pair = lora_pair(TinyBase("wan", 4), has_controller=False)
    weights = BlendWeights.of(PLANS["movement first"].blend(pair.config), pair, Denoising.of_steps(50))
    assert weights.mean("identity") == pytest.approx([1.1 - 0.006] * 3, abs=0.02)
    stray = weights.strays("identity")
    assert stray.least == pytest.approx(0.8, abs=1e-3) and stray.most == pytest.approx(1.4, abs=1e-3) and 0.2 < stray.off < 0.3
    even = BlendWeights.of(PLANS["even"].blend(pair.config), pair, Denoising.of_steps(4))
    assert even.strays("motion").off == 0 and even.step_factors("motion", [1.0] * 3).factors == pytest.approx([1.0] * 4)


def tiny_h3() -> nn.Module:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 6, "hidden_size": 8, "num_layers": 2, "num_refiner_layers": 1, "ffn_dim": 10}
    return MiniMaxH3Transformer3DModel(**sizes, text_dim=8, freq_dim=8, time_embed_hidden_dim=8, time_embed_dim=8, rope_freq_dim=1)


def tiny_kandinsky() -> nn.Module:
    sizes = {"model_dim": 32, "ff_dim": 12, "num_visual_blocks": 2, "num_text_blocks": 1, "axes_dims": (4, 6, 6), "time_dim": 8}
    return Kandinsky5Transformer3DModel(in_text_dim=8, in_text_dim2=8, **sizes)


OTHERS_OF_DIFFUSERS = {
    "minimax-h3": (tiny_h3, {"attn.qkv_proj": (8, 36), "attn.out_proj": (12, 8), "mlp.fc1": (8, 20), "mlp.fc2": (10, 8)}, 6),
    "kandinsky5": (
        tiny_kandinsky, {"self_attention.to_query": (32, 32), "cross_attention.out_layer": (32, 32), "feed_forward.in_layer": (32, 12)}, 3,
    ),
}  # fmt: skip
"""Families on which pairs act in ComfyUI alone: the class in diffusers, layers of a block, and how many these are there."""


@pytest.mark.parametrize("family", OTHERS_OF_DIFFUSERS)
def test_classes_of_diffusers_that_pairs_do_not_act_on_take_the_file_whole(family: str, tmp_path: Path) -> None:
    make, layers, number = OTHERS_OF_DIFFUSERS[family]
    transformer, pair = make(), pair_of(family, dict.fromkeys(range(2), layers), 2)
    (file,) = export_lora(tmp_path / "lora.safetensors", pair, {"identity": 1.0}, "diffusers")
    by_diffusers(file.path, transformer)
    expected = deltas(load_file(file.path), "transformer.")
    found = {name: module for name, module in transformer.named_modules() if hasattr(module, "lora_A")}
    assert found.keys() == expected.keys() and len(found) == 2 * number
    for name, module in found.items():
        delta = module.lora_B["default_0"].weight @ module.lora_A["default_0"].weight * module.scaling["default_0"]
        torch.testing.assert_close(delta, expected[name], rtol=1e-5, atol=1e-6)
