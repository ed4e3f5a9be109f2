"""A layer that the base computes without calling it, or a block that is replaced, stops the work and is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_attach import wan_module
from tiny import TEXT_DIM, TinyBase, all_items, fill, make_pair, model_inputs
from torch import nn

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_core.sampling import default_sampling, sample
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

NUM_BLOCKS = 3


@pytest.fixture
def base() -> TinyBase:
    return TinyBase("wan", NUM_BLOCKS)


def fuse(base: TinyBase, number: int) -> None:
    """The last layer of a block's feed-forward is computed from its weights, as ComfyUI does where they are of INT8."""
    ffn = base.transformer.blocks[number].ffn

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(ffn.net[1](ffn.net[0](hidden)), ffn.net[2].weight, ffn.net[2].bias)

    ffn.forward = forward


def replace_block(base: TinyBase, number: int) -> None:
    """The block is called, and what it does is not its own."""
    base.transformer.blocks[number].forward = lambda hidden, *args: hidden


def sampled(base: TinyBase, attachment: Attachment) -> None:
    sample(base, [torch.zeros(5, TEXT_DIM)], torch.zeros(5, TEXT_DIM), replace(default_sampling(base), num_steps=1), attachment)


def trained(base: TinyBase, attachment: Attachment, **settings: object) -> None:
    settings = TrainSettings(steps=2, warmup_steps=0, motion_batch=2, **settings)
    list(train(base, attachment, all_items(), settings, RunState.start(attachment.pair, settings)))


@pytest.mark.parametrize("work", [sampled, trained])
@pytest.mark.parametrize(("change", "named"), [(fuse, "blocks.1.ffn.net.2, which"), (replace_block, r"blocks.1.attn1.to_q \(and 5 more\)")])
def test_the_first_call_stops_and_names_the_place(base, change, named, work):
    with Attachment(base.transformer, fill(make_pair(base, "lora"))) as attachment:
        work(base, attachment)
        change(base, 1)
        with pytest.raises(InputError, match=f"acts on {named}.*without calling it: use the model without"):
            work(base, attachment)


@pytest.mark.parametrize("kind", ["bottleneck", "bottleneck-skip"])
def test_a_module_that_is_called_whole_may_fuse_its_layers(base, kind):
    fuse(base, 1)
    with Attachment(base.transformer, fill(make_pair(base, kind))) as attachment:
        sampled(base, attachment)
        trained(base, attachment, gradient_checkpointing=True)


@pytest.mark.parametrize("settings", [{"target_layers": ("to_v",)}, {"motion_kind": "bottleneck"}], ids=str)
def test_only_the_places_of_the_pair_count(base, settings):
    """Of a pair that acts in a few layers, or with each side in places of its own; also when blocks run again."""
    with Attachment(base.transformer, fill(make_pair(base, **{"identity_kind": "lora", "motion_kind": "lora", **settings}))) as attachment:
        sampled(base, attachment)
        trained(base, attachment, gradient_checkpointing=True, frozen_adapter_dropout=0.5)
        assert attachment.silent() == []


def test_a_block_without_places_may_be_replaced(base):
    pair = fill(make_pair(base, "lora", motion_kind="none"))
    pair.sides["identity"] = nn.ModuleDict({key: adapter for key, adapter in pair.sides["identity"].items() if key[0] != "1"})
    replace_block(base, 1)
    with Attachment(base.transformer, pair) as attachment:
        sampled(base, attachment)


def test_a_side_without_strength_need_not_act(base):
    pair = fill(make_pair(base, identity_kind="bottleneck", motion_kind="lora"))
    fuse(base, 2)
    with torch.no_grad(), Attachment(base.transformer, pair) as attachment:
        attachment.strengths = {"identity": 1.0, "motion": 0.0}
        base.predict(*model_inputs())
        attachment.finish_call()
        attachment.strengths = {"identity": 1.0, "motion": 0.5}
        with pytest.raises(InputError, match=r"blocks\.2\.ffn\.net\.2"):
            attachment.finish_call()


def test_a_host_can_tell_whether_the_model_ran(base):
    """One that answers a call from a cache does not call it."""
    with torch.no_grad(), Attachment(base.transformer, make_pair(base)) as attachment:
        assert not attachment.coverage.has_run and len(attachment.silent()) == 2 * NUM_BLOCKS
        base.predict(*model_inputs())
        assert attachment.coverage.has_run and attachment.silent() == []


def test_a_time_embedding_that_is_stepped_past_is_named(base):
    with torch.no_grad(), Attachment(base.transformer, make_pair(base)), pytest.raises(InputError, match="goes by condition_embedder"):
        base.transformer.condition_embedder = TinyBase("wan", NUM_BLOCKS).transformer.condition_embedder
        base.predict(*model_inputs())


def test_a_part_of_the_batch_is_no_batch(base):
    """Some guidance runs a block for the rows of the prompt alone: whose weights are meant cannot be told."""
    block = base.transformer.blocks[1]
    whole = block.forward
    block.forward = lambda hidden, text, embedding, rope: torch.cat([hidden[:1], whole(hidden[1:], text[1:], embedding[1:], rope)])
    called = pytest.raises(InputError, match=r"blocks\.1\.attn1 was called with 1 rows, and the batch has 2")
    with torch.no_grad(), Attachment(base.transformer, fill(make_pair(base))), called:
        base.predict(*model_inputs())


def test_what_was_not_read_is_not_replaced_by_something_else():
    """In ComfyUI's CogVideoX a bottleneck reads at `q` and writes behind `attn_out`, whose own input is another thing."""
    cogvideox = type("CogVideoXTransformer3DModel", (nn.Module,), {"__module__": "comfy.ldm.cogvideo.model"})
    module = cogvideox()
    module.time_embedding_linear_2 = nn.Linear(8, 8)
    names = ("q", "k", "v", "attn_out", "ff_proj", "ff_out")
    module.blocks = nn.ModuleList([nn.ModuleDict({name: nn.Linear(8, 8) for name in names})])
    pair: AdapterPair = fill(new_pair(module, bottleneck_dim=4, num_groups=1, has_controller=False))
    with Attachment(module, pair, FixedBlend(1.0, 1.0)) as attachment:
        attachment.call.use(torch.ones(1, 1, 2), True)
        with pytest.raises(InputError, match=r"acts on blocks\.0\.q, which"):
            module.blocks[0]["attn_out"](torch.randn(1, 3, 8))


def test_families_name_no_layer_that_is_not_called():
    """The class of ComfyUI's Wan, whose feed-forward may compute both of its layers at once: it is called layer by layer."""
    module = wan_module("WanModel")
    pair = fill(new_pair(module, identity_kind="lora", motion_kind="none", rank=2, num_groups=1, target_layers=("ffn.net.2",)))
    with Attachment(module, pair, FixedBlend(1.0, 1.0)) as attachment:
        attachment.call.use(torch.ones(1, 1, 2), True)
        module.blocks[0].ffn(torch.randn(1, 3, 8))
        attachment.finish_call()
