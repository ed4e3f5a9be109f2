"""A pair in compiled code: the same output, in one graph, whenever either came first; nothing is compiled anew from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product

import pytest
import torch
import torch._dynamo
from tiny import FAMILY_NAMES, KINDS, TinyBase, all_items, condition, fill, make_pair, model_inputs
from torch._dynamo.utils import counters

from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import PLANS, FixedBlend
from dualreal_core.method.pair import AdapterPair, iterate_sides
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

NUM_BLOCKS, NUM_STEPS = 2, 20
WAYS = ("the whole model", "the whole model, exchanged", "each block", "each block, exchanged")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compile_in_place(base: TinyBase, way: str) -> None:
    """By the part of torch.compile that decides what a graph holds. As one graph, or it raises."""
    options = {"backend": "eager", "fullgraph": True}
    blocks = base.transformer.get_submodule(base.family.block_lists[0].path)
    if way == "the whole model":
        base.transformer.compile(**options)
    elif way == "each block":
        for block in blocks:
            block.compile(**options)
    elif way == "each block, exchanged":
        for number, block in enumerate(list(blocks)):
            blocks[number] = torch.compile(block, **options)
    else:
        base.transformer = torch.compile(base.transformer, **options)


def num_graphs() -> int:
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def sampled(base: TinyBase, attachment: Attachment) -> list[torch.Tensor]:
    """Outputs over a schedule of stages, guided: the pair rests on the first row."""
    attachment.condition, attachment.row_strengths, attachment.strengths = condition(1), (0.0, 1.0), {"identity": 0.7, "motion": 1.2}
    outputs = []
    for step in range(NUM_STEPS):
        attachment.stage = step / NUM_STEPS
        outputs.append(base.predict(*model_inputs()))
        attachment.finish_call()
    return outputs


def largest_difference(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(left, right, strict=True))


def filled(base: TinyBase, kind: str = "lora", **settings: object) -> AdapterPair:
    return fill(make_pair(base, kind, **{"num_groups": 2, "share_schedule": (0.2, 0.8), **settings}))


CASES = [
    *(("wan", kind, WAYS[0], False) for kind in KINDS),
    *(("cogvideox", kind, WAYS[0], True) for kind in KINDS),
    *(("wan", "lora", way, True) for way in WAYS),
    *(("wan", "lora", way, False) for way in WAYS[1:]),
    ("cogvideox", "lora", WAYS[2], True),
]
MORE = sorted({*product(FAMILY_NAMES, KINDS, WAYS, (False, True))} - {*CASES})


@pytest.mark.parametrize(
    ("family", "kind", "way", "is_compiled_first"), [*CASES, *(pytest.param(*case, marks=pytest.mark.thorough) for case in MORE)]
)
def test_compiled_code_has_the_pair_in_it(family, kind, way, is_compiled_first):
    base = TinyBase(family, NUM_BLOCKS)
    pair = filled(base, kind)
    with torch.no_grad():
        plain = base.predict(*model_inputs())
        with Attachment(base.transformer, pair) as attachment:
            expected = sampled(base, attachment)
        assert largest_difference(expected[:1], expected[-1:]) > 1e-4, "stages are the same, so this test shows nothing"
        if is_compiled_first:
            compile_in_place(base, way)
            torch.testing.assert_close(base.predict(*model_inputs()), plain, rtol=0, atol=0)
        before = num_graphs()
        attachment = Attachment(base.transformer, pair)
        if not is_compiled_first:
            compile_in_place(base, way)
        outputs = sampled(base, attachment)
        with_pair = num_graphs() - before
        assert largest_difference(outputs, expected) <= 1e-6
        attachment.detach()
        torch.testing.assert_close(base.predict(*model_inputs()), plain, rtol=0, atol=0)
        without = before if is_compiled_first else num_graphs() - with_pair
        chooses_within = way == WAYS[3] and not is_compiled_first  # the first block's code may then be another one
        assert 0 < with_pair <= without + chooses_within, "a graph for each block, or compiled anew from step to step"
        graphs = num_graphs()
        attachment.attach()
        assert largest_difference(sampled(base, attachment), expected) <= 1e-6 and num_graphs() == graphs


@pytest.mark.parametrize("name", ["plan", "fixed"])
def test_a_blend_set_by_hand_is_followed(name):
    base = TinyBase("wan", NUM_BLOCKS)
    pair = filled(base, num_groups=2)
    blend = {"plan": PLANS["paper trend"].blend(pair.config), "fixed": FixedBlend(0.1, 0.2)}[name]
    with torch.no_grad(), Attachment(base.transformer, pair, blend) as attachment:
        expected = sampled(base, attachment)
        compile_in_place(base, "the whole model")
        assert largest_difference(sampled(base, attachment), expected) <= 1e-6 and num_graphs() == 1


def test_what_is_changed_between_calls_counts():
    """Strengths, condition, rows and weights; each changes the output as it does where nothing is compiled."""
    eager, compiled = TinyBase("wan", NUM_BLOCKS), TinyBase("wan", NUM_BLOCKS)
    compile_in_place(compiled, "the whole model")
    changes = (
        lambda attachment: setattr(attachment, "strengths", {"identity": 0.0, "motion": 1.0}),
        lambda attachment: setattr(attachment, "strengths", {"identity": 0.5, "motion": 1.0}),
        lambda attachment: setattr(attachment, "condition", condition(2)),
        lambda attachment: setattr(attachment, "condition", None),
        lambda attachment: setattr(attachment, "row_strengths", (1.0, 0.0)),
        lambda attachment: [one.up.weight.mul_(2) for *_, one in iterate_sides(attachment.pair)],
    )
    seen = []
    with torch.no_grad():
        attachments = [Attachment(base.transformer, filled(base, "bottleneck", has_controller=False)) for base in (eager, compiled)]
        for change in (lambda attachment: None, *changes):
            outputs = []
            for base, attachment in zip((eager, compiled), attachments, strict=True):
                change(attachment)
                attachment.stage = 0.3 + 0.01 * len(seen)
                outputs.append(base.predict(*model_inputs()))
            torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)
            assert all(not torch.allclose(outputs[0], other, atol=1e-4) for other in seen), "the change does nothing"
            seen.append(outputs[0])


def test_what_is_set_outside_of_no_grad_counts_as_well():
    """As between two samplings; nothing is fused then."""
    base = TinyBase("wan", NUM_BLOCKS)
    pair = filled(base, has_controller=False)
    compile_in_place(base, "the whole model")
    attachment = Attachment(base.transformer, pair)
    seen = []
    for strengths, factor in (((1.0, 0.0), 1.0), ((1.0, 1.0), 1.0), ((0.0, 0.0), 1.0), ((1.0, 1.0), 3.0)):
        attachment.strengths = dict(zip(("identity", "motion"), strengths, strict=True))
        with torch.no_grad():
            for *_, adapter in iterate_sides(pair):
                adapter.up.weight.mul_(factor)
        attachment.stage = 0.2 + 0.1 * len(seen)
        with torch.no_grad():
            found = base.predict(*model_inputs())
            seen.append(found)
            fresh = TinyBase("wan", NUM_BLOCKS)
            with Attachment(fresh.transformer, pair) as other:
                other.strengths, other.stage = attachment.strengths, attachment.stage
                torch.testing.assert_close(found, fresh.predict(*model_inputs()), rtol=0, atol=1e-6)
    assert all(not torch.allclose(one, other, atol=1e-4) for one, other in pairwise(seen))


def test_several_pairs_come_and_go():
    base = TinyBase("wan", NUM_BLOCKS)
    pairs = [filled(base, kind) for kind in ("lora", "bottleneck")]
    with torch.no_grad():
        plain = base.predict(*model_inputs())
        attachments = [Attachment(base.transformer, pair) for pair in pairs]
        both = base.predict(*model_inputs())
        attachments[0].detach()
        second = base.predict(*model_inputs())
        attachments[1].detach()
        compile_in_place(base, "the whole model")
        for attached, expected in (((), plain), ((0, 1), both), ((1,), second), ((), plain), ((0, 1), both)):
            for number in attached:
                attachments[number].attach()
            torch.testing.assert_close(base.predict(*model_inputs()), expected, rtol=0, atol=1e-5)
            for attachment in attachments:
                attachment.detach()
        assert num_graphs() == 3


@pytest.mark.thorough
@pytest.mark.parametrize("way", [WAYS[0], WAYS[2]])
@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_training_learns_the_same_through_compiled_code(kind, way):
    settings = TrainSettings(steps=3, warmup_steps=0, motion_batch=2, preservation_ratio=1.0)
    learned = []
    for is_compiled in (False, True):
        base = TinyBase("wan", NUM_BLOCKS)
        pair = filled(base, kind)
        if is_compiled:
            compile_in_place(base, way)
        with Attachment(base.transformer, pair) as attachment:
            losses = [done.loss for done in train(base, attachment, all_items(), settings, RunState.start(pair, settings))]
        learned.append((losses, dict(pair.named_parameters())))
    (losses, weights), (compiled_losses, compiled_weights) = learned
    assert compiled_losses == pytest.approx(losses, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(compiled_weights[name], weight, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("way", ["the whole model", "each block"])
def test_a_layer_that_compiled_code_steps_past_is_named(way):
    base = TinyBase("wan", NUM_BLOCKS)
    ffn = base.transformer.blocks[1].ffn
    ffn.forward = lambda hidden: torch.nn.functional.linear(ffn.net[1](ffn.net[0](hidden)), ffn.net[2].weight, ffn.net[2].bias)
    compile_in_place(base, way)
    with torch.no_grad(), Attachment(base.transformer, filled(base)) as attachment:
        base.predict(*model_inputs())
        assert [place.path for place in attachment.silent()] == ["blocks.1.ffn.net.2"]
