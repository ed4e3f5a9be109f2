"""Checkpoints of the reference implementation: read as far as they are plain tensors, and nothing in them runs."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path

import pytest
import torch
from golden import Golden
from safetensors.torch import load_file, save_file
from tiny import is_same
from torch.nn.functional import gelu, linear

from dualreal_core.errors import InputError
from dualreal_core.storage import load_pair, read_reference, save_pair


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
    for content in ([torch.zeros(1)], {"step": 3}, {"model": {"weight": torch.zeros(1)}}, {0: torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(InputError, match="does not hold a flat dict of tensors"):
            read_reference(tmp_path / "other.pth")
    for content in ({}, {"weight": torch.zeros(1)}, {"transformer_blocks.0.id_attn_adapter.down_linear.weight": torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(InputError, match="no complete checkpoint of the reference"):
            load_pair(tmp_path / "other.pth")


def reference_tensors(widths: dict[str, int], condition_dim: int = 7, dim: int = 8) -> dict[str, torch.Tensor]:
    """A checkpoint of both sides, two blocks, no controller; widths by the reference's name of the side."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for block, site, (side, width) in product(range(2), ("attn", "ff"), widths.items()):
        layers = {"down": (width, dim), "up": (dim, width)} | ({"condition": (dim, condition_dim)} if side == "motion" else {})
        for layer, shape in layers.items():
            name = f"transformer_blocks.{block}.{side}_{site}_adapter.{layer}_linear"
            tensors[f"{name}.weight"] = torch.randn(shape, generator=generator)
            tensors[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    return tensors


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("widths", [{"id": 3, "motion": 5}, {"id": 6, "motion": 2}, {"id": 4, "motion": 4}])
def test_sides_of_different_widths(tmp_path, widths, suffix):
    """The reference has an option for each."""
    tensors = reference_tensors(widths)
    (torch.save if suffix == ".pth" else save_file)(tensors, tmp_path / f"adapter{suffix}")
    pair, _ = load_pair(tmp_path / f"adapter{suffix}")
    assert (pair.config.identity_bottleneck_dim, pair.config.motion_bottleneck_dim) == (widths["id"], widths["motion"])
    hidden, given = torch.randn(2, 3, 8), torch.randn(2, 7)
    for side, role in (("id", "identity"), ("motion", "motion")):
        down, up, *cond = (
            [tensors[f"transformer_blocks.1.{side}_ff_adapter.{layer}_linear.{part}"] for part in ("weight", "bias")]
            for layer in ("down", "up", *(["condition"] if side == "motion" else []))
        )
        shown = hidden + linear(given, *cond[0])[:, None] if cond else hidden
        expected = hidden + linear(gelu(linear(shown, *down)), *up)
        torch.testing.assert_close(pair.sides[role]["1-ff"](hidden, given), expected, rtol=1e-4, atol=1e-4)
    save_pair(tmp_path / "own.safetensors", pair)
    own, _ = load_pair(tmp_path / "own.safetensors")
    assert own.config == pair.config and is_same(dict(own.state_dict()), dict(pair.state_dict()))


def test_a_side_of_two_widths_is_refused(tmp_path):
    tensors = reference_tensors({"id": 3, "motion": 5})
    tensors["transformer_blocks.1.id_ff_adapter.down_linear.weight"] = torch.zeros(4, 8)
    torch.save(tensors, tmp_path / "adapter.pth")
    with pytest.raises(InputError, match=r"adapter\.pth is no complete checkpoint of the reference"):
        load_pair(tmp_path / "adapter.pth")


def small_reference(value: float = 0.5) -> dict[str, torch.Tensor]:
    sizes = {"down_linear.weight": (4, 8), "down_linear.bias": (4,), "up_linear.weight": (8, 4), "up_linear.bias": (8,)}
    names = [f"transformer_blocks.0.id_{site}_adapter.{name}" for site in ("attn", "ff") for name in sizes]
    return {name: torch.full(sizes[name.partition("adapter.")[2]], value) for name in names}


def test_a_flipped_bit_is_told_by_the_checksum(tmp_path):
    path = tmp_path / "pair.pth"
    torch.save(small_reference(), path)
    load_pair(path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), 0.5).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    assert all(isinstance(tensor, torch.Tensor) for tensor in torch.load(path, weights_only=True).values()), "torch sees nothing"
    with pytest.raises(InputError, match=r"pair\.pth is no checkpoint of plain tensors"):
        load_pair(path)


def test_a_flipped_bit_in_front_of_a_whole_copy_is_told(tmp_path):
    """Checksums are compared in the last archive of a file, and torch reads the first."""
    path = tmp_path / "pair.pth"
    torch.save(small_reference(), path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[flipped.index(torch.full((4,), 0.5).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(bytes(flipped) + whole)
    with pytest.raises(InputError, match=r"pair\.pth is no checkpoint of plain tensors"):
        load_pair(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    torch.save(small_reference(value), tmp_path / "pair.pth")
    with pytest.raises(InputError, match="holds values that are no numbers"):
        load_pair(tmp_path / "pair.pth")


@pytest.mark.parametrize("length", [1, 40, 200, 600])
def test_a_cut_file_of_the_old_form_is_one_sentence(tmp_path, length):
    path = tmp_path / "pair.pth"
    torch.save(small_reference(), path, _use_new_zipfile_serialization=False)
    load_pair(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"pair\.pth is no checkpoint of plain tensors"):
        load_pair(path)


def test_reference_forms_agree(golden: Golden, tmp_path):
    from_pth, header = load_pair(golden.folder / "adapter.pth")
    from_safetensors, _ = load_pair(golden.folder / "adapter.safetensors")
    assert from_pth.config == from_safetensors.config and header["source"] == "adapter.pth"
    assert is_same(dict(from_pth.state_dict()), dict(from_safetensors.state_dict()))
    save_pair(tmp_path / "own.safetensors", from_pth)
    own, _ = load_pair(tmp_path / "own.safetensors")
    assert own.config == from_pth.config and is_same(dict(own.state_dict()), dict(from_pth.state_dict()))


def test_incomplete_reference(golden: Golden, tmp_path):
    whole = load_file(golden.folder / "adapter.safetensors")
    for name in list(whole)[::9]:
        torch.save({other: tensor for other, tensor in whole.items() if other != name}, tmp_path / "part.pth")
        with pytest.raises(InputError, match=r"part\.pth is no complete checkpoint of the reference"):
            load_pair(tmp_path / "part.pth")
    torch.save({**whole, "invented": torch.zeros(1)}, tmp_path / "part.pth")
    with pytest.raises(InputError, match="no complete checkpoint of the reference"):
        load_pair(tmp_path / "part.pth")
    cut = (golden.folder / "adapter.pth").read_bytes()[:100_000]
    (tmp_path / "cut.pth").write_bytes(cut)
    with pytest.raises(InputError, match="no checkpoint of plain tensors"):
        load_pair(tmp_path / "cut.pth")


@pytest.mark.parametrize("side", ["id", "motion"])
def test_reference_of_one_side_and_no_controller(golden: Golden, side):
    tensors = {name: tensor for name, tensor in load_file(golden.folder / "adapter.safetensors").items() if f".{side}_" in name}
    from dualreal_core.storage.reference import pair_from_reference

    pair = pair_from_reference(tensors, Path("part.pth"))
    assert list(pair.sides) == [{"id": "identity"}.get(side, side)] and pair.controller is None
