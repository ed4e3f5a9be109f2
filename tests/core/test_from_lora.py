"""A LoRA as one side of a pair computes what its layers' merged weights compute, whatever its names and ranks."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import FAMILY_NAMES, TinyBase, is_same, predict
from torch import nn

from dualreal_core.errors import InputError
from dualreal_core.families import family_of
from dualreal_core.families.layer_spellings import SPELLINGS, Joined, Swapped
from dualreal_core.families.lora_names import NamedRows, lora_names
from dualreal_core.method.from_lora import BlockLayer, LinearUpdate, block_layers, one_sided_pair
from dualreal_core.method.pair import ROLES, split_key
from dualreal_core.storage import load_pair, save_pair

LAYERS = {
    "cogvideox": ("attn1.to_q", "attn1.to_out.0", "ff.net.2"),
    "wan": ("attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ffn.net.0.proj"),
}


def random_update(base: TinyBase, path: str, rank: int = 2, rows: tuple[int, int] | None = None, seed: int = 0) -> LinearUpdate:
    linear = base.transformer.get_submodule(path)
    generator = torch.Generator().manual_seed(seed)
    down = 0.3 * torch.randn(rank, linear.in_features, generator=generator)
    return LinearUpdate(path, down, torch.randn(rows[1] if rows else linear.out_features, rank, generator=generator), rows)


def random_updates(base: TinyBase) -> list[LinearUpdate]:
    """Some layers of some blocks, every one with a rank of its own."""
    path = family_of(base.transformer).block_lists[0].path
    places = [f"{path}.{block}.{layer}" for block in (0, 2, 4) for layer in LAYERS[base.family.name]]
    return [random_update(base, place, rank=1 + index % 3, seed=index) for index, place in enumerate(places)]


def predict_merged(base: TinyBase, updates: list[LinearUpdate]) -> torch.Tensor:
    """The base's output with the updates added to its weights."""
    merged = copy.deepcopy(base)
    with torch.no_grad():
        for update in updates:
            weight = merged.transformer.get_submodule(update.path).weight
            first, count = update.rows or (0, weight.shape[0])
            weight[first : first + count] += update.up @ update.down
    return predict(merged)


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_alone_and_even_it_equals_the_merged_lora(family: str, role: str) -> None:
    base = TinyBase(family)
    updates = random_updates(base)
    pair = one_sided_pair(base.transformer, role, updates)
    wanted = predict_merged(base, updates)
    assert difference(wanted, predict(base)) > 0.01
    assert difference(predict(base, pair), wanted) < 1e-5
    assert list(pair.sides) == [role]
    assert pair.controller is None


def test_updates_of_parts_of_a_layer_become_one_adapter() -> None:
    base = TinyBase("wan")
    path = "blocks.1.attn1.to_q"
    updates = [random_update(base, path, rank, rows, rank) for rank, rows in ((1, (0, 8)), (3, (8, 20)), (2, None))]
    pair = one_sided_pair(base.transformer, "identity", updates)
    (adapter,) = pair.sides["identity"].values()
    assert adapter.down.out_features == pair.config.rank("identity") == pair.config.identity_alpha == 6
    assert difference(predict(base, pair), predict_merged(base, updates)) < 1e-5


def test_bfloat16_updates_become_float32() -> None:
    base = TinyBase("wan")
    update = random_update(base, "blocks.1.attn1.to_q")
    halved = LinearUpdate(update.path, update.down.bfloat16(), update.up.bfloat16())
    pair = one_sided_pair(base.transformer, "identity", [halved])
    assert {parameter.dtype for parameter in pair.parameters()} == {torch.float32}


def test_it_draws_no_random_numbers_and_copies_the_weights() -> None:
    base = TinyBase("wan")
    update = random_update(base, "blocks.1.attn1.to_q")
    state = torch.get_rng_state()
    pair = one_sided_pair(base.transformer, "identity", [update])
    assert torch.equal(state, torch.get_rng_state())
    update.down.zero_()
    assert all(parameter.any() for parameter in pair.parameters())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_its_file_holds_all_of_it(family: str, tmp_path) -> None:
    base = TinyBase(family)
    pair = one_sided_pair(base.transformer, "motion", random_updates(base))
    save_pair(tmp_path / "pair.safetensors", pair, {"source": "a LoRA"})
    loaded, header = load_pair(tmp_path / "pair.safetensors")
    assert loaded.config == pair.config
    assert header["source"] == "a LoRA"
    assert is_same(dict(loaded.state_dict()), dict(pair.state_dict()))
    assert torch.equal(predict(base, loaded), predict(base, pair))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_target_layers_are_the_updated_ones(family: str) -> None:
    base = TinyBase(family)
    pair = one_sided_pair(base.transformer, "motion", random_updates(base))
    assert set(pair.config.target_layers) == set(LAYERS[family])
    blocks = [split_key(key)[0] for key in pair.sides["motion"]]
    assert blocks == sorted(blocks)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_places_outside_blocks_are_refused(family: str) -> None:
    base = TinyBase(family)
    inside = block_layers(base.transformer)
    outside = [name for name, module in base.transformer.named_modules() if isinstance(module, nn.Linear) and name not in inside]
    assert "proj_out" in outside
    for path in outside:
        with pytest.raises(InputError, match="stock LoRA loader"):
            one_sided_pair(base.transformer, "identity", [random_update(base, path)])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_other_linear_layer_of_a_block_can_be_updated(family: str) -> None:
    base = TinyBase(family)
    updates = [random_update(base, path, seed=index) for index, path in enumerate(block_layers(base.transformer))]
    pair = one_sided_pair(base.transformer, "identity", updates)
    assert difference(predict(base, pair), predict_merged(base, updates)) < 1e-4


def test_wrong_widths_are_refused() -> None:
    base = TinyBase("wan")
    path = "blocks.1.attn1.to_q"
    good = random_update(base, path)
    for bad in (
        LinearUpdate(path, good.down[:, 1:], good.up),
        LinearUpdate(path, good.down, good.up[1:]),
        LinearUpdate(path, good.down, good.up, (1, good.up.shape[0])),
        LinearUpdate(path, good.down, good.up, (0, good.up.shape[0] - 1)),
    ):
        with pytest.raises(InputError, match="the layer is 32 to"):
            one_sided_pair(base.transformer, "identity", [bad], "cat.safetensors")
    with pytest.raises(InputError, match=r"cat.safetensors .* rank 1 and 2"):
        one_sided_pair(base.transformer, "identity", [LinearUpdate(path, good.down[1:], good.up)], "cat.safetensors")


def test_no_update_is_refused() -> None:
    with pytest.raises(InputError, match="no layer"):
        one_sided_pair(TinyBase("wan").transformer, "identity", [])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_names_hold_every_layer_by_its_own_path(family: str) -> None:
    base = TinyBase(family)
    names = lora_names(base.transformer)
    for path in block_layers(base.transformer):
        assert names[path] == (NamedRows(path, 0, base.transformer.get_submodule(path).out_features),)


class HunyuanVideo(nn.Module):
    """Where the layers of ComfyUI's HunyuanVideo lie, without what it computes."""

    __module__ = "comfy.ldm.hunyuan_video.model"

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        stream = {"attn.qkv": 3, "attn.proj": 1, "mlp.0": 4, "mlp.2": 1, "mod.lin": 6}
        double = {f"{side}_{name}": width for side in ("img", "txt") for name, width in stream.items()}
        self.double_blocks = nn.ModuleList([_nest(double, dim) for _ in range(2)])
        self.single_blocks = nn.ModuleList([_nest({"linear1": 7, "linear2": 1, "modulation.lin": 3}, dim) for _ in range(3)])
        self.time_in = _nest({"out_layer": 1}, dim)


def _nest(widths: dict[str, int], dim: int) -> nn.Module:
    root = nn.Module()
    for path, width in widths.items():
        *parents, name = path.split(".")
        inputs = 5 * dim if path == "linear2" else 4 * dim if path.endswith("mlp.2") else dim
        module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, nn.Module())
            module = module._modules[parent]
        module.add_module(name, nn.Linear(inputs, width * dim))
    return root


@pytest.fixture
def hunyuan() -> nn.Module:
    return HunyuanVideo()


def test_names_of_diffusers_fall_on_rows_of_fused_layers(hunyuan: nn.Module) -> None:
    names = lora_names(hunyuan)
    for name, rows in {
        "transformer_blocks.1.attn.to_k": ("double_blocks.1.img_attn.qkv", 8, 8),
        "transformer_blocks.1.attn.add_v_proj": ("double_blocks.1.txt_attn.qkv", 16, 8),
        "transformer_blocks.0.ff.net.2": ("double_blocks.0.img_mlp.2", 0, 8),
        "single_transformer_blocks.2.attn.to_q": ("single_blocks.2.linear1", 0, 8),
        "single_transformer_blocks.2.proj_mlp": ("single_blocks.2.linear1", 24, 32),
        "single_transformer_blocks.2.proj_out": ("single_blocks.2.linear2", 0, 8),
        "double_blocks.0.img_mlp.fc1": ("double_blocks.0.img_mlp.0", 0, 32),
        "double_blocks.1.img_attn_qkv": ("double_blocks.1.img_attn.qkv", 0, 24),
        "transformer_blocks.1.attn.to_out": ("double_blocks.1.img_attn.proj", 0, 8),
    }.items():
        assert names[name] == (NamedRows(*rows),), name


def test_a_fused_name_joins_layers_where_the_model_has_parts() -> None:
    names = lora_names(TinyBase("hunyuan", 2).transformer)
    parts = [NamedRows(f"transformer_blocks.0.attn.{part}", 0, 32) for part in ("to_q", "to_k", "to_v")]
    assert names["double_blocks.0.img_attn.qkv"] == names["double_blocks.0.img_attn_qkv"] == tuple(parts)
    halves = [NamedRows("norm_out.linear", first, 32) for first in (32, 0)]
    assert names["final_layer.adaLN_modulation.1"] == tuple(halves)


def test_every_other_name_leads_to_a_layer(hunyuan: nn.Module) -> None:
    names = lora_names(hunyuan)
    for listed in SPELLINGS["hunyuan"].blocks[:2]:
        linear = {ours: theirs for ours, theirs in listed.layers.items() if "norm." not in ours}
        for theirs in linear.values():
            for layer in theirs.names if isinstance(theirs, Joined) else [theirs.name if isinstance(theirs, Swapped) else theirs]:
                assert f"{listed.diffusers}.0.{layer}" in names
        assert {f"{listed.comfy}.0.{other}" for other, ours in listed.others.items() if ours in linear} <= set(names)


def test_blocks_of_a_second_list_count_on(hunyuan: nn.Module) -> None:
    places = block_layers(hunyuan)
    assert places["double_blocks.1.txt_mlp.2"] == BlockLayer(1, "txt_mlp.2", 0, 8)
    assert places["single_blocks.0.linear1"] == BlockLayer(2, "linear1", 0, 56)
    update = LinearUpdate("single_blocks.2.linear1", torch.ones(1, 8), torch.ones(8, 1), (8, 8))
    pair = one_sided_pair(hunyuan, "motion", [update])
    assert list(pair.sides["motion"]) == ["4-linear1"]
    assert pair.sides["motion"]["4-linear1"].up.weight.sum(1).tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 40
