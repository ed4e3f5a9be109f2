"""Files users keep: round trips, what other programs read and wrote, and every way a file can be wrong."""

from __future__ import annotations

import errno
import json
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import CONDITION_DIM, FAMILY_NAMES, KINDS, TinyBase, fill, is_same, predict, tiny_pair

from dualreal_core.errors import InputError
from dualreal_core.method.pair import PER_SIDE, ROLES
from dualreal_core.storage import export_lora, load_pair, read_header, save_pair
from dualreal_core.storage.format import EXPERTS_VERSION, FORMAT_VERSION, HEADER_KEY, seal

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


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: object) -> None:
    """Changes tensors, header fields or (as `config`) fields of the stored configuration, and seals them anew; REMOVED removes."""
    header = read_header(path)
    for key, value in changes.items():
        if key == "config" and isinstance(value, dict):
            header["config"] = {name: field for name, field in {**header["config"], **value}.items() if field is not REMOVED}
        else:
            header[key] = value
    kept = {name: field for name, field in header.items() if field is not REMOVED}
    kept = {**kept, "seal": seal(kept)} if changes.get("seal") is not REMOVED else kept
    save_file(load_file(path) if tensors is None else tensors, path, {HEADER_KEY: json.dumps(kept)})


REMOVED = ...


@pytest.mark.parametrize(("identity", "motion"), COMBINATIONS)
def test_round_trip(base, tmp_path, identity, motion):
    pair = tiny_pair(
        base, identity_kind=identity, motion_kind=motion, scale=0.5, learned_range=0.4, alpha=6.0, identity_condition_dim=CONDITION_DIM
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
        {"share_schedule": (0.25, 0.75)},
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
    assert header["format_version"] == EXPERTS_VERSION - 1 == 5
    assert header["config"].items() >= {"family": "wan", "dim": 32, "num_blocks": 2, "motion_condition_dim": CONDITION_DIM}.items()
    assert {"date", "dualreal", "torch", "diffusers", "peft", "safetensors"} <= set(header["provenance"])
    with safe_open(path, "pt") as file:
        assert {*file.metadata()} == {HEADER_KEY}
        names = set(file.keys())
    assert {"identity.0-attn.down.weight", "motion.1-ff.condition_proj.bias", "controller.out.weight"} <= names
    assert {name.split(".")[0] for name in names} == {"identity", "motion", "controller"}


@pytest.mark.parametrize(("has_controller", "version", "is_kept"), [(False, 1, False), (False, 2, True), (True, 1, True)])
def test_a_share_schedule_counts_without_controller_from_version_2_on(wan, tmp_path, has_controller, version, is_kept):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan, has_controller=has_controller, share_schedule=(0.25, 0.75)))
    rewrite(path, format_version=version)
    assert load_pair(path)[0].config.share_schedule == ((0.25, 0.75) if is_kept else ())


def test_low_precision_weights_are_kept(wan, tmp_path):
    pair = tiny_pair(wan).to(torch.bfloat16)
    save_pair(tmp_path / "pair.safetensors", pair)
    for name, tensor in load_file(tmp_path / "pair.safetensors").items():
        assert tensor.dtype == (torch.float32 if name.startswith("controller.") else torch.bfloat16), name
    loaded, _ = load_pair(tmp_path / "pair.safetensors")
    assert is_same(dict(loaded.to(torch.bfloat16).state_dict()), dict(pair.state_dict()))


def test_headers_without_later_fields_load(wan, tmp_path):
    """Fields of the configuration that were added later have defaults, and those mean what older files did."""
    path, pair = tmp_path / "pair.safetensors", tiny_pair(wan, bottleneck_dim=64, rank=16)
    save_pair(path, pair)
    optional = (
        "target_layers",
        "share_schedule",
        *(f"{role}_{size}" for role in ROLES for size in PER_SIDE),
        "has_controller",
        "scale",
        "identity_kind",
        "motion_kind",
        "controller_dim",
    )
    rewrite(path, config=dict.fromkeys((*optional, "identity_condition_dim"), REMOVED), provenance=REMOVED)
    loaded, _ = load_pair(path)
    assert loaded.config == pair.config and is_same(dict(loaded.state_dict()), dict(pair.state_dict()))


UNEQUAL = {
    "identity_bottleneck_dim": 6, "motion_bottleneck_dim": 9,
    "identity_rank": 2, "motion_rank": 5,
    "identity_alpha": 3.0, "motion_alpha": 4.0,
}  # fmt: skip


@pytest.mark.parametrize(("identity", "motion"), COMBINATIONS)
def test_sides_of_different_sizes_are_kept(base, tmp_path, identity, motion):
    pair = tiny_pair(base, identity_kind=identity, motion_kind=motion, **UNEQUAL)
    save_pair(tmp_path / "pair.safetensors", pair)
    loaded, header = load_pair(tmp_path / "pair.safetensors")
    assert loaded.config == pair.config and header["config"].items() >= UNEQUAL.items()
    assert torch.equal(predict(base, loaded), predict(base, pair)) and not torch.equal(predict(base, pair), predict(base))
    for role in loaded.sides:
        kind = pair.config.kind(role)
        size = "rank" if kind == "lora" else "bottleneck_dim"
        assert {adapter.down.out_features for adapter in loaded.sides[role].values()} == {UNEQUAL[f"{role}_{size}"]}
        if kind == "lora":
            scalings = {adapter.scaling for adapter in loaded.sides[role].values()}
            assert scalings == {UNEQUAL[f"{role}_alpha"] / UNEQUAL[f"{role}_rank"]}


def test_a_loaded_pair_does_not_follow_its_file(wan, tmp_path):
    """The file is written over in place, as cp does."""
    path, other = tmp_path / "pair.safetensors", tmp_path / "other.safetensors"
    save_pair(path, tiny_pair(wan))
    save_pair(other, fill(tiny_pair(wan), seed=7))
    loaded, _ = load_pair(path)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    with path.open("r+b") as file:
        file.write(other.read_bytes())
    assert is_same(before, dict(loaded.state_dict()))


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


@pytest.mark.parametrize("name", ["nowhere.safetensors", "nowhere.pth", "."])
def test_missing(tmp_path, name):
    with pytest.raises(InputError, match=r"(does not exist|is a folder): check the path"):
        load_pair(tmp_path / name)


def test_other_safetensors(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is no DualReal pair"):
        load_pair(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"bottleneck_dim": 9},
        {"motion_bottleneck_dim": 9},
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
        {"learned_range": 0.7},
        {"share_schedule": [0.5, 2]},
        {"share_schedule": "late"},
        {"share_schedule": None},
        {"scale": "large"},
        {"scale": float("nan")},
        {"alpha": float("inf")},
        {"motion_alpha": float("inf")},
        {"identity_rank": 0},
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


@pytest.mark.parametrize(
    "change",
    [{"format_version": float("inf")}, {"format_version": "3"}, {"format_version": 2.5}, {"prompts": "a dog *"}, {"datasets": ["abc"]}],
    ids=str,
)
def test_header_fields_of_another_type(wan, tmp_path, change):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan), HEADER)
    rewrite(path, **change)
    for read in (load_pair, read_header):
        with pytest.raises(InputError, match=r"pair\.safetensors has a damaged 'dualreal' header"):
            read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers(wan, tmp_path, value):
    """They would pass through every layer and make the whole video black."""
    pair = tiny_pair(wan)
    with torch.no_grad():
        next(pair.parameters())[0, 0] = value
    save_pair(tmp_path / "pair.safetensors", pair)
    with pytest.raises(InputError, match=r"pair\.safetensors .*no finite numbers"):
        load_pair(tmp_path / "pair.safetensors")


def test_newer_format(wan, tmp_path):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan))
    rewrite(path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(InputError, match=r"pair\.safetensors has format version 9, newer than 8: update DualReal to read it\.$"):
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


WRITERS = {
    "pair": lambda path, pair: save_pair(path, pair),
    "lora": lambda path, pair: export_lora(path, pair, {"identity": 1.0}, overwrites=True),
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


def test_names_as_long_as_the_file_system_takes(wan, tmp_path):
    path = tmp_path / f"{'漢' * 80}.safetensors"  # 252 of 255 bytes
    save_pair(path, tiny_pair(wan))
    assert load_pair(path)[0].config.dim == 32


def test_a_folder_in_the_way(wan, tmp_path):
    (tmp_path / "pair.safetensors").mkdir()
    with pytest.raises(InputError, match="is in the way"):
        save_pair(tmp_path / "pair.safetensors", tiny_pair(wan))


CHANGED_HEADERS = [{"config": {"scale": 0.7}}, {"config": {"motion_alpha": 4.5}}, {"prompts": {"trigger": "cat"}}, {"digest": REMOVED}]


@pytest.mark.parametrize("change", CHANGED_HEADERS, ids=str)
def test_a_changed_header_is_told_by_its_checksum(wan, tmp_path, change):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan, kind="lora"), HEADER)
    seal_before = read_header(path)["seal"]
    rewrite(path, **change)
    load_pair(path)  # sealed anew
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[HEADER_KEY])
    for seal_now in (seal_before, None):
        changed = {**header, "seal": seal_now} if seal_now else {name: value for name, value in header.items() if name != "seal"}
        save_file(load_file(path), path, {HEADER_KEY: json.dumps(changed)})
        with pytest.raises(InputError, match=r"damaged 'dualreal' header \(it does not match its checksum\)"):
            load_pair(path)


def test_former_headers_have_no_checksum(wan, tmp_path):
    path = tmp_path / "pair.safetensors"
    save_pair(path, tiny_pair(wan), HEADER)
    rewrite(path, format_version=4, seal=REMOVED)
    assert load_pair(path)[1]["format_version"] == 4
