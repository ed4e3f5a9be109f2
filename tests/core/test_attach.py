"""Attaching a pair: neutral where it must be, exact restoration, and the same result however it is computed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import get_args

import pytest
import torch
from tiny import (
    CONDITION_DIM,
    FAMILY_NAMES,
    KINDS,
    OTHER_FAMILIES,
    TinyBase,
    all_items,
    condition,
    fill,
    make_pair,
    model_inputs,
    predict,
    weights_hash,
)
from torch import nn

from dualreal_core.errors import InputError
from dualreal_core.families import CANONICAL, DESCRIPTIONS, TITLES, WAN_LIKE
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import BlendRecord, FixedBlend
from dualreal_core.method.pair import ROLES, AdapterKind, new_pair
from dualreal_core.training.checkpointing import checkpointed
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

NUM_BLOCKS = 5


@pytest.fixture(scope="module", params=FAMILY_NAMES + OTHER_FAMILIES)
def base(request) -> TinyBase:
    return TinyBase(request.param, NUM_BLOCKS)


def num_hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in module.modules())


def test_the_suite_covers_every_family_and_kind():
    described = {family.class_name for family in DESCRIPTIONS if family.package == "diffusers" and family not in WAN_LIKE}
    assert described == {TinyBase(name).family.class_name for name in FAMILY_NAMES + OTHER_FAMILIES}
    assert {*get_args(AdapterKind)} == {*KINDS, "none"}


@pytest.mark.parametrize("with_condition", [False, True])
@pytest.mark.parametrize("has_controller", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_untrained_pair(base, kind, has_controller, with_condition):
    pair = make_pair(base, kind, has_controller=has_controller, identity_condition_dim=CONDITION_DIM)
    is_neutral = torch.equal(predict(base, pair, with_condition), predict(base))
    assert is_neutral == (kind != "bottleneck-skip")


@pytest.mark.parametrize("kind", KINDS)
def test_detach_restores(base, kind):
    before, plain, hooks = weights_hash(base.transformer), predict(base), num_hooks(base.transformer)
    assert not torch.equal(predict(base, fill(make_pair(base, kind))), plain)
    assert torch.equal(predict(base), plain) and num_hooks(base.transformer) == hooks
    assert weights_hash(base.transformer) == before
    with pytest.raises(KeyError), Attachment(base.transformer, fill(make_pair(base, kind))):
        raise KeyError
    assert num_hooks(base.transformer) == hooks


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_two_attachments_detach_in_any_order(base, kind, order):
    pairs = [fill(make_pair(base, kind, has_controller=False), seed) for seed in (1, 2)]
    plain, alone = predict(base), [predict(base, pair, False) for pair in pairs]
    attachments = [Attachment(base.transformer, pair) for pair in pairs]
    both = predict(base)
    assert all(not torch.equal(both, other) for other in (plain, *alone))
    attachments[order[0]].detach()
    attachments[order[0]].detach()
    assert torch.equal(predict(base), alone[order[1]])
    attachments[order[1]].detach()
    assert torch.equal(predict(base), plain)


def test_the_same_pair_attached_twice_counts_twice(base):
    pair = fill(make_pair(base, has_controller=False))
    with Attachment(base.transformer, pair, FixedBlend(0.2, 0.2)):
        doubled = predict(base)
    with Attachment(base.transformer, pair, FixedBlend(0.1, 0.1)), Attachment(base.transformer, pair, FixedBlend(0.1, 0.1)):
        torch.testing.assert_close(predict(base), doubled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_rows_are_independent(base, kind):
    pair, inputs = fill(make_pair(base, kind), spread=0.3), model_inputs(batch=2)
    with torch.no_grad(), Attachment(base.transformer, pair) as attachment:
        attachment.record = BlendRecord(row=0)
        attachment.condition = condition(2)
        together = base.predict(*inputs)
        attachment.finish_call()
        rows = []
        for row in range(2):
            attachment.condition = condition(2)[row : row + 1]
            rows.append(base.predict(*(part[row : row + 1] for part in inputs)))
            attachment.finish_call()
    weights = attachment.record.table()  # row 0 of the batch, row 0 alone, row 1 alone
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)
    assert (weights[1] - weights[2]).abs().max() > 1e-4, "rows have the same weights, so this test shows nothing"
    torch.testing.assert_close(together, torch.cat(rows), rtol=0, atol=1e-5)


def test_one_condition_is_shared_by_all_rows(base):
    pair, inputs = fill(make_pair(base)), model_inputs()
    with torch.no_grad(), Attachment(base.transformer, pair) as attachment:
        attachment.condition = condition(1)
        shared = base.predict(*inputs)
        attachment.condition = condition(1).expand(2, -1)
        torch.testing.assert_close(shared, base.predict(*inputs), rtol=0, atol=1e-6)
        attachment.condition = -condition(1)
        assert not torch.allclose(shared, base.predict(*inputs), atol=1e-4)


@pytest.mark.parametrize("num_groups", [1, 3, NUM_BLOCKS])
def test_groups(base, num_groups):
    pair = fill(make_pair(base, num_groups=num_groups))
    sizes = [[pair.config.group_of(block) for block in range(NUM_BLOCKS)].count(group) for group in range(num_groups)]
    assert sum(sizes) == NUM_BLOCKS and max(sizes) - min(sizes) <= 1
    with torch.no_grad(), Attachment(base.transformer, pair) as attachment:
        attachment.record = BlendRecord()
        output = base.predict(*model_inputs())
        attachment.finish_call()
    assert torch.isfinite(output).all()
    table = attachment.record.table()
    assert table.shape == (1, num_groups, 2)
    torch.testing.assert_close(table.sum(-1), torch.full((1, num_groups), pair.config.scale))


def test_a_host_may_leave_out_the_first_block():
    """As some kinds of guidance do: the weights are then chosen where the next block is entered."""
    base = TinyBase("wan", 2)
    pair = fill(make_pair(base, num_groups=2))
    with Attachment(base.transformer, pair, FixedBlend(0.3, 0.1)):
        base.transformer.blocks = base.transformer.blocks[1:]
        shortened = predict(base)
    assert torch.isfinite(shortened).all() and not torch.allclose(shortened, predict(base), atol=1e-4)


@pytest.mark.parametrize("noisy_frame", [0, 1, 2])
def test_the_noisiest_frame_tells_the_stage(noisy_frame):
    """Wan 2.2 gives each token a timestep of its own; those of reference frames are cleaner, wherever these frames are."""
    wan = TinyBase("wan", 2)
    latents, _, text = model_inputs(batch=2)
    timesteps = torch.zeros(2, 3)
    timesteps[:, noisy_frame] = torch.tensor([900.0, 300.0])
    seen = []

    class Spy(FixedBlend):
        def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
            seen.append(embedding)
            return super().weights(embedding, tokens, scheduled)

    with torch.no_grad(), Attachment(wan.transformer, make_pair(wan, num_groups=2), Spy(0.1, 0.1)):
        wan.transformer(latents, timesteps.repeat_interleave(6, 1), text)
        wan.transformer(latents, timesteps[:, noisy_frame], text)
    torch.testing.assert_close(*seen, rtol=0, atol=1e-6)


class FoldingFeedForward(nn.Sequential):
    """Calls its last layer's matrix without calling the layer, as ComfyUI does where weights are of INT8."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self[1](self[0](hidden)), self[2].weight, self[2].bias)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_layers_that_a_base_folds_are_called_while_attached(monkeypatch, is_replaced):
    """The same as where nothing is folded; a forward that somebody else put there stays."""
    module = wan_module("WanModel")
    pair = fill(new_pair(module, identity_kind="lora", motion_kind="lora", rank=2, num_groups=1, has_controller=False))
    block, hidden = module.blocks[0], torch.randn(1, 3, 8)
    if is_replaced:
        replaced = lambda hidden: nn.Sequential.forward(block.ffn, hidden)  # noqa: E731
        block.ffn.forward = replaced
    before, outputs = dict(vars(block.ffn)), []
    first, second = Attachment(module, pair, FixedBlend(1.0, 0.5)), Attachment(module, pair, FixedBlend(1.0, 0.5))
    for attachment in (first, second):
        attachment.call.use(torch.tensor([[[1.0, 0.5]]]), True)
    outputs.append(block.ffn(hidden))
    monkeypatch.setattr(FoldingFeedForward, "forward", nn.Sequential.forward)
    outputs.append(block.ffn(hidden))
    monkeypatch.undo()
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    second.detach(), first.detach()
    assert vars(block.ffn).get("forward") is before.get("forward")
    assert not torch.allclose(block.ffn(hidden), outputs[0], atol=1e-3)


def wan_module(name: str) -> nn.Module:
    """A module of a class of this name made from ComfyUI's WanModel; only its modules' places are those of Wan."""
    wan = type("WanModel", (nn.Module,), {"__module__": "comfy.ldm.wan.model"})
    module = wan() if name == "WanModel" else type(name, (wan,), {"__module__": "comfy.ldm.wan.other"})()
    module.time_embedding = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 8))
    attention = nn.ModuleDict({layer: nn.Linear(8, 8) for layer in "qkvo"})
    ffn = FoldingFeedForward(nn.Linear(8, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 8))
    module.blocks = nn.ModuleList([nn.ModuleDict({"self_attn": attention, "ffn": ffn})])
    return module


@pytest.mark.parametrize("name", ["CausalWanModel", "VaceWanModel"])
def test_relatives_that_call_their_blocks_are_of_the_family(name):
    assert new_pair(wan_module(name), num_groups=1).config == new_pair(wan_module("WanModel"), num_groups=1).config


@pytest.mark.parametrize("num_groups", [1, 3, NUM_BLOCKS])
def test_each_block_uses_the_weights_of_its_group(base, num_groups):
    """Only group g has a weight: the same as a pair whose adapters outside of g are zero."""
    pair = fill(make_pair(base, has_controller=False, num_groups=num_groups))

    class OneGroup:
        def __init__(self, group: int) -> None:
            self.group = group

        def scheduled(self, stage: float | None, noise_level: float | None) -> torch.Tensor:
            return torch.zeros(1, 0)

        def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.tensor(self.group), num_groups)[None, :, None] * torch.tensor([0.3, 0.1])

    for group in range(num_groups):
        cut = make_pair(base, has_controller=False, num_groups=num_groups)
        cut.load_state_dict(pair.state_dict())
        with torch.no_grad():
            for role in ROLES:
                for key, adapter in cut.sides[role].items():
                    if cut.config.group_of(int(key.partition("-")[0])) != group:
                        adapter.up.weight.zero_(), adapter.up.bias.zero_()
        with Attachment(base.transformer, pair, OneGroup(group)):
            masked = predict(base)
        with Attachment(base.transformer, cut, FixedBlend(0.3, 0.1)):
            torch.testing.assert_close(masked, predict(base), rtol=0, atol=1e-6)


def test_default_groups_fit_shallow_bases():
    assert new_pair(TinyBase("wan", num_blocks=2).transformer).config.num_groups == 2
    with pytest.raises(ValueError, match="num_groups is 3"):
        new_pair(TinyBase("wan", num_blocks=2).transformer, num_groups=3)


@pytest.mark.parametrize(
    "sizes",
    [{"num_text": 1}, {"num_text": 300}, {"num_frames": 1}, {"num_frames": 7}, {"height": 10, "width": 2}, {"height": 2, "width": 14}],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_any_text_length_and_resolution(base, kind, sizes):
    if base.kind == "hunyuan" and "num_text" in sizes:
        sizes = {"num_text": sizes["num_text"] + 1}  # beside the pooled one
    inputs = model_inputs(**sizes)
    neutral = make_pair(base, kind if kind != "bottleneck-skip" else "bottleneck")
    assert torch.equal(predict(base, neutral, inputs=inputs), predict(base, inputs=inputs))
    changed = predict(base, fill(make_pair(base, kind)), inputs=inputs)
    assert changed.shape == inputs[0].shape and torch.isfinite(changed).all()
    assert not torch.equal(changed, predict(base, inputs=inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_strengths(base, kind):
    pair = fill(make_pair(base, kind))
    with torch.no_grad(), Attachment(base.transformer, pair) as attachment:
        attachment.strengths = dict.fromkeys(ROLES, 0.0)
        assert torch.equal(base.predict(*model_inputs()), predict_plain(base))
        attachment.blend = FixedBlend(0.1, 0.1)
        for strengths, weights in (((0.0, 1.0), (0.0, 0.1)), ((2.0, 0.5), (0.2, 0.05)), ((-1.0, 0.0), (-0.1, 0.0))):
            attachment.strengths = dict(zip(ROLES, strengths, strict=True))
            scaled = base.predict(*model_inputs())
            attachment.strengths = dict.fromkeys(ROLES, 1.0)
            attachment.blend = FixedBlend(*weights)
            torch.testing.assert_close(scaled, base.predict(*model_inputs()), rtol=0, atol=1e-6)
            attachment.blend = FixedBlend(0.1, 0.1)


def predict_plain(base: TinyBase) -> torch.Tensor:
    return TinyBase(base.kind, NUM_BLOCKS).predict(*model_inputs())


@pytest.mark.parametrize("role", ROLES)
def test_one_sided_pair(base, role):
    other = next(name for name in ROLES if name != role)
    pair = make_pair(base, **{f"{other}_kind": "none"})
    assert pair.controller is None and pair.role_parameters(other) == []
    assert torch.equal(predict(base, pair), predict(base))
    assert not torch.equal(predict(base, fill(pair)), predict(base))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_base_is_refused(base, kind):
    pair = make_pair(base, kind)
    other_family = next(name for name in FAMILY_NAMES if name != base.family.name)
    for wrong, what in (
        (TinyBase(other_family, NUM_BLOCKS), "family"),
        (TinyBase(base.family.name, NUM_BLOCKS, num_heads=1), "dim"),
        (TinyBase(base.family.name, NUM_BLOCKS - 1), "num_blocks"),
    ):
        with pytest.raises(InputError, match=f"made for a base with {what} .*use the base it was made for"):
            Attachment(wrong.transformer, pair)
        assert num_hooks(wrong.transformer) == 0
    with pytest.raises(InputError, match="is a Linear of torch, and pairs are for video models") as refusal:
        Attachment(nn.Linear(2, 2), pair)
    assert set(TITLES) == set(CANONICAL), "a family without a name that people know"
    told = [*TITLES.values(), *(name for family in DESCRIPTIONS for name in (family.class_name, family.package)), "dualreal_core/families"]
    assert all(one in str(refusal.value) for one in told)


@pytest.mark.parametrize("kind", KINDS)
def test_training_leaves_the_base_alone(base, kind):
    before, pair = weights_hash(base.transformer), make_pair(base, kind)
    start = weights_hash(pair)
    settings = TrainSettings(steps=3, warmup_steps=0, motion_batch=2)
    with Attachment(base.transformer, pair) as attachment:
        assert len(list(train(base, attachment, all_items(), settings, RunState.start(pair, settings)))) == 3
    assert weights_hash(base.transformer) == before and weights_hash(pair) != start
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in base.transformer.parameters())


def gradients(base: TinyBase, pair, masked: str | None = None, is_checkpointed: bool = False) -> dict[str, torch.Tensor | None]:
    """Gradients of all parameters; the side `masked` is frozen."""
    pair.requires_grad_(True).zero_grad(set_to_none=True)
    if masked is not None:
        pair.sides[masked].requires_grad_(False)
    with Attachment(base.transformer, pair) as attachment:
        attachment.condition = condition()
        with checkpointed(base.transformer, attachment) if is_checkpointed else nullcontext():
            base.predict(*model_inputs()).square().mean().backward()
    return {name: parameter.grad for name, parameter in pair.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(base, kind):
    """Along the gradient; parts of each DiT compute in float32 whatever its own precision."""
    exact = TinyBase(base.kind, 3)
    exact.transformer.double()
    pair = fill(make_pair(exact, kind, has_controller=False, motion_condition_dim=None)).double()
    inputs = [part.double() if part.is_floating_point() else part for part in model_inputs()]
    weights = list(pair.sides.parameters())
    with Attachment(exact.transformer, pair, FixedBlend(0.7, 1.1)):
        exact.predict(*inputs).square().sum().backward()
        gradient = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        length = float(torch.stack([part.square().sum() for part in gradient]).sum().sqrt())
        losses = []
        with torch.no_grad():
            for step in (1e-3, -2e-3):
                for weight, part in zip(weights, gradient, strict=True):
                    weight.add_(part, alpha=step / length)
                losses.append(float(exact.predict(*inputs).square().sum()))
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(length, rel=3e-3)


@pytest.mark.parametrize("masked", [None, *ROLES])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILY_NAMES + OTHER_FAMILIES)
def test_gradient_checkpointing(family, kind, masked):
    base = TinyBase(family, NUM_BLOCKS)
    pair = fill(make_pair(base, kind))
    plain = gradients(base, pair, masked)
    runs, block = [], base.transformer.get_submodule(base.family.block_lists[0].path)[1]
    hook = block.get_submodule(base.family.block_lists[0].sites[0].reads).register_forward_pre_hook(lambda *args: runs.append(1))
    rerun = gradients(base, pair, masked, is_checkpointed=True)
    hook.remove()
    assert "forward" not in vars(block), "the block's own forward is not back"
    assert len(runs) == 2, "the block was not recomputed, so this test shows nothing"
    for name, gradient in plain.items():
        if family == "hunyuan 1.5" and f".{NUM_BLOCKS - 1}-" in name and ("txt_" in name or "_text" in name):
            continue  # the text that the last block puts out is not read
        assert (gradient is None) == (rerun[name] is None) == (masked is not None and f"sides.{masked}." in name), name
        if gradient is not None:
            torch.testing.assert_close(rerun[name], gradient, rtol=1e-5, atol=1e-8, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILY_NAMES + OTHER_FAMILIES)
def test_bfloat16(family, kind):
    base = TinyBase(family, NUM_BLOCKS)
    pair = fill(make_pair(base, kind))
    exact = predict(base, pair)
    base.transformer.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = predict(base, pair)  # trained weights stay float32
    untrained = make_pair(base, "lora" if kind == "lora" else "bottleneck").to(torch.bfloat16)
    assert torch.equal(predict(base, untrained), predict(base))
    low = predict(base, pair.to(torch.bfloat16))
    assert low.dtype == torch.bfloat16
    for output in (mixed, low):
        most = 0.1 if family == "hunyuan" else 0.03  # the guidance that it reads is rounded as well
        assert (output.float() - exact).norm() < most * exact.norm()
