"""Files users keep: round trips, what other programs read and wrote, and every way a file can be wrong."""

from __future__ import annotations

import errno
import json
import pickle
from itertools import product
from pathlib import Path

import pytest
import torch
from golden import GOLDEN, needs_golden
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import CONDITION_DIM, FAMILY_NAMES, KINDS, TinyBase, fill, is_same, make_pair, model_inputs, predict

from dualreal_core.attach import Attachment
from dualreal_core.blend import FixedBlend
from dualreal_core.errors import InputError
from dualreal_core.pair import AdapterPair, iterate_sides
from dualreal_core.storage import load_pair, read_header, read_lora, read_reference, save_pair, write_lora
from dualreal_core.storage.format import FORMAT_VERSION, HEADER_KEY

COMBINATIONS = [both for both in product((*KINDS, "none"), repeat=2) if both != ("none", "none")]
HEADER = {
    "base": {"name": "tiny", "encoders": "abc"},
    "prompts": {"identity": "a * dog", "motion": "a dog jumps", "trigger": "*"},
    "training": {"steps": 7},
    "datasets": {"identity": ["0" * 64], "motion": []},
    "consent": "my own dog — ü 犬",
}


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def base(request) -> TinyBase:
    return TinyBase(request.param, 2)


@pytest.fixture(scope="module")
def wan() -> TinyBase:
    return TinyBase("wan", 2)


def tiny_pair(base: TinyBase, **settings: object) -> AdapterPair:
    return fill(make_pair(base, **{"num_groups": 2, **settings}))


def layers_of(pair: AdapterPair) -> list[str]:
    """Linear layers that LoRA sides update, without block numbers."""
    return sorted({layer for *_, layer, _ in iterate_sides(pair)})


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: object) -> None:
    """Changes tensors, header fields or (as `config`) fields of the stored configuration; None removes."""
    header = read_header(path)
    for key, value in changes.items():
        if key == "config" and isinstance(value, dict):
            header["config"] = {name: field for name, field in {**header["config"], **value}.items() if field is not REMOVED}
        else:
            header[key] = value
    save_file(
        load_file(path) if tensors is None else tensors,
        path,
        {HEADER_KEY: json.dumps({k: v for k, v in header.items() if v is not REMOVED})},
    )


REMOVED = ...


@pytest.mark.parametrize(("identity", "motion"), COMBINATIONS)
def test_round_trip(base, tmp_path, identity, motion):
    pair = tiny_pair(
        base, identity_kind=identity, motion_kind=motion, scale=0.5, floor=0.1, alpha=6.0, identity_condition_dim=CONDITION_DIM
    )
    save_pair(tmp_path / "new" / "pair.safetensors", pair, HEADER)
    loaded, header = load_pair(tmp_path / "new" / "pair.safetensors")
    assert loaded.config == pair.config and is_same(dict(loaded.state_dict()), dict(pair.state_dict()))
    assert torch.equal(predict(base, loaded), predict(base, pair)) and not torch.equal(predict(base, pair), predict(base))
    assert header.items() >= HEADER.items() and header == read_header(tmp_path / "new" / "pair.safetensors")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["pair.safetensors"]


@pytest.mark.parametrize(
    "settings",
    [
        {"has_controller": False},
        {"kind": "lora", "target_layers": ("to_q", "to_k")},
        {"num_groups": 1},
        {"course": (0.25, 0.75)},
        {"controller_dim": 4},
    ],
    ids=str,
)
def test_round_trip_of_options(base, tmp_path, settings):
    pair = tiny_pair(base, **settings)
    save_pair(tmp_path / "pair.safetensors", pair)
    loaded, _ = load_pair(tmp_path / "pair.safetensors")
    assert loaded.config == pair.config and is_same(dict(loaded.state_dict()), dict(pair.state_dict()))


CHANGED_ADAPTERS = {
    "shape": lambda weights: {name: weight.flatten() for name, weight in weights.items()},
    "block": lambda weights: {name.replace(".1-", ".9-"): weight for name, weight in weights.items()},
}


@pytest.mark.parametrize("change", CHANGED_ADAPTERS)
def test_adapters_of_a_wrong_shape_or_block(wan, tmp_path, change):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan, kind="lora"))
    rewrite(path, CHANGED_ADAPTERS[change](load_file(path)), digest=REMOVED)
    with pytest.raises(InputError, match=r"pair\.safetensors does not hold what its header says"):
        load_pair(path)


def test_header_and_names(wan, tmp_path):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan), HEADER)
    header = read_header(path)
    assert header["format_version"] == FORMAT_VERSION == 3
    assert header["config"].items() >= {"family": "wan", "dim": 32, "num_blocks": 2, "motion_condition_dim": CONDITION_DIM}.items()
    assert {"date", "dualreal", "torch", "diffusers", "peft", "safetensors"} <= set(header["provenance"])
    with safe_open(path, "pt") as file:
        assert {*file.metadata()} == {HEADER_KEY}
        names = set(file.keys())
    assert {"identity.0-attn.down.weight", "motion.1-ff.condition.bias", "controller.out.weight"} <= names
    assert {name.split(".")[0] for name in names} == {"identity", "motion", "controller"}


@pytest.mark.parametrize(("has_controller", "version", "is_kept"), [(False, 1, False), (False, 2, True), (True, 1, True)])
def test_a_course_counts_without_controller_from_version_2_on(wan, tmp_path, has_controller, version, is_kept):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan, has_controller=has_controller, course=(0.25, 0.75)))
    rewrite(path, format_version=version)
    assert load_pair(path)[0].config.course == ((0.25, 0.75) if is_kept else ())


def test_low_precision_weights_are_kept(wan, tmp_path):
    pair = tiny_pair(wan).to(torch.bfloat16)
    save_pair(tmp_path / "pair.safetensors", pair)
    assert {tensor.dtype for tensor in load_file(tmp_path / "pair.safetensors").values()} == {torch.bfloat16}
    loaded, _ = load_pair(tmp_path / "pair.safetensors")
    assert is_same(dict(loaded.to(torch.bfloat16).state_dict()), dict(pair.state_dict()))


def test_headers_without_later_fields_load(wan, tmp_path):
    """Fields of the configuration that were added later have defaults, and those mean what older files did."""
    path, pair = tmp_path / "pair.safetensors", tiny_pair(wan, bottleneck_dim=64, rank=16)
    save_pair(path, pair)
    optional = (
        "target_layers",
        "course",
        "rank",
        "alpha",
        "floor",
        "scale",
        "identity_kind",
        "motion_kind",
        "has_controller",
        "controller_dim",
        "bottleneck_dim",
    )
    rewrite(path, config=dict.fromkeys((*optional, "identity_condition_dim"), REMOVED), provenance=REMOVED)
    loaded, _ = load_pair(path)
    assert loaded.config == pair.config and is_same(dict(loaded.state_dict()), dict(pair.state_dict()))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated(wan, tmp_path, share):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    for read in (load_pair, read_header):
        with pytest.raises(InputError, match=r"pair\.safetensors is no complete safetensors file"):
            read(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("content", [b"just some words\n" * 100, b"", b"\x00" * 500, b"\xff" * 500])
def test_other_content(tmp_path, suffix, content):
    path = tmp_path / f"pair{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"pair\{suffix} is no "):
        load_pair(path)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "nowhere.pth", ""])
def test_missing(tmp_path, name):
    with pytest.raises(InputError, match="does not exist: check the path"):
        load_pair(tmp_path / name)


def test_other_safetensors(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is no DualReal pair"):
        load_pair(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"bottleneck_dim": 9},
        {"dim": 33},
        {"dim": "32"},
        {"dim": REMOVED},
        {"num_blocks": 3},
        {"num_blocks": 0},
        {"num_groups": 1},
        {"num_groups": 0},
        {"time_dim": 5},
        {"identity_kind": "none"},
        {"identity_kind": "lora"},
        {"motion_kind": "magic"},
        {"motion_condition_dim": None},
        {"has_controller": False},
        {"family": "cogvideo"},
        {"family": REMOVED},
        {"floor": 0.7},
        {"course": [0.5, 2]},
        {"course": "late"},
        {"course": None},
        {"scale": "large"},
        {"target_layers": None},
        {"invented": 1},
        {"time_dim": 10**6},  # a StageBlender of 48 TB
    ],
    ids=str,
)
def test_changed_configuration(wan, tmp_path, change):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan))
    rewrite(path, config=change)
    with pytest.raises(InputError, match=r"pair\.safetensors does not hold what its header says"):
        load_pair(path)


@pytest.mark.parametrize("config", [REMOVED, None, [], "text"])
def test_no_configuration(wan, tmp_path, config):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan))
    rewrite(path, config=config)
    with pytest.raises(InputError, match=r"pair\.safetensors does not hold what its header says"):
        load_pair(path)


@pytest.mark.parametrize("header", ["", "words", "[]", "3", "null", "{}", '{"format_version": null}', '{"format_version": "one"}'])
def test_damaged_header(tmp_path, header):
    save_file({"weight": torch.zeros(2)}, tmp_path / "pair.safetensors", {HEADER_KEY: header})
    for read in (load_pair, read_header):
        with pytest.raises(InputError, match=r"pair\.safetensors has a damaged 'dualreal' header"):
            read(tmp_path / "pair.safetensors")


def test_newer_format(wan, tmp_path):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan))
    rewrite(path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(InputError, match=r"format version 4, newer than 3: update DualReal"):
        load_pair(path)


@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
def test_missing_and_extra_tensors(wan, tmp_path, kind):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan, kind=kind))
    whole = load_file(path)
    for name in whole:
        rewrite(path, {other: tensor for other, tensor in whole.items() if other != name})
        with pytest.raises(InputError, match="does not hold what its header says"):
            load_pair(path)
    rewrite(path, {**whole, "identity.0-attn.extra": torch.zeros(1)})
    with pytest.raises(InputError, match="does not hold what its header says"):
        load_pair(path)


class Bomb:
    """Creates a file when unpickled with code allowed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("container", [lambda bomb: bomb, lambda bomb: {"transformer_blocks.0.id_attn_adapter.down_linear.weight": bomb}])
@pytest.mark.parametrize(
    "writes", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))], ids=["zip", "plain"]
)
def test_pickled_code_does_not_run(tmp_path, writes, container):
    mark, path = tmp_path / "it ran", tmp_path / "pair.pth"
    writes(container(Bomb(mark)), path)
    with pytest.raises(InputError, match=r"pair\.pth is no checkpoint of plain tensors \(nothing in it was executed\)"):
        load_pair(path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if writes is torch.save else pickle.loads(path.read_bytes())
    assert mark.exists(), "the bomb does not work, so this test shows nothing"


def test_pth_with_other_things(tmp_path):
    for content in ([torch.zeros(1)], {"step": 3}, {"model": {"weight": torch.zeros(1)}}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(InputError, match="does not hold a flat dict of tensors"):
            read_reference(tmp_path / "other.pth")
    for content in ({}, {"weight": torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(InputError, match="no complete checkpoint of the reference"):
            load_pair(tmp_path / "other.pth")


@needs_golden
def test_reference_forms_agree(tmp_path):
    from_pth, header = load_pair(GOLDEN / "adapter.pth")
    from_safetensors, _ = load_pair(GOLDEN / "adapter.safetensors")
    assert from_pth.config == from_safetensors.config and header["source"] == "adapter.pth"
    assert is_same(dict(from_pth.state_dict()), dict(from_safetensors.state_dict()))
    save_pair(tmp_path / "own.safetensors", from_pth)
    own, _ = load_pair(tmp_path / "own.safetensors")
    assert own.config == from_pth.config and is_same(dict(own.state_dict()), dict(from_pth.state_dict()))


@needs_golden
def test_incomplete_reference(tmp_path):
    whole = load_file(GOLDEN / "adapter.safetensors")
    for name in list(whole)[::9]:
        torch.save({other: tensor for other, tensor in whole.items() if other != name}, tmp_path / "part.pth")
        with pytest.raises(InputError, match=r"part\.pth is no complete checkpoint of the reference"):
            load_pair(tmp_path / "part.pth")
    torch.save({**whole, "invented": torch.zeros(1)}, tmp_path / "part.pth")
    with pytest.raises(InputError, match="no complete checkpoint of the reference"):
        load_pair(tmp_path / "part.pth")
    cut = (GOLDEN / "adapter.pth").read_bytes()[:100_000]
    (tmp_path / "cut.pth").write_bytes(cut)
    with pytest.raises(InputError, match="no checkpoint of plain tensors"):
        load_pair(tmp_path / "cut.pth")


@needs_golden
@pytest.mark.parametrize("side", ["id", "motion"])
def test_reference_of_one_side_and_no_controller(side):
    tensors = {name: tensor for name, tensor in load_file(GOLDEN / "adapter.safetensors").items() if f".{side}_" in name}
    from dualreal_core.storage.reference import pair_from_reference

    pair = pair_from_reference(tensors, Path("part.pth"))
    assert list(pair.sides) == [{"id": "identity"}.get(side, side)] and pair.controller is None


# LoRA


def lora_output(base: TinyBase, pair: AdapterPair, role: str) -> torch.Tensor:
    """Output with one LoRA side at weight 1."""
    with torch.no_grad(), Attachment(base.transformer, pair, FixedBlend(float(role == "identity"), float(role == "motion"))):
        return base.predict(*model_inputs())


def plain_output(base: TinyBase) -> torch.Tensor:
    with torch.no_grad():
        return base.predict(*model_inputs())


@pytest.mark.parametrize("reader", ["diffusers", "diffusers without metadata", "peft"])
@pytest.mark.parametrize("alpha", [4.0, 10.0])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_others_read_our_lora(family, tmp_path, alpha, reader):
    base = TinyBase(family, 2)
    pair = tiny_pair(base, kind="lora", alpha=alpha)
    ours = {role: lora_output(base, pair, role) for role in ("identity", "motion")}
    for role, expected in ours.items():
        other = TinyBase(family, 2)
        write_lora(tmp_path / "lora.safetensors", pair, role)
        tensors = load_file(tmp_path / "lora.safetensors")
        if reader == "diffusers":
            other.transformer.load_lora_adapter(tmp_path, weight_name="lora.safetensors", prefix="transformer")
        elif reader == "diffusers without metadata":
            other.transformer.load_lora_adapter(tensors, prefix="transformer")
        else:
            layers = layers_of(pair)
            inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=layers), other.transformer)
            result = set_peft_model_state_dict(
                other.transformer, {name.removeprefix("transformer."): value for name, value in tensors.items()}
            )
            assert not result.unexpected_keys and not [name for name in result.missing_keys if "lora_" in name]
        assert (expected - plain_output(base)).norm() > 0.05 * expected.norm()
        torch.testing.assert_close(plain_output(other), expected, rtol=0, atol=1e-5)


def peft_base(family: str, **settings: object) -> TinyBase:
    """A base with a random LoRA injected by peft into the layers our sites name."""
    base = TinyBase(family, 2)
    layers = layers_of(make_pair(base, "lora", num_groups=2))
    config = LoraConfig(**{"r": 4, "lora_alpha": 10, "target_modules": layers, **settings})
    inject_adapter_in_model(config, base.transformer)
    base.transformer.peft_config, base.transformer._hf_peft_config_loaded = {"default": config}, True
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, parameter in base.transformer.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return base


def check_reading(family: str, path: Path, expected: torch.Tensor, alpha: float = 7.0) -> None:
    """The file gives the same output in either side of a pair of whatever alpha."""
    base = TinyBase(family, 2)
    assert not torch.allclose(expected, plain_output(base), atol=1e-3)
    for role in ("identity", "motion"):
        pair = tiny_pair(base, kind="lora", alpha=alpha)
        read_lora(path, pair, role)
        torch.testing.assert_close(lora_output(base, pair, role), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"lora_alpha": 4}, {}, {"use_rslora": True}, {"alpha_pattern": {"attn1.to_q": 3, "net.2": 20}}], ids=str
)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_saved_by_diffusers(family, tmp_path, settings):
    other = peft_base(family, **settings)
    other.transformer.save_lora_adapter(tmp_path, weight_name="lora.safetensors")
    check_reading(family, tmp_path / "lora.safetensors", plain_output(other))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_state_of_peft(family, tmp_path):
    """The bare state holds no alpha, so that it counts as the rank unless `.alpha` tensors say otherwise."""
    tensors = get_peft_model_state_dict(peft_base(family).transformer)
    layers = {name.rpartition(".lora_")[0] for name in tensors}
    save_file({**tensors, **{f"{layer}.alpha": torch.tensor(10.0) for layer in layers}}, tmp_path / "alpha.safetensors")
    check_reading(family, tmp_path / "alpha.safetensors", plain_output(peft_base(family)))
    save_file(tensors, tmp_path / "bare.safetensors")
    check_reading(family, tmp_path / "bare.safetensors", plain_output(peft_base(family, lora_alpha=4)))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_folder_of_peft(family, tmp_path):
    other = TinyBase(family, 2)
    config = LoraConfig(r=4, lora_alpha=10, target_modules=layers_of(make_pair(other, "lora", num_groups=2)), init_lora_weights=False)
    torch.manual_seed(0)
    get_peft_model(other.transformer, config).save_pretrained(tmp_path)
    check_reading(family, tmp_path / "adapter_model.safetensors", plain_output(other))


@pytest.mark.parametrize("prefix", ["diffusion_model.", "transformer.", ""])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_down_and_up_names(family, tmp_path, prefix):
    other = peft_base(family)
    tensors = {}
    for name, tensor in get_peft_model_state_dict(other.transformer).items():
        layer = prefix + name.rpartition(".lora_")[0]
        tensors[f"{layer}.lora_{'down' if 'lora_A' in name else 'up'}.weight"] = tensor
        tensors[f"{layer}.alpha"] = torch.tensor(10.0)
    save_file(tensors, tmp_path / "lora.safetensors")
    check_reading(family, tmp_path / "lora.safetensors", plain_output(other))


def test_lora_round_trip(base, tmp_path):
    pair, other = tiny_pair(base, kind="lora", alpha=10.0), tiny_pair(base, kind="lora", rank=4, alpha=3.0)
    write_lora(tmp_path / "lora.safetensors", pair, "identity")
    read_lora(tmp_path / "lora.safetensors", other, "motion")
    torch.testing.assert_close(lora_output(base, other, "motion"), lora_output(base, pair, "identity"), rtol=0, atol=1e-5)


def test_loras_that_do_not_fit(wan, tmp_path):
    path = tmp_path / "lora.safetensors"
    write_lora(path, tiny_pair(wan, kind="lora"), "identity")
    whole = load_file(path)
    for settings, message in (
        ({"rank": 8}, "has rank 4 .*: set rank 4 and use"),
        ({"target_layers": ("attn1",)}, "has layer blocks.0.ffn.* this motion side lacks: make the side with fitting"),
        ({"motion_kind": "bottleneck", "identity_kind": "lora"}, "motion side is of kind 'bottleneck', which cannot hold"),
        ({"motion_kind": "none", "identity_kind": "lora"}, "motion side is of kind 'none', which cannot hold"),
    ):
        pair = tiny_pair(wan, **{"kind": "lora", **settings})
        with pytest.raises(InputError, match=message):
            read_lora(path, pair, "motion")
    pair = tiny_pair(wan, kind="lora")
    before = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    last = list(whole)[-1]
    for tensors, message in (
        ({name: tensor for name, tensor in whole.items() if ".blocks.1." not in name}, "lacks 6 layers of the identity side"),
        ({name: tensor for name, tensor in whole.items() if name != last}, "which this identity side lacks"),
        ({**whole, last: torch.zeros(7, 7)}, "unlike the pair"),
        ({**whole, "transformer.blocks.0.attn1.to_q.lora_magnitude_vector": torch.zeros(32)}, "is more than a plain LoRA"),
        ({**whole, "transformer.blocks.0.attn1.to_q.lora_B.bias": torch.zeros(32)}, "is more than a plain LoRA"),
        ({**whole, "text_encoder.layer.lora_A.weight": torch.zeros(4, 4)}, "has layer text_encoder.layer, which"),
        ({"weight": torch.zeros(1)}, "holds no LoRA layers in a known naming"),
    ):
        save_file(tensors, path)
        with pytest.raises(InputError, match=message):
            read_lora(path, pair, "identity")
        assert is_same(before, dict(pair.state_dict())), f"{message}: the pair was half changed"
    path.write_bytes(b"words")
    for file in (path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(InputError, match="is no complete safetensors file"):
            read_lora(file, pair, "identity")
    save_file(whole, path, {"lora_adapter_metadata": "{"})
    with pytest.raises(InputError, match=r"lora\.safetensors"):
        read_lora(path, pair, "identity")


def test_only_lora_sides_export(wan, tmp_path):
    for kind in ("bottleneck", "bottleneck-skip", "none"):
        pair = tiny_pair(wan, identity_kind=kind, motion_kind="lora")
        with pytest.raises(InputError, match=f"identity side is of kind '{kind}', which has no LoRA form"):
            write_lora(tmp_path / "lora.safetensors", pair, "identity")
    assert list(tmp_path.iterdir()) == []


# Writing

WRITERS = {
    "pair": lambda path, pair: save_pair(path, pair),
    "lora": lambda path, pair: write_lora(path, pair, "identity"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("call", ["write_bytes", "replace"])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "read-only"), (errno.EIO, "written")]
)
def test_failed_writes_leave_the_old_file(wan, tmp_path, monkeypatch, writer, call, number, words):
    path, pair = tmp_path / "file.safetensors", tiny_pair(wan, kind="lora")
    WRITERS[writer](path, pair)
    old = path.read_bytes()

    def refuse(self: Path, content: object) -> None:
        if call == "write_bytes":
            with self.open("wb") as stream:
                stream.write(content[:100])
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(InputError, match=rf"file\.safetensors could not be .*{words}"):
        WRITERS[writer](path, fill(pair, seed=9))
    monkeypatch.undo()
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", WRITERS)
def test_read_only_folder(wan, tmp_path, monkeypatch, writer):
    """The folder refuses to make anything, as chmod does not forbid that to every user."""
    folder = tmp_path / "shut"
    folder.mkdir()
    original = Path.open

    def refuse(self: Path, mode: str = "r", *args: object, **options: object):
        if self.parent == folder and mode != "rb":
            raise PermissionError(errno.EACCES, "refused")
        return original(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="folder is read-only or not yours; choose a folder you can write to"):
        WRITERS[writer](folder / "file.safetensors", tiny_pair(wan, kind="lora"))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_an_interrupt_leaves_the_old_file(wan, tmp_path, monkeypatch, writer):
    path, pair = tmp_path / "file.safetensors", tiny_pair(wan, kind="lora")
    WRITERS[writer](path, pair)
    old = path.read_bytes()

    def interrupt(self: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        WRITERS[writer](path, pair)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way(wan, tmp_path):
    (tmp_path / "pair.safetensors").mkdir()
    with pytest.raises(InputError, match="is in the way"):
        save_pair(tmp_path / "pair.safetensors", tiny_pair(wan))
