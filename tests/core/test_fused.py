"""Fused updates equal the sum of the adapters, follow their weights, and leave out what has no weight."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from tiny import CONDITION_DIM, KINDS, TinyBase, condition, fill, make_pair, model_inputs
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from dualreal_core.families import Site
from dualreal_core.method.adapter import Adapter, LoRA
from dualreal_core.method.attach import Attachment
from dualreal_core.method.call import Call
from dualreal_core.method.coverage import Mark, Place
from dualreal_core.method.pair import ROLES, iterate_sides
from dualreal_core.method.updates import Updates

UNEQUAL = {
    "identity_bottleneck_dim": 3, "motion_bottleneck_dim": 11,
    "identity_rank": 5, "motion_rank": 2,
    "identity_alpha": 2.0, "motion_alpha": 9.0,
}  # fmt: skip


def outputs(base: TinyBase, pair, with_condition: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """(fused, plain) outputs: the same call without and with gradients."""
    with Attachment(base.transformer, pair) as attachment:
        attachment.condition = condition() if with_condition else None
        attachment.strengths = {"identity": 0.7, "motion": 1.3}
        attachment.row_strengths = (1.0, 0.5)
        with torch.no_grad():
            fused = base.predict(*model_inputs())
        plain = base.predict(*model_inputs()).detach()
    return fused, plain


@pytest.mark.parametrize("with_condition", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_fused_equals_plain(family, kind, with_condition):
    base = TinyBase(family, 3)
    one_sided, conditioned = {"identity_kind": "none", "has_controller": False}, {"identity_condition_dim": CONDITION_DIM}
    one_skip = {"identity_kind": "bottleneck-skip", "motion_kind": "bottleneck"}
    for settings in ({}, one_sided, conditioned, {"alpha": 7.0}, UNEQUAL, one_skip):
        pair = fill(make_pair(base, kind, **settings))
        fused, plain = outputs(base, pair, with_condition)
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


def test_changed_weights_are_seen():
    base = TinyBase("wan", 3)
    pair = fill(make_pair(base, "lora"))
    with Attachment(base.transformer, pair), torch.no_grad():
        before = base.predict(*model_inputs())
        for *_, adapter in iterate_sides(pair):
            adapter.up.weight.mul_(2)
        after = base.predict(*model_inputs())
    assert not torch.allclose(before, after)
    fused, plain = outputs(base, pair)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


class FullRank(Adapter):
    """An adapter that has no codes."""

    def __init__(self, layer: nn.Linear, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed)))

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return torch.tanh(hidden @ self.weight.t())


class GatedLoRA(LoRA):
    """With a code of its own, of which the fused form knows nothing."""

    def code(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return nn.functional.silu(super().code(hidden, condition))


def test_a_form_that_is_not_known_is_not_fused():
    base = TinyBase("wan", 3)
    pair = fill(make_pair(base, "lora"))
    for *_, adapter in iterate_sides(pair):
        adapter.__class__ = GatedLoRA
    fused, plain = outputs(base, pair)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_an_adapter_of_any_other_form_acts_beside_a_lora(is_compiled):
    base = TinyBase("wan", 3)
    pair = fill(make_pair(base, "lora", target_layers=("attn1.to_q",)))
    for seed, key in enumerate(pair.sides["identity"]):
        pair.sides["identity"][key] = FullRank(base.transformer.blocks[seed].attn1.to_q, seed)
    with torch.no_grad():
        plain = base.predict(*model_inputs())
    with Attachment(base.transformer, pair) as attachment:
        attachment.row_strengths = (0.0, 1.0)
        trained = base.predict(*model_inputs())
        trained.square().mean().backward()
        weights = attachment.weights.detach()
        if is_compiled:
            base.transformer.compile(backend="eager", fullgraph=True)
        with torch.no_grad():
            sampled = base.predict(*model_inputs())
            attachment.finish_call()
            hidden = torch.randn(2, 5, 32)
            layer = base.transformer.blocks[2].attn1.to_q
            attachment.call.use(weights, False)
            changed = layer(hidden) - nn.functional.linear(hidden, layer.weight, layer.bias)
    assert all(adapter.weight.grad is not None for adapter in pair.sides["identity"].values())
    torch.testing.assert_close(sampled, trained.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(sampled[0], plain[0]) and not torch.allclose(sampled[1], plain[1], atol=1e-4)
    identity, motion = (side["2-attn1/to_q"](hidden) for side in pair.sides.values())
    expected = weights[:, 2, :1, None] * identity + weights[:, 2, 1:, None] * motion
    torch.testing.assert_close(changed, expected.detach(), rtol=1e-4, atol=1e-5)


class Products(TorchDispatchMode):
    """Multiplications in matrix products, in place or not; torch's own counter knows the latter alone."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket.__name__ in ("mm", "addmm", "addmm_"):
            (rows, inner), (_, columns) = args[-2].shape, args[-1].shape
            self.count += rows * inner * columns
        return operation(*args, **(kwargs or {}))


def added_products(base: TinyBase, pair, **settings: object) -> int:
    """What a pair without StageBlender adds to a call."""
    with torch.no_grad():
        with Products() as plain:
            base.predict(*model_inputs())
        with Attachment(base.transformer, pair) as attachment:
            for name, value in settings.items():
                setattr(attachment, name, value)
            base.predict(*model_inputs())
            with Products() as whole:
                base.predict(*model_inputs())
    return whole.count - plain.count


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_sides_without_weight_cost_nothing(kind):
    base = TinyBase("wan", 3)
    pair = fill(make_pair(base, kind, has_controller=False))
    both = added_products(base, pair)
    assert both > 0
    for rows in ((0.0, 1.0), (0.7, 0.0)):
        assert abs(added_products(base, pair, row_strengths=rows) - both / 2) <= 0.02 * both
    assert abs(added_products(base, pair, strengths={"identity": 0.0, "motion": 1.0}) - both / 2) <= 0.02 * both
    assert added_products(base, pair, row_strengths=(0.0, 0.0)) == 0


@pytest.mark.parametrize("rows", [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_rows_without_weight_are_those_of_the_base_bit_for_bit(family, kind, rows):
    base = TinyBase(family, 3)
    with torch.no_grad():
        plain = base.predict(*model_inputs())
        with Attachment(base.transformer, fill(make_pair(base, kind))) as attachment:
            attachment.condition = condition()
            attachment.row_strengths = rows
            found = base.predict(*model_inputs())
    for row, strength in enumerate(rows):
        assert torch.equal(found[row], plain[row]) == (strength == 0)


@pytest.mark.parametrize("hidden_shape", [(2, 5, 8), (2, 3, 4, 8), (2, 8), (1, 5, 8)], ids=str)
@pytest.mark.parametrize("rows", [None, (0.0, 1.0)], ids=str)
def test_tokens_may_lie_in_any_number_of_axes(hidden_shape, rows):
    """(B, ..., C), or one vector per sample; (T, C) of packed tokens is that of a single row."""
    layer, adapters = nn.Linear(8, 6), {role: LoRA(8, 6, 2, 0.5) for role in ROLES}
    for adapter in adapters.values():
        nn.init.normal_(adapter.up.weight)
    hidden, weights = torch.randn(hidden_shape), torch.tensor([[[0.3, 0.8]], [[1.0, 0.2]]])[: hidden_shape[0]]
    call = Call()
    update = Updates(layer, adapters, Site("q", "q", ("input",), ()), call, 0, Mark(Place("blocks.0", "q", frozenset(ROLES))))
    outputs = []
    with torch.no_grad():
        if rows is not None:
            call.rows = tuple(row for row in range(len(weights)) if rows[row])
            weights = weights * torch.tensor(rows)[: len(weights), None, None]
        for uses_autograd in (False, True):
            call.use(weights, uses_autograd)
            outputs.append(update.after((hidden,), {}, layer(hidden)))
    expected = layer(hidden)
    for side, adapter in enumerate(adapters.values()):
        expected = expected + weights[:, 0, side].reshape(-1, *[1] * (len(hidden_shape) - 1)) * adapter(hidden)
    for output in outputs:
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    packed = torch.randn(7, 8)
    call.rows = None
    with torch.no_grad():
        for uses_autograd in (False, True):
            call.use(torch.tensor([[[0.3, 0.8]]]), uses_autograd)
            summed = layer(packed) + 0.3 * adapters["identity"](packed) + 0.8 * adapters["motion"](packed)
            torch.testing.assert_close(update.after((packed,), {}, layer(packed)), summed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["attn1.to_q", "attn1"])
def test_an_output_that_others_hold_is_left_as_it_is(place):
    """A hook may keep what a layer returned, and a module what it returns, to give it again."""
    base, kept = TinyBase("wan", 3), []
    base.transformer.blocks[0].get_submodule(place).register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        base.predict(*model_inputs())
        with Attachment(base.transformer, fill(make_pair(base, "lora" if place == "attn1.to_q" else "bottleneck"))):
            base.predict(*model_inputs())
    assert torch.equal(*kept)


class Kept:
    """Bytes that autograd keeps beside a model's own weights, each memory once."""

    def __init__(self, *modules: nn.Module) -> None:
        self.own = {weight.untyped_storage().data_ptr() for module in modules for weight in (*module.parameters(), *module.buffers())}
        self.storages: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.storages[storage.data_ptr()] = storage.nbytes()
            self.alive.append(tensor)
        return tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autograd_keeps_as_much_as_of_a_plain_lora(dtype):
    """Inputs and codes, no update; and on a base of lower precision no input in full precision."""
    kept = {}
    for name in ("peft", "ours"):
        base = TinyBase("wan", 2, num_heads=8)
        base.transformer.to(dtype)
        inputs = model_inputs(num_frames=6, height=8, width=8)
        if name == "peft":
            inject_adapter_in_model(LoraConfig(r=4, target_modules=base.family.linear_layers()), base.transformer)
            attachment, watched = nullcontext(), Kept(base.transformer)
        else:
            pair = make_pair(base, "lora", num_groups=2, has_controller=False)
            pair.sides["identity"].requires_grad_(False)
            attachment, watched = Attachment(base.transformer, pair), Kept(base.transformer, pair)
        with attachment, saved_tensors_hooks(watched, lambda tensor: tensor):
            base.predict(*inputs)
        kept[name] = sum(watched.storages.values())
    assert kept["ours"] <= 1.05 * kept["peft"]
