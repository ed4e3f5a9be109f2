"""`applied` on pipelines that have no names for their calls of the DiT: which of them are the prompt's is told by their order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
import torch
from diffusers import DiffusionPipeline, WanVideoToVideoPipeline
from tiny_pipelines import NUM_STEPS, PIPELINES, both_prompts, flow_scheduler, listened, pair_for, quiet, wan_vae
from torch import nn

from dualreal_core.method.blend import BlendRecord
from dualreal_core.pipelines import applied


@pytest.fixture(scope="module")
def pipes() -> dict[str, DiffusionPipeline]:
    return {"wan": quiet(PIPELINES["wan"].make())}


def without_names(transformer: nn.Module) -> tuple[DiffusionPipeline, Callable[..., torch.Tensor]]:
    """A pipeline that has no names for its calls, and a function that makes a video by it, of prompts that are new each time."""
    pipe = quiet(WanVideoToVideoPipeline(None, None, transformer, wan_vae(), flow_scheduler()))
    video = torch.rand(1, 9, 3, 32, 48, generator=torch.Generator().manual_seed(4))
    settings = {"video": video, "height": 32, "width": 48, "num_inference_steps": NUM_STEPS, "guidance_scale": 3.0}

    def made(**others: object) -> torch.Tensor:
        return pipe(**{**settings, **both_prompts(), **others}, generator=torch.Generator().manual_seed(5)).frames

    return pipe, made


def test_pipelines_without_names_for_their_calls(pipes: dict[str, DiffusionPipeline]) -> None:
    """They call the DiT with the prompt first."""
    transformer = pipes["wan"].transformer
    pipe, made = without_names(transformer)
    pair, record = pair_for(pipe), BlendRecord()
    with applied(pipe, pair, record=record), listened(pipe) as calls:
        made()
    assert len(calls) == 2 * len(record.calls) > 0
    for number, (_, given, output) in enumerate(calls):
        with torch.no_grad():
            assert torch.equal(transformer(**given)[0], output) == (number % 2 == 1)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_run_of_one_step_is_the_same_each_time_without_names(pipes: dict[str, DiffusionPipeline], guidance: float) -> None:
    pipe, made = without_names(pipes["wan"].transformer)
    one_step = {"num_inference_steps": 4, "strength": 0.3, "guidance_scale": guidance}
    plain = made(**one_step)
    with applied(pipe, pair_for(pipe)):
        first, second = made(**one_step), made(**one_step)
    assert torch.equal(first, second)
    assert not torch.equal(first, plain)


@pytest.mark.parametrize("call", [1, 2])
def test_a_run_after_an_interrupted_one_is_as_always_without_names(pipes: dict[str, DiffusionPipeline], call: int) -> None:
    pipe, made = without_names(pipes["wan"].transformer)
    numbers = count(1)

    def interrupt(*_: object) -> None:
        if next(numbers) == call:
            raise ZeroDivisionError

    with applied(pipe, pair_for(pipe)):
        expected = made()
        handle = pipe.transformer.proj_out.register_forward_pre_hook(interrupt)
        with pytest.raises(ZeroDivisionError):
            made()
        handle.remove()
        assert torch.equal(made(), expected)
