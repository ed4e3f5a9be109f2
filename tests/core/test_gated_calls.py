"""A pair that follows the prompt: the weights of each row go by its text, and where it names nothing the base is as it was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch._dynamo
from test_compiled import WAYS, compile_in_place, largest_difference, num_graphs
from tiny import (
    FAMILY_NAMES,
    KINDS,
    OTHER_FAMILIES,
    TEXT_DIM,
    TinyBase,
    all_items,
    condition,
    fill,
    gated,
    is_same,
    make_pair,
    model_inputs,
    naming,
    weights_hash,
)
from torch._dynamo.utils import counters

from dualreal_core.errors import InputError
from dualreal_core.families import DESCRIPTIONS
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import BlendRecord, FixedBlend
from dualreal_core.method.experts_attachment import ExpertsAttachment
from dualreal_core.method.pair import ROLES, AdapterPair, with_gate
from dualreal_core.method.prompt_gate import PromptGate
from dualreal_core.sampling import default_sampling, sample
from dualreal_core.training.checkpointing import checkpointed
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

NAMED = ((), ("identity",), ("motion",), ROLES)
ONE_BY_ONE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


@pytest.fixture(scope="module", params=FAMILY_NAMES + OTHER_FAMILIES)
def base(request) -> TinyBase:
    return TinyBase(request.param, 4)


@pytest.fixture(scope="module")
def wan() -> TinyBase:
    return TinyBase("wan", 2)


@pytest.fixture
def _compiles() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def prompted(*named: tuple[str, ...], batch: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs of a batch whose rows name these sides."""
    latents, timestep, text = model_inputs(batch or len(named))
    return latents, timestep, naming(text, *named)


def filled(base: TinyBase, kind: str = "lora", **settings: object) -> AdapterPair:
    return gated(fill(make_pair(base, kind, **{"num_groups": 2, **settings})))


@torch.no_grad()
def called(base: TinyBase, pair: AdapterPair, inputs: tuple, **members: object) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the weights (B, G, 2); members: what is set of the attachment."""
    with Attachment(base.transformer, pair) as attachment:
        attachment.condition = condition(1).to(next(pair.sides.parameters()).dtype)
        for name, value in members.items():
            setattr(attachment, name, value)
        output = base.predict(*inputs)
        attachment.finish_call()
        return output, attachment.weights


def strengths(*roles: str) -> dict[str, float]:
    return {role: float(role in roles) for role in ROLES}


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_goes_by_its_own_prompt(base, kind):
    pair, inputs = filled(base, kind), prompted(*NAMED)
    with torch.no_grad():
        plain = base.predict(*inputs)
    output, weights = called(base, pair, inputs)
    whole, ungated = called(base, with_gate(pair, None), inputs)
    assert torch.equal(weights, ungated * ONE_BY_ONE[:, None])
    assert torch.equal(output[0], plain[0]) and torch.equal(output[3], whole[3])
    for row, roles in enumerate(NAMED):
        alone, _ = called(base, with_gate(pair, None), inputs, strengths=strengths(*roles))
        torch.testing.assert_close(output[row], alone[row], rtol=1e-5, atol=1e-5)
        assert row == 0 or not torch.allclose(output[row], plain[row], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_unnamed_the_base_is_as_it_was_bit_for_bit(base, kind, dtype):
    pair, inputs, lowered = filled(base, kind).to(dtype), prompted((), ()), copy.copy(base)
    lowered.transformer = copy.deepcopy(base.transformer).to(dtype)
    with torch.no_grad():
        plain = lowered.predict(*inputs)
    output, weights = called(lowered, pair, inputs)
    assert torch.equal(output, plain) and not weights.any()
    assert not torch.equal(called(lowered, pair, inputs, follows_prompt=False)[0], plain)


@pytest.mark.parametrize("kind", ["lora", "bottleneck-skip"])
def test_pair_that_does_not_follow_the_prompt_is_one_without_a_gate(base, kind):
    pair, inputs = filled(base, kind), prompted(*NAMED)
    expected = called(base, with_gate(pair, None), inputs)
    for one, other in zip(called(base, pair, inputs, follows_prompt=False), expected, strict=True):
        assert torch.equal(one, other)


def test_negative_rows_stay_out_and_a_single_prompt_counts_for_all(base):
    pair, inputs = filled(base), prompted((), ROLES)
    output, weights = called(base, pair, inputs, row_strengths=(0.0, 1.0))
    expected, _ = called(base, with_gate(pair, None), inputs, row_strengths=(0.0, 1.0))
    assert torch.equal(output, expected) and not weights[0].any() and weights[1].all()
    _, both_named = called(base, pair, prompted(ROLES, ROLES), row_strengths=(0.0, 1.0))
    assert torch.equal(both_named, weights)
    _, alone = called(base, pair, prompted(ROLES))
    assert alone.all() and len(alone) == 1


@pytest.mark.parametrize("length", [2, 40])
def test_padding_and_repeated_tokens_change_no_weight(wan, length):
    pair, (latents, timestep, text) = filled(wan, has_controller=False), prompted(*NAMED)
    _, expected = called(wan, pair, (latents, timestep, text))
    padded = torch.cat([text, torch.zeros(4, length, TEXT_DIM)], dim=1)
    assert torch.equal(called(wan, pair, (latents, timestep, padded))[1], expected)
    assert torch.equal(called(wan, pair, (latents, timestep, text.repeat(1, length, 1)))[1], expected)


def test_detached_the_model_is_as_it_was(base):
    inputs, before = prompted(*NAMED), weights_hash(base.transformer)
    kind = type(base.transformer)
    with torch.no_grad():
        plain = base.predict(*inputs)
        with Attachment(base.transformer, filled(base)) as attachment:
            base.predict(*inputs)
            assert type(copy.deepcopy(base.transformer)) is kind and type(base.transformer) is not kind
            assert type(pickle.loads(pickle.dumps(base.transformer))) is kind
        assert type(base.transformer) is kind and weights_hash(base.transformer) == before
        assert attachment.call.text is None and torch.equal(base.predict(*inputs), plain)


def test_two_pairs_go_by_their_own_gates(wan):
    first, second, inputs = filled(wan), fill(make_pair(wan, num_groups=2), seed=4), prompted(())
    expected, _ = called(wan, second, inputs)
    with Attachment(wan.transformer, first):
        output, _ = called(wan, second, inputs)
    assert torch.equal(output, expected)


def test_fixed_blend_and_record_are_scaled_too(wan):
    with torch.no_grad(), Attachment(wan.transformer, filled(wan), FixedBlend(0.3, 0.5)) as attachment:
        attachment.record = BlendRecord()
        for named in NAMED:
            wan.predict(*prompted(named))
            attachment.finish_call()
    torch.testing.assert_close(attachment.record.table()[:, 0], ONE_BY_ONE * torch.tensor([0.3, 0.5]))


def test_weights_between_no_and_yes(wan):
    pair, inputs = filled(wan, has_controller=False, scale=2.0), prompted(())
    with torch.no_grad():
        pair.gate.named.bias.copy_(torch.tensor([0.5, -0.5]))
    assert torch.allclose(called(wan, pair, inputs)[1], torch.tensor([0.75, 0.25]))


def test_both_experts_share_the_gate():
    parts = [TinyBase("wan", 2, seed=seed) for seed in (0, 1)]
    pair = gated(fill(make_pair(parts[0], "lora", num_groups=2, experts=("high_noise", "low_noise"))))
    inputs = prompted(*NAMED)
    with torch.no_grad():
        plain = [part.predict(*inputs) for part in parts]
        with ExpertsAttachment([part.transformer for part in parts], pair) as attachment:
            for part, own, before in zip(parts, attachment.parts, plain, strict=True):
                output = part.predict(*inputs)
                attachment.finish_call()
                assert torch.equal(output[0], before[0]) and not torch.equal(output[3], before[3])
                assert torch.equal((own.weights != 0).float(), ONE_BY_ONE[:, None].expand(-1, 2, -1))
            attachment.follows_prompt = False
            assert not attachment.follows_prompt
            assert not torch.equal(parts[1].predict(*inputs)[0], plain[1][0])


@pytest.mark.parametrize("family", FAMILY_NAMES + OTHER_FAMILIES)
def test_gradients_are_those_of_gated_sides_with_and_without_checkpoints(family):
    base, gradients = TinyBase(family, 2), []
    pair, inputs = filled(base, "lora", num_groups=1), prompted((), ("identity",))
    pair.gate.requires_grad_(False)
    for is_checkpointed in (False, True):
        pair.zero_grad()
        attachment = Attachment(base.transformer, pair)
        with attachment, checkpointed(base.transformer, attachment) if is_checkpointed else nullcontext():
            base.predict(*inputs).square().mean().backward()
        gradients.append({name: one.grad for name, one in pair.sides.named_parameters() if one.grad is not None and one.grad.any()})
    assert is_same(*gradients)
    assert {name.partition(".")[0] for name in gradients[0]} == {"identity"}


COMPILED = [(WAYS[1], True), (WAYS[2], False)]
MORE = [case for case in product(WAYS, (False, True)) if case not in COMPILED]


@pytest.mark.usefixtures("_compiles")
@pytest.mark.parametrize(
    ("way", "is_compiled_first"), [*COMPILED, *(pytest.param(*case, marks=pytest.mark.thorough) for case in MORE)]
)
def test_compiled_code_follows_the_prompt(way, is_compiled_first):
    base = TinyBase("wan", 2)
    pair, batches = filled(base), [prompted(NAMED[row], NAMED[-1 - row]) for row in range(4)]

    def outputs(attachment: Attachment) -> list[torch.Tensor]:
        attachment.condition = condition(1)
        return [base.predict(*inputs) for inputs in batches]

    with torch.no_grad():
        plain = base.predict(*batches[0])
        with Attachment(base.transformer, pair) as attachment:
            expected = outputs(attachment)
        if is_compiled_first:
            compile_in_place(base, way)
            base.predict(*batches[0])
        attachment = Attachment(base.transformer, pair)
        if not is_compiled_first:
            compile_in_place(base, way)
        assert largest_difference(outputs(attachment), expected) <= 1e-6
        graphs = num_graphs()
        assert largest_difference(outputs(attachment), expected) <= 1e-6 and num_graphs() == graphs
        attachment.follows_prompt = False
        assert largest_difference(outputs(attachment)[:1], expected[:1]) > 1e-3
        attachment.detach()
        torch.testing.assert_close(base.predict(*batches[0]), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_first", [False, True])
def test_forward_that_others_have_exchanged(wan, is_first):
    """As offloading does it, which leaves its own in the module."""
    pair, inputs, transformer = filled(wan), prompted(*NAMED), copy.deepcopy(wan.transformer)
    own = copy.copy(wan)
    own.transformer = transformer
    expected, _ = called(own, pair, inputs)

    def exchange() -> None:
        former = transformer.forward
        transformer.forward = lambda *args, **kwargs: former(*args, **kwargs)

    with torch.no_grad():
        if is_first:
            exchange()
        with Attachment(transformer, pair) as attachment:
            attachment.condition = condition(1)
            if not is_first:
                exchange()
            assert torch.equal(own.predict(*inputs), expected)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampled_videos_follow_the_prompt(wan, guidance):
    pair, settings = filled(wan), replace(default_sampling(wan), guidance_scale=guidance)
    texts, negative = list(prompted((), ("motion",))[2]), prompted(ROLES)[2][0]
    plain = sample(wan, texts, negative, settings)
    with Attachment(wan.transformer, pair) as attachment:
        attachment.record = BlendRecord(row=-2)
        video = sample(wan, texts, negative, settings, attachment)
        assert torch.equal(video[0], plain[0]) and not torch.allclose(video[1], plain[1], atol=1e-3)
        assert not attachment.record.table().any()
        attachment.follows_prompt = False
        assert not torch.equal(sample(wan, texts, negative, settings, attachment)[0], plain[0])


def test_training_is_that_of_a_pair_without_a_gate():
    trained, settings = [], TrainSettings(steps=3, motion_ratio=0.5, preservation_ratio=0.5, frozen_adapter_dropout=0.5)
    for has_gate in (False, True):
        base = TinyBase("wan", 2)
        pair = make_pair(base, "lora", num_groups=2)
        pair = gated(pair) if has_gate else pair
        gate = copy.deepcopy(pair.gate)
        with Attachment(base.transformer, pair) as attachment:
            losses = [one.loss for one in train(base, attachment, all_items(), settings, RunState.start(pair, settings))]
            assert attachment.follows_prompt
        assert gate is None or is_same(pair.gate.state_dict(), gate.state_dict())
        trained.append((losses, with_gate(pair, None).state_dict()))
    assert is_same(*trained)


def test_calls_without_text_say_what_to_do(wan):
    latents, timestep, _ = model_inputs(1)
    with Attachment(wan.transformer, filled(wan)), pytest.raises(InputError, match="this call has none: give the model a prompt, or have"):
        wan.transformer(latents, timestep, None)


def test_text_of_another_encoder_says_so(wan):
    pair = with_gate(filled(wan), PromptGate(TEXT_DIM + 1))
    with pytest.raises(InputError, match=f"reads text of width {TEXT_DIM + 1}, and the model was called with text of width {TEXT_DIM}"):
        called(wan, pair, prompted(()))


def test_every_family_says_where_its_text_is():
    names = {family.package: family.text_argument[0] for family in DESCRIPTIONS}
    assert names == {"diffusers": "encoder_hidden_states", "comfy": "context"}
    assert len({family.text_argument[0] for family in DESCRIPTIONS if family.package == "comfy"}) == 1
    for family in DESCRIPTIONS:
        name, position = family.text_argument
        given = [object() for _ in range(position + 1)]
        assert family.text_of(tuple(given), {}) is given[position] and family.text_of((), {name: given[0]}) is given[0]
        assert family.text_of(tuple(given[:position]), {}) is None
