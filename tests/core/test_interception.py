"""Classes exchanged for as long as a pair is attached: the module stays what it is, and everything comes back, whatever happens."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tiny import FAMILY_NAMES, TinyBase, condition, fill, make_pair, model_inputs
from torch import nn
from torch.nn.utils import parametrize

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.interception import INTERCEPTORS, Interception, Interceptor


class Adds(Interceptor):
    def __init__(self, number: float) -> None:
        self.number = number

    def after(self, args: tuple, kwargs: dict, output: torch.Tensor) -> torch.Tensor:
        return output + self.number


def kinds(module: nn.Module) -> list[tuple]:
    return [(type(one), *vars(one)) for one in module.modules()]


def test_a_module_keeps_its_identity():
    layer = nn.Linear(3, 2)
    name, state = type(layer).__qualname__, list(layer.state_dict())
    shared, hidden = Adds(100.0), torch.ones(4, 3)
    first, second, third, again = (Interception(layer, one) for one in (Adds(1.0), Adds(10.0), shared, shared))
    plain = nn.functional.linear(hidden, layer.weight, layer.bias)
    assert isinstance(layer, nn.Linear) and type(layer).__qualname__ == name and list(layer.state_dict()) == state
    for expected, interception in ((211.0, first), (210.0, third), (110.0, second), (100.0, again)):
        torch.testing.assert_close(layer(hidden), plain + expected)
        interception.remove()
    assert type(layer) is nn.Linear and INTERCEPTORS not in vars(layer) and torch.equal(layer(hidden), plain)


def test_copies_are_of_the_module_as_it_was():
    layer, hidden = nn.Linear(3, 2), torch.ones(4, 3)
    plain = layer(hidden)
    Interception(layer, Adds(1.0))
    for made in (copy.copy(layer), copy.deepcopy(layer)):
        assert type(made) is nn.Linear and torch.equal(made(hidden), plain)
    pickled = pickle.dumps(layer)
    assert b"Linear" in pickled and INTERCEPTORS.encode() not in pickled and Adds.__name__.encode() not in pickled
    torch.testing.assert_close(layer(hidden), plain + 1)


def test_a_class_that_somebody_changes_meanwhile_stays_theirs():
    layer, hidden = nn.Linear(3, 2), torch.ones(4, 3)
    plain, interception = layer(hidden), Interception(layer, Adds(1.0))
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    torch.testing.assert_close(layer(hidden), plain + 1)
    interception.remove()
    torch.testing.assert_close(layer(hidden), plain)
    parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(layer(hidden), plain)


def test_what_cannot_be_attached_leaves_nothing_behind():
    base = TinyBase("wan", 3)
    attention = base.transformer.blocks[2].attn1
    attention.to_k = torch.jit.trace(attention.to_k, torch.ones(1, 4, 32))
    attention.to_k.in_features, attention.to_k.out_features = 32, 32
    pair = make_pair(TinyBase("wan", 3), "lora")
    with torch.no_grad():
        before, plain = kinds(base.transformer), base.predict(*model_inputs())
        with pytest.raises(InputError, match="TorchScript"):
            Attachment(base.transformer, fill(pair))
        assert kinds(base.transformer) == before and torch.equal(base.predict(*model_inputs()), plain)


def test_a_block_that_is_called_in_two_places_comes_back():
    base = TinyBase("wan", 3)
    base.transformer.blocks[1] = base.transformer.blocks[0]
    before = kinds(base.transformer)
    Attachment(base.transformer, fill(make_pair(base, "lora"))).detach()
    assert kinds(base.transformer) == before


def test_after_detaching_no_layer_uses_the_weights_of_a_former_call():
    base = TinyBase("wan", 3)
    with torch.no_grad(), Attachment(base.transformer, fill(make_pair(base, "lora"))) as attachment:
        base.predict(*model_inputs())
        attachment.detach()
        attachment.attach()
        with pytest.raises(InputError, match=r"blocks\.1\.attn1\.to_q was called before any block"):
            base.transformer.blocks[1].attn1.to_q(torch.ones(2, 5, 32))


def test_a_call_that_broke_off_leaves_nothing_to_the_next():
    """Its time embedding was there, and its first block was not reached."""
    base = TinyBase("cogvideox", 3)
    pair, (latents, timestep, text) = fill(make_pair(base)), model_inputs()
    with torch.no_grad(), Attachment(base.transformer, pair) as attachment:
        attachment.stage = 0.9
        expected = base.predict(latents, timestep, text)
        attachment.stage = 0.1
        broken = base.transformer.patch_embed.register_forward_pre_hook(lambda *call: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            base.predict(latents, timestep // 9, text)
        broken.remove()
        attachment.stage = 0.9
        assert torch.equal(base.predict(latents, timestep, text), expected)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_what_was_set_in_inference_mode_can_be_trained_through(family):
    base = TinyBase(family, 3)
    pair = fill(make_pair(base))
    with Attachment(base.transformer, pair) as attachment:
        with torch.inference_mode():
            attachment.stage, attachment.condition = 0.5, condition()
            sampled = base.predict(*model_inputs())
        attachment.condition = condition()
        output = base.predict(*model_inputs())
        output.square().mean().backward()
    torch.testing.assert_close(sampled, output.detach(), rtol=1e-4, atol=1e-5)
    assert all(weight.grad is not None for weight in pair.parameters())
