"""The prompt gate by itself, and as a part of a pair and its file."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TEXT_DIM, TinyBase, fill, is_same, make_pair

from dualreal_core.errors import InputError
from dualreal_core.method.combine import combine
from dualreal_core.method.experts import expert_of, experts_of, join_experts
from dualreal_core.method.pair import AdapterPair, PairConfig, with_gate
from dualreal_core.method.placement import is_placed, placed, sharing_weights
from dualreal_core.method.prompt_gate import MARGIN, PromptGate
from dualreal_core.storage import load_pair, read_header, save_pair
from dualreal_core.storage.export_plan import plan_export
from dualreal_core.storage.format import digest, seal
from dualreal_core.storage.inspection import describe, lines

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
    shared = sharing_weights(pair)
    assert shared.gate.named.weight.data_ptr() == pair.gate.named.weight.data_ptr() and shared.gate is not pair.gate


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
    with pytest.raises(ValueError, match="gate_features is 0"):
        PairConfig("wan", 8, 2, 8, num_groups=1, text_dim=4, gate_features=0)


@pytest.mark.parametrize("damage", ["missing", "width", "features", "nan", "no gate in config", "more tensors"])
def test_damaged_gate_is_one_sentence(base, tmp_path, damage):
    path = tmp_path / "pair.safetensors"
    save_pair(path, fill(make_pair(base, text_dim=TEXT_DIM)))
    tensors, header = load_file(path), read_header(path)
    if damage == "missing":
        del tensors["gate.named.bias"]
    elif damage == "nan":
        tensors["gate.named.bias"][0] = float("nan")
    elif damage == "more tensors":
        tensors["gate.more.bias"] = torch.zeros(2)
    else:
        fields = {"width": {"text_dim": 9}, "features": {"gate_features": 3.5}, "no gate in config": {"text_dim": None}}
        header["config"] |= fields[damage]
    header["digest"] = digest(tensors)
    save_file(tensors, path, {"dualreal": json.dumps({**header, "seal": seal(header)})})
    with pytest.raises(InputError, match=r"does not hold what its header says .*: it was changed or damaged; use another copy\.$"):
        load_pair(path)


def test_older_versions_are_told_to_update_and_older_files_are_read(base, tmp_path, monkeypatch):
    path = tmp_path / "pair.safetensors"
    save_pair(path, fill(make_pair(base, text_dim=TEXT_DIM)))
    monkeypatch.setattr("dualreal_core.storage.format.FORMAT_VERSION", 7)
    with pytest.raises(InputError, match="has format version 8, newer than 7: update DualReal to read it"):
        load_pair(path)
    save_pair(path, make_pair(base))
    assert load_pair(path)[0].gate is None


def test_combined_sides_keep_their_own_gates(base):
    first, second, text = filled_gate(seed=1), filled_gate(seed=2), texts()
    pairs = [with_gate(fill(make_pair(base, has_controller=False), seed), gate) for seed, gate in ((1, first), (2, second))]
    before = torch.get_rng_state()
    both = combine(*pairs)
    assert torch.equal(torch.get_rng_state(), before)
    assert both.config.text_dim == TEXT_DIM and both.config.gate_features == 8
    torch.testing.assert_close(both.gate(text), torch.stack([first(text)[:, 0], second(text)[:, 1]], dim=1))
    bare = with_gate(pairs[1], None)
    assert torch.equal(combine(pairs[0], bare).gate(text), torch.stack([first(text)[:, 0], torch.ones(6)], dim=1))
    assert torch.equal(combine(bare, pairs[1]).gate(text)[:, 0], torch.ones(6)) and combine(bare, bare).gate is None
    assert combine(pairs[0], with_gate(bare, PromptGate(TEXT_DIM + 1))).gate is None


def test_combined_pair_is_written(base, tmp_path):
    both = combine(*[with_gate(fill(make_pair(base, has_controller=False)), filled_gate(seed=seed)) for seed in (1, 2)])
    save_pair(tmp_path / "pair.safetensors", both)
    assert is_same(load_pair(tmp_path / "pair.safetensors")[0].state_dict(), both.state_dict())


def test_experts_share_one_gate(base):
    pair = fill(make_pair(base, num_groups=1, text_dim=TEXT_DIM, experts=("high-noise", "low-noise")))
    assert expert_of(pair, 0).gate is expert_of(pair, 1).gate is pair.gate and expert_of(pair, 1).config.text_dim == TEXT_DIM
    joined = join_experts(*experts_of(pair))
    assert is_same(joined.gate.state_dict(), pair.gate.state_dict()) and joined.gate is not pair.gate
    high, low = (with_gate(fill(make_pair(base, num_groups=1, has_controller=False)), filled_gate(seed=seed)) for seed in (1, 2))
    assert join_experts(high, low).gate is None and join_experts(high, with_gate(low, None)).config.text_dim is None
    nothing = make_pair(base, num_groups=1, identity_kind="none", motion_kind="none", has_controller=False)
    assert is_same(join_experts(high, nothing).gate.state_dict(), high.gate.state_dict())


def test_inspection_names_it(base, tmp_path):
    save_pair(tmp_path / "pair.safetensors", make_pair(base, text_dim=TEXT_DIM, gate_features=5))
    description = json.loads(json.dumps(describe(tmp_path / "pair.safetensors")))
    assert description["parameters"]["gate"] == 5 * TEXT_DIM + 12
    assert any(row.split() == "prompt gate text of width 8, 5 features; 52 parameters".split() for row in lines(description))  # noqa: SIM905
    save_pair(tmp_path / "bare.safetensors", make_pair(base))
    assert not any("gate" in row for row in lines(describe(tmp_path / "bare.safetensors")))


def test_exported_weights_say_that_it_is_not_in_them(base):
    pair = fill(make_pair(base, "lora", has_controller=False, text_dim=TEXT_DIM))
    sentence = "prompt gate reads each prompt, which files of fixed weights do not"
    for given in ({}, {"fixed": {"identity": 1.0, "motion": 1.0}}):
        plan, bare = plan_export(pair, **given), plan_export(with_gate(pair, None), **given)
        assert any(sentence in one for one in plan.losses(["identity"])) and not bare.losses(["identity"])
        assert plan.weights == bare.weights
    record = json.dumps({"stages": [0.0], "identity": [[0.0] * 3], "motion": [[1.0] * 3]})
    assert any("as it stood for that run's prompt" in one for one in plan_export(pair, blend=record).losses(["motion"]))
