"""`applied`: a pair on stock diffusers pipelines, which are as they were before and after."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch._dynamo
from accelerate import cpu_offload_with_hook
from accelerate.hooks import remove_hook_from_module
from diffusers import CogVideoXPipeline, DiffusionPipeline, WanPipeline
from diffusers.hooks import FirstBlockCacheConfig
from tiny import CONDITION_DIM, fill, wan
from tiny_pipelines import (
    NUM_STEPS,
    PIPELINES,
    cogvideox_scheduler,
    flow_scheduler,
    listened,
    pair_for,
    quiet,
    run,
    text,
    transformers,
)

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import BlendRecord, FixedBlend
from dualreal_core.method.experts import expert_of, join_experts
from dualreal_core.method.pair import new_pair, with_gate
from dualreal_core.method.prompt_gate import MARGIN, PromptGate
from dualreal_core.pipelines import applied

FIXED = FixedBlend(0.7, 1.2)


@pytest.fixture(scope="module")
def pipes() -> dict[str, DiffusionPipeline]:
    return {name: quiet(tiny.make()) for name, tiny in PIPELINES.items()}


@pytest.fixture(params=list(PIPELINES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pipe(name: str, pipes: dict[str, DiffusionPipeline]) -> DiffusionPipeline:
    return pipes[name]


def inside(pipe: DiffusionPipeline) -> list[object]:
    """What taking a pair in and out could leave on the modules of a pipeline."""
    return [
        (type(module), sorted(set(vars(module)) - {"_diffusers_hook"}), len(module._forward_hooks), len(module._forward_pre_hooks))
        for transformer in transformers(pipe)
        for module in transformer.modules()
    ]


def test_an_untrained_pair_changes_no_bit(pipe: DiffusionPipeline, name: str) -> None:
    plain = run(pipe, name)
    with applied(pipe, pair_for(pipe, is_trained=False)):
        assert torch.equal(run(pipe, name), plain)


def test_the_pipeline_is_afterwards_as_it_was(pipe: DiffusionPipeline, name: str) -> None:
    plain, before = run(pipe, name), inside(pipe)
    with applied(pipe, pair_for(pipe)):
        assert not torch.equal(run(pipe, name), plain)
    assert inside(pipe) == before
    assert torch.equal(run(pipe, name), plain)


def test_the_pipeline_is_as_it_was_after_an_exception(pipe: DiffusionPipeline, name: str) -> None:
    plain, before = run(pipe, name), inside(pipe)
    last = list(transformers(pipe)[0].children())[-1]
    handle = last.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), applied(pipe, pair_for(pipe)):
        run(pipe, name)
    handle.remove()
    assert inside(pipe) == before
    assert torch.equal(run(pipe, name), plain)


def test_each_call_has_the_pair_on_the_rows_of_the_prompt_at_its_stage(pipe: DiffusionPipeline, name: str) -> None:
    """Every call is made again by hand: with the pair at an even step of denoising, and without it."""
    pair, record = pair_for(pipe), BlendRecord()
    with applied(pipe, pair, record=record), listened(pipe) as calls:
        run(pipe, name)
    is_joint = PIPELINES[name].is_joint
    assert len(calls) == NUM_STEPS * (1 if is_joint else 2)
    assert record.stages == pytest.approx([step / NUM_STEPS for step in range(NUM_STEPS)], abs=0.01)
    for number, (transformer, given, output) in enumerate(calls):
        with torch.no_grad():
            plain = transformer(**given)[0]
            with Attachment(transformer, pair) as attachment:
                attachment.stage = record.stages[number if is_joint else number // 2]
                adapted = transformer(**given)[0]
        half = len(output) // 2 if is_joint else (0, len(output))[number % 2]
        assert torch.allclose(output[:half], plain[:half], atol=1e-6)
        assert torch.allclose(output[half:], adapted[half:], atol=1e-6)
        assert not torch.allclose(plain, adapted, atol=1e-3)


def test_without_guidance_all_rows_are_the_prompts(pipe: DiffusionPipeline, name: str) -> None:
    pair, record = pair_for(pipe), BlendRecord()
    with applied(pipe, pair, record=record), listened(pipe) as calls:
        run(pipe, name, guidance=1.0)
    assert len(calls) == len(record.stages) == NUM_STEPS
    for (transformer, given, output), stage in zip(calls, record.stages, strict=True):
        with torch.no_grad(), Attachment(transformer, pair) as attachment:
            attachment.stage = stage
            assert torch.allclose(transformer(**given)[0], output, atol=1e-6)


def test_guidance_that_changes_on_the_way_keeps_the_rows_of_the_prompt(pipes: dict[str, DiffusionPipeline]) -> None:
    """CogVideoX's dynamic guidance is exactly 1 after the first of these steps, and its calls go on to hold both prompts."""
    pipe = quiet(CogVideoXPipeline(None, None, None, pipes["cogvideox"].transformer, cogvideox_scheduler(num_train_timesteps=10)))
    seen: list[float] = []

    def note(pipe: DiffusionPipeline, *_: object) -> dict[str, object]:
        seen.append(pipe.guidance_scale)
        return {}

    with applied(pipe, pair_for(pipe)), listened(pipe) as calls:
        run(pipe, "cogvideox", use_dynamic_cfg=True, callback_on_step_end=note)
    assert seen[0] == 1 < seen[1]
    for transformer, given, output in calls:
        with torch.no_grad():
            plain = transformer(**given)[0]
        assert torch.allclose(output[:1], plain[:1], atol=1e-6)
        assert not torch.allclose(output[1:], plain[1:], atol=1e-3)


def test_guidance_that_is_left_out_at_the_end_keeps_the_pair(pipes: dict[str, DiffusionPipeline]) -> None:
    """As by a callback that leaves the negative prompt out of the last steps, which are then faster."""
    pipe = pipes["ltx"]

    def leave_out(pipe: DiffusionPipeline, step: int, timestep: torch.Tensor, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if step:
            return {}
        pipe._guidance_scale = 1.0
        return {"prompt_embeds": given["prompt_embeds"][1:]}

    with applied(pipe, pair_for(pipe)), listened(pipe) as calls:
        run(pipe, "ltx", callback_on_step_end=leave_out, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    assert [len(output) for _, _, output in calls] == [2, 1, 1]
    for transformer, given, output in calls:
        with torch.no_grad():
            assert not torch.allclose(output[-1:], transformer(**given)[0][-1:], atol=1e-3)


OWN_NOISE = ("wan image", "wan clean frame", "ltx2")
"""Pipelines that draw more than the latents, which differs in a batch: the noise of an image's encoding, or of sound."""


@pytest.mark.parametrize("name", [name for name in PIPELINES if name not in OWN_NOISE])
def test_two_prompts_in_one_batch(pipes: dict[str, DiffusionPipeline], name: str) -> None:
    pipe = pipes[name]
    prompts = {key: value for key, value in PIPELINES[name].arguments().items() if "embeds" in key or "mask" in key}
    doubled = {key: torch.cat([value, value.flip(1) if "mask" not in key else value]) for key, value in prompts.items()}
    noise = run(pipe, name, num_inference_steps=1)
    latents = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    pair, conditions = pair_for(pipe), torch.randn(2, CONDITION_DIM, generator=torch.Generator().manual_seed(3))
    with applied(pipe, pair, blend=FIXED, condition=conditions):
        both = run(pipe, name, **doubled, latents=torch.cat([latents, latents]))
    for row in range(2):
        alone = {key: value[row : row + 1] for key, value in doubled.items()}
        with applied(pipe, pair, blend=FIXED, condition=conditions[row]):
            assert torch.allclose(both[row : row + 1], run(pipe, name, **alone, latents=latents), atol=1e-4)


@pytest.mark.parametrize("name", ["cogvideox", "wan"])
def test_a_condition_for_each_of_two_prompts_of_which_two_videos_are_made(pipes: dict[str, DiffusionPipeline], name: str) -> None:
    """Pipelines hold the videos of one prompt next to each other."""
    pipe = pipes[name]
    noise = run(pipe, name, num_inference_steps=1)
    latents = torch.randn(4, *noise.shape[1:], generator=torch.Generator().manual_seed(1))
    prompts = {"prompt_embeds": text(1).expand(4, -1, -1), "negative_prompt_embeds": text(2).expand(4, -1, -1)}
    pair, conditions = pair_for(pipe), torch.randn(2, CONDITION_DIM, generator=torch.Generator().manual_seed(3))
    made = []
    for given in (conditions, conditions[[0, 0, 1, 1]]):
        with applied(pipe, pair, condition=given):
            made.append(run(pipe, name, **prompts, latents=latents, num_inference_steps=1))
    assert torch.allclose(*made, atol=1e-6)
    told = pytest.raises(InputError, match="makes 4 videos at once, and condition holds 3")
    with told, applied(pipe, pair, condition=torch.cat([conditions, conditions[:1]])):
        run(pipe, name, **prompts, latents=latents, num_inference_steps=1)


def test_strengths_blend_condition_and_negative_prompt_count(pipe: DiffusionPipeline, name: str) -> None:
    pair = pair_for(pipe)
    ways = {
        "plain": {},
        "weaker": {"strengths": (0.5, 1.0)},
        "blend": {"blend": FIXED},
        "reference": {"condition": torch.randn(CONDITION_DIM, generator=torch.Generator().manual_seed(3))},
        "negative too": {"adapts_negative": True},
    }
    made = {}
    for way, options in ways.items():
        with applied(pipe, pair, **options):
            made[way] = run(pipe, name)
    assert all(not torch.equal(one, made["plain"]) for way, one in made.items() if way != "plain")
    with applied(pipe, pair, strengths=(0.0, 0.0)):
        assert torch.equal(run(pipe, name), run(pipe, name))


def test_a_pair_follows_the_prompt(pipe: DiffusionPipeline, name: str) -> None:
    plain, pair, record = run(pipe, name), pair_for(pipe), BlendRecord()
    with applied(pipe, pair), listened(pipe) as calls:
        ungated = run(pipe, name)
    gate = PromptGate(calls[0][1]["encoder_hidden_states"].shape[-1])
    named = with_gate(pair, gate)
    with applied(pipe, named):
        assert torch.equal(run(pipe, name), ungated)
    torch.nn.init.constant_(gate.named.bias, -2 * MARGIN)
    with applied(pipe, named, record=record):
        assert torch.equal(run(pipe, name), plain) and not record.table().any()
    with applied(pipe, named, follows_prompt=False):
        assert torch.equal(run(pipe, name), ungated)
    assert torch.equal(run(pipe, name), plain)


def test_two_pairs_at_once_come_and_go(pipe: DiffusionPipeline, name: str) -> None:
    plain, before = run(pipe, name), inside(pipe)
    first, second = pair_for(pipe), fill(pair_for(pipe), seed=9)
    with applied(pipe, first):
        alone = run(pipe, name)
        with applied(pipe, second):
            assert not torch.equal(run(pipe, name), alone)
        assert torch.equal(run(pipe, name), alone)
    assert inside(pipe) == before
    assert torch.equal(run(pipe, name), plain)


def test_a_pair_for_one_expert_acts_on_that_one(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["wan experts"]
    pair = pair_for(pipe)
    for own in ("transformer", "transformer_2"):
        with applied(pipe, {own: pair}, blend=FIXED), listened(pipe) as calls:
            run(pipe, "wan experts")
        assert {id(module) for module, _, _ in calls} == {id(pipe.transformer), id(pipe.transformer_2)}
        for transformer, given, output in calls[::2]:  # those of the prompt
            with torch.no_grad():
                is_plain = torch.equal(transformer(**given)[0], output)
            assert is_plain == (transformer is not getattr(pipe, own))


def test_a_pair_for_each_expert(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["wan experts"]
    high, low = pair_for(pipe), fill(pair_for(pipe), seed=9)
    with applied(pipe, {"transformer": high, "transformer_2": low}):
        both = run(pipe, "wan experts")
    with applied(pipe, {"transformer": high}), applied(pipe, {"transformer_2": low}):
        assert torch.equal(run(pipe, "wan experts"), both)


def test_a_pair_for_two_experts_acts_by_its_parts(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["wan experts"]
    both = join_experts(pair_for(pipe), fill(pair_for(pipe), seed=9), 0.8)
    with applied(pipe, {name: expert_of(both, index) for index, name in enumerate(("transformer", "transformer_2"))}):
        expected = run(pipe, "wan experts")
    with applied(pipe, both):
        assert torch.equal(run(pipe, "wan experts"), expected)


def test_a_pair_for_two_experts_says_which_part_one_of_them_takes(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["wan experts"]
    both = join_experts(pair_for(pipe), fill(pair_for(pipe), seed=9), 0.8)
    low_alone = WanPipeline(None, None, None, flow_scheduler(), None, pipe.transformer_2)
    high, low = (rf'for 2 experts .*{name}": expert_of\(pair, {index}\)' for index, name in enumerate(("transformer", "transformer_2")))
    given = [(pipes["wan"], both, high), (low_alone, both, low)]
    given += [(pipe, {"transformer": both}, high), (pipe, {"transformer_2": both}, low)]
    for own, pair, told in given:
        with pytest.raises(InputError, match=told), applied(own, pair):
            pass


def test_a_condition_where_one_expert_has_no_side(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["wan experts"]
    high, condition = pair_for(pipe), torch.randn(CONDITION_DIM, generator=torch.Generator().manual_seed(3))
    both = join_experts(high, new_pair(pipe.transformer, identity_kind="none", motion_kind="none"), 0.8)
    with applied(pipe, {"transformer": expert_of(both, 0)}, condition=condition):
        expected = run(pipe, "wan experts")
    with applied(pipe, both, condition=condition):
        assert torch.equal(run(pipe, "wan experts"), expected)


def test_guidance_by_perturbed_calls_keeps_the_pair(pipes: dict[str, DiffusionPipeline]) -> None:
    """LTX-2 moves away from calls with the prompt of which a part is left out; what differs is to be that part, not the pair."""
    pipe = pipes["ltx2"]
    further = {"stg_scale": 1.0, "modality_scale": 3.0, "spatio_temporal_guidance_blocks": [1]}
    with applied(pipe, pair_for(pipe), blend=FIXED), listened(pipe) as calls:
        run(pipe, "ltx2", **further)
    assert len(calls) == 3 * NUM_STEPS
    for number, (transformer, given, output) in enumerate(calls):
        with torch.no_grad():
            plain = transformer(**given)[0]
        if number % 3 == 0:
            plain, output = plain[1:], output[1:]
        assert not torch.allclose(plain, output, atol=1e-3)


def test_sound_stays_unless_asked_for(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["ltx2"]
    pair = fill(new_pair(pipe.transformer, identity_kind="lora", motion_kind="lora", target_layers=("audio_ff",), has_controller=False))
    sounds = {}
    for strength in (None, 0.0, 1.0):
        with nullcontext() if strength is None else applied(pipe, pair, audio_strength=strength):
            arguments = {**PIPELINES["ltx2"].arguments(), "generator": torch.Generator().manual_seed(5)}
            sounds[strength] = pipe(**arguments).audio
    assert torch.equal(sounds[None], sounds[0.0])
    assert not torch.equal(sounds[None], sounds[1.0])


@pytest.mark.parametrize("way", ["exchanged", pytest.param("in place", marks=pytest.mark.thorough)])
def test_a_compiled_transformer(way: str) -> None:
    torch._dynamo.reset()
    pipe = quiet(WanPipeline(None, None, None, flow_scheduler(), wan(num_blocks=1)))
    made = partial(run, pipe, "wan", num_inference_steps=2)
    plain, pair = made(), pair_for(pipe)
    with applied(pipe, pair):
        expected = made()
    if way == "exchanged":
        pipe.transformer = torch.compile(pipe.transformer, backend="eager", fullgraph=True)
    else:
        pipe.transformer.compile(backend="eager", fullgraph=True)
    assert torch.allclose(made(), plain, atol=1e-5)
    with applied(pipe, pair):
        assert torch.allclose(made(), expected, atol=1e-5)
    assert torch.allclose(made(), plain, atol=1e-5)
    torch._dynamo.reset()


def test_an_offloaded_transformer(pipes: dict[str, DiffusionPipeline]) -> None:
    """By the hook of `enable_model_cpu_offload`, which asks for an accelerator; it is put on anew after each run."""
    pipe = quiet(PIPELINES["wan"].make())
    plain, pair = run(pipe, "wan"), pair_for(pipe)
    with applied(pipe, pair):
        expected = run(pipe, "wan")
    _, hook = cpu_offload_with_hook(pipe.transformer, "cpu")
    with applied(pipe, pair):
        assert torch.equal(run(pipe, "wan"), expected)
        hook.offload()
        remove_hook_from_module(pipe.transformer, recurse=True)
        cpu_offload_with_hook(pipe.transformer, "cpu")
        assert torch.equal(run(pipe, "wan"), expected)
    assert torch.equal(run(pipe, "wan"), plain)


def test_the_caches_of_diffusers_are_told_as_before() -> None:
    pipe = quiet(PIPELINES["wan"].make())
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e-9))  # which never finds two calls alike
    with applied(pipe, pair_for(pipe)):
        cached = run(pipe, "wan")
    pipe.transformer.disable_cache()
    with applied(pipe, pair_for(pipe)):
        assert torch.allclose(run(pipe, "wan"), cached, atol=1e-5)


def test_what_does_not_fit_is_said(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe, other = pipes["wan"], pipes["cogvideox"]
    before = inside(pipe)
    with pytest.raises(InputError, match="family cogvideox"), applied(pipe, pair_for(other)):
        pass
    with pytest.raises(InputError, match="no 'transformer_2', but transformer"), applied(pipe, {"transformer_2": pair_for(pipe)}):
        pass
    with pytest.raises(InputError, match="no transformer"), applied(object(), pair_for(pipe)):
        pass
    assert inside(pipe) == before


def test_a_condition_of_another_width_is_said(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["wan"]
    before = inside(pipe)
    for shape in ((CONDITION_DIM - 3,), (1, CONDITION_DIM + 1), ()):
        told = pytest.raises(InputError, match=rf"width {CONDITION_DIM}, but condition is of shape")
        with torch.no_grad(), told, applied(pipe, pair_for(pipe), condition=torch.randn(shape)):
            pass
    assert inside(pipe) == before


def test_the_pipeline_is_as_it_was_where_the_pair_cannot_be_set_up(pipes: dict[str, DiffusionPipeline]) -> None:
    pipe = pipes["wan"]
    before = inside(pipe)
    with pytest.raises(TypeError), applied(pipe, pair_for(pipe), audio_strength=None):
        pass
    assert inside(pipe) == before


def test_prompts_of_the_tests_differ() -> None:
    assert not torch.equal(text(1), text(2))
