"""The prompt gate by itself, and as a part of a pair and its file."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from safetensors.torch import load_file
from tiny import TEXT_DIM, TinyBase, fill, is_same, make_pair

from dualreal_core.errors import InputError
from dualreal_core.method.pair import AdapterPair, PairConfig, with_gate
from dualreal_core.method.placement import is_placed, placed
from dualreal_core.method.prompt_gate import MARGIN, PromptGate
from dualreal_core.storage import load_pair, read_header, save_pair

FLOATS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def base() -> TinyBase:
    return TinyBase("wan", 3)


def filled_gate(spread: float = 2.0, seed: int = 0) -> PromptGate:
    generator = torch.Generator().manual_seed(seed)
    gate = PromptGate(TEXT_DIM, 4)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return gate


def texts(batch: int = 6, num_text: int = 5) -> torch.Tensor:
    return torch.randn(batch, num_text, TEXT_DIM, generator=torch.Generator().manual_seed(1))


def test_equation():
    gate, text = filled_gate(0.7), texts()
    expected = []
    for prompt in text:
        scaled = [token / token.square().mean().sqrt() for token in prompt]
        most = torch.stack([gate.features.weight @ token for token in scaled]).max(dim=0).values.relu()
        logits = gate.named.weight @ most + gate.named.bias
        expected.append(((logits + MARGIN) / (2 * MARGIN)).clip(0, 1))
    torch.testing.assert_close(gate(text), torch.stack(expected))
    assert gate(text).shape == (6, 2)


def test_says_exactly_no_and_yes_beyond_the_margin():
    gate = PromptGate(TEXT_DIM)
    assert torch.equal(gate(texts()), torch.ones(6, 2))  # as it starts
    with torch.no_grad():
        gate.named.bias.copy_(torch.tensor([-1.5, 0.0]))
    assert torch.equal(gate(texts()), torch.tensor([[0.0, 0.5]]).expand(6, 2))


@pytest.mark.parametrize("dtype", FLOATS)
def test_repeated_reordered_and_padded_tokens_change_nothing(dtype):
    gate, text = filled_gate(), texts().to(dtype)
    expected = gate(text)
    assert torch.equal(gate(text.repeat(1, 3, 1)), expected)
    assert torch.equal(gate(text.flip(1)), expected)
    assert torch.equal(gate(torch.cat([text, torch.zeros_like(text)], dim=1)), expected)
    assert torch.allclose(gate(text * 7), expected, atol=0.02)


@pytest.mark.parametrize("dtype", FLOATS)
def test_empty_and_tiny_text_gives_numbers(dtype):
    gate = filled_gate()
    zeros = torch.zeros(1, 4, TEXT_DIM, dtype=dtype)
    assert torch.equal(gate.logits(zeros), gate.named.bias[None])
    assert gate.logits(zeros + torch.finfo(dtype).tiny).isfinite().all()
    gate.logits(zeros).sum().backward()
    assert gate.features.weight.grad.isfinite().all()


def test_stays_float32_and_computes_so_whatever_is_around_it():
    gate, text = filled_gate(), texts()
    expected = gate(text)
    lowered = copy.deepcopy(gate).to(torch.bfloat16)
    assert lowered.features.weight.dtype == torch.float32 and torch.equal(lowered(text), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gate(text), expected)


def test_text_of_another_encoder_is_named():
    with pytest.raises(InputError, match=f"width {TEXT_DIM}, and the model was called with text of width 12: use the text encoder"):
        filled_gate()(torch.zeros(1, 3, 12))


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_with_gate_shares_the_sides(base, kind):
    pair, gate = make_pair(base, kind), filled_gate()
    own = with_gate(pair, gate)
    assert own.gate is gate and pair.gate is None and own.controller is pair.controller
    assert own.config.text_dim == TEXT_DIM and own.config.gate_features == 4
    assert [id(one) for one in own.sides.parameters()] == [id(one) for one in pair.sides.parameters()]
    assert list(own.sides["motion"]) == list(pair.sides["motion"])
    bare = with_gate(own, None)
    assert bare.gate is None and bare.config == pair.config and is_same(bare.state_dict(), pair.state_dict())


def test_a_pair_without_a_gate_records_nothing_of_one(base):
    pair = make_pair(base)
    assert not {"text_dim", "gate_features"} & set(pair.config.recorded()) and "text_dim" not in repr(pair.config)
    with pytest.raises(ValueError, match="text_dim is 0; it must be positive"):
        make_pair(base, text_dim=0)


def test_placed_and_copied_pairs_keep_their_gate(base):
    pair = fill(make_pair(base, text_dim=TEXT_DIM))
    moved = placed(pair, torch.device("cpu"), torch.bfloat16)
    assert moved.sides["identity"]["0-attn"].up.weight.dtype == torch.bfloat16
    assert moved.gate is not pair.gate and is_same(moved.gate.state_dict(), pair.gate.state_dict())
    assert is_placed(moved, torch.device("cpu"), torch.bfloat16)
    assert is_same(pickle.loads(pickle.dumps(pair)).state_dict(), pair.state_dict())


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("experts", [(), ("high_noise", "low_noise")])
def test_file(base, tmp_path, kind, experts):
    pair = fill(make_pair(base, kind, text_dim=TEXT_DIM, gate_features=5, experts=experts))
    save_pair(tmp_path / "pair.safetensors", pair)
    assert read_header(tmp_path / "pair.safetensors")["format_version"] == 8
    assert {"gate.features.weight", "gate.named.weight", "gate.named.bias"} <= set(load_file(tmp_path / "pair.safetensors"))
    read, _ = load_pair(tmp_path / "pair.safetensors")
    assert isinstance(read, AdapterPair) and read.config == pair.config and is_same(read.state_dict(), pair.state_dict())
    save_pair(tmp_path / "bare.safetensors", with_gate(pair, None))
    assert read_header(tmp_path / "bare.safetensors")["format_version"] == (6 if experts else 5)


def test_config_says_what_is_wrong():
    with warnings.catch_warnings(), pytest.raises(ValueError, match="gate_features is 0"):
        PairConfig("wan", 8, 2, 8, num_groups=1, text_dim=4, gate_features=0)
