"""Parity with the published implementation: every case of the golden data, at the tolerances its README states."""

from __future__ import annotations

import json

import pytest
import torch
from golden import GOLDEN, golden, needs_golden, relative_l2

from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.pair import AdapterPair
from dualreal_core.storage import load_pair

pytestmark = needs_golden
FORMS = ["adapter.pth", "adapter.safetensors"]
IDENTITY, MOTION = "id_", "motion_"


@pytest.fixture(scope="module")
def transformer():
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel.from_pretrained(GOLDEN / "transformer", torch_dtype=torch.float32).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=FORMS)
def pair(request) -> AdapterPair:
    pair, _ = load_pair(GOLDEN / request.param)
    return pair


def condition(name: str) -> torch.Tensor:
    """(B, 1, E) in the golden data, (B, E) here."""
    return golden("inputs")[name].squeeze(1)


def run(transformer, *, one_frame: bool = False) -> torch.Tensor:
    inputs, suffix = golden("inputs"), "_1frame" if one_frame else ""
    return transformer(
        inputs[f"hidden_states{suffix}"],
        inputs["encoder_hidden_states"],
        inputs["timestep"],
        image_rotary_emb=(inputs[f"rotary_cos{suffix}"], inputs[f"rotary_sin{suffix}"]),
        return_dict=False,
    )[0]


CASES = {
    "id_only": (FixedBlend(0.1, 0.0), None),
    "motion_only": (FixedBlend(0.0, 0.1), None),
    "motion_only_cond": (FixedBlend(0.0, 0.1), "y_image"),
    "both_fixed": (FixedBlend(0.1, 0.1), None),
    "both_fixed_cond": (FixedBlend(0.1, 0.1), "y_image"),
    "both_fixed_uneven_cond": (FixedBlend(0.15, 0.05), "y_image"),
    "both_controller": (None, None),
    "both_controller_cond": (None, "y_image"),
    "both_controller_cond_shared": (None, "y_image_shared"),
    "both_controller_1frame": (None, None),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_output(transformer, pair, case):
    blend, condition_name = CASES[case]
    with Attachment(transformer, pair, blend) as attachment:
        attachment.condition = condition(condition_name) if condition_name else None
        output = run(transformer, one_frame=case.endswith("1frame"))
    assert relative_l2(output, golden("outputs")[case]) < 1e-5


@torch.no_grad()
def test_base_after_detach(transformer, pair):
    plain = run(transformer)
    attachment = Attachment(transformer, pair)
    assert not torch.equal(run(transformer), plain)
    attachment.detach()
    assert torch.equal(run(transformer), plain)
    assert relative_l2(plain, golden("outputs")["base"]) < 1e-5


@torch.no_grad()
def test_start_of_training(transformer, pair):
    started, _ = load_pair(GOLDEN / "adapter.safetensors")
    for adapter in [*started.sides["identity"].values(), *started.sides["motion"].values()]:
        adapter.up.weight.zero_(), adapter.up.bias.zero_()
    started.controller.out.weight.zero_(), started.controller.out.bias.zero_()
    with Attachment(transformer, started) as attachment:
        attachment.condition = condition("y_image")
        assert relative_l2(run(transformer), golden("outputs")["start_zero_init_controller"]) < 1e-5


@torch.no_grad()
def test_controller_weights(pair):
    expected = golden("controller")
    for row, embedding in enumerate(expected["emb"]):
        weights = pair.controller(embedding, [expected["tokens"]])
        assert relative_l2(weights[..., 0], expected["alpha"][row]) < 1e-5
        assert relative_l2(weights[..., 1], expected["beta"][row]) < 1e-5


@torch.no_grad()
def test_internals(transformer, pair):
    expected, seen = golden("internals_both_controller_cond"), {}

    def watch(name):
        def hook(module, args, kwargs, output):
            seen[f"{name}.hidden_states"], seen[f"{name}.encoder_hidden_states"] = output

        return hook

    with Attachment(transformer, pair) as attachment:
        attachment.condition = condition("y_image")
        hooks = [
            block.register_forward_hook(watch(f"block{i}"), with_kwargs=True) for i, block in enumerate(transformer.transformer_blocks)
        ]
        run(transformer)
        for hook in hooks:
            hook.remove()
    for role, prefix in (("identity", "id"), ("motion", "motion")):
        for site in ("attn", "ff"):
            name = f"block0.{prefix}_{site}_adapter"
            adapter = pair.sides[role][f"0-{site}"]
            seen[f"{name}.out"] = adapter(expected[f"{name}.in"], condition("y_image") if role == "motion" else None)
    for name, value in seen.items():
        assert relative_l2(value, expected[name]) < 1e-5, name


def reference_name(name: str) -> str:
    """Name in the reference of a parameter of ours."""
    from dualreal_core.storage.reference import _CONTROLLER, _LAYERS

    part, _, kind = name.rpartition(".")
    if part.startswith("controller."):
        ours = part.removeprefix("controller.")
        return f"controller.{next(theirs for theirs, mine in _CONTROLLER.items() if mine == ours)}.{kind}"
    _, role, key, layer = part.split(".")
    block, site = key.split("-")
    layer = next((theirs for theirs, mine in _LAYERS.items() if mine == layer), layer)
    return f"transformer_blocks.{block}.{'id' if role == 'identity' else 'motion'}_{site}_adapter.{layer}_linear.{kind}"


def backward(transformer, pair, role):
    """Loss of the golden step of a role, after its backward pass."""
    from diffusers import CogVideoXDPMScheduler

    from dualreal_core.objective import VPrediction

    step = {name.partition(".")[2]: value for name, value in golden("train_steps").items() if name.startswith(role)}
    inputs, suffix = golden("inputs"), "_1frame" if role == "identity" else ""
    scheduler = CogVideoXDPMScheduler.from_pretrained(GOLDEN / "scheduler")
    objective = VPrediction(tuple(scheduler.alphas_cumprod.tolist()))
    latents, noise = step["latents"].transpose(1, 2), step["noise"].transpose(1, 2)
    noisy = objective.add_noise(latents, noise, step["timesteps"])
    with Attachment(transformer, pair) as attachment:
        attachment.condition = step["y_image"].squeeze(1) if "y_image" in step else None
        output = transformer(
            noisy.transpose(1, 2),
            step["prompt_embeds"],
            step["timesteps"],
            image_rotary_emb=(inputs[f"rotary_cos{suffix}"], inputs[f"rotary_sin{suffix}"]),
            return_dict=False,
        )[0]
        loss = objective.loss_per_sample(output.transpose(1, 2), latents, noise, step["timesteps"], None).mean()
        loss.backward()
    return loss.item()


@pytest.mark.parametrize("role", ["identity", "motion"])
def test_loss_and_gradients(transformer, pair, role):
    expected = json.loads((GOLDEN / "train_steps.json").read_text())[role]
    pair.zero_grad(set_to_none=True)
    pair.requires_grad_(True)
    assert backward(transformer, pair, role) == pytest.approx(expected["loss"], rel=1e-5)
    gradients = golden(f"grads_{role}_no_mask")
    for name, parameter in pair.named_parameters():
        theirs = reference_name(name)
        if theirs in expected["none_no_mask"]:
            assert parameter.grad is None, name
        else:
            assert relative_l2(parameter.grad, gradients[theirs]) < 1e-4, name


@pytest.mark.parametrize("role", ["identity", "motion"])
def test_masked_gradients(transformer, pair, role):
    expected = json.loads((GOLDEN / "train_steps.json").read_text())[role]
    pair.zero_grad(set_to_none=True)
    pair.requires_grad_(True)
    pair.sides["motion" if role == "identity" else "identity"].requires_grad_(False)
    backward(transformer, pair, role)
    gradients = golden(f"grads_{role}_no_mask")
    squares = 0.0
    for name, parameter in pair.named_parameters():
        theirs = reference_name(name)
        if theirs in expected["none_with_mask"]:
            assert parameter.grad is None, name
        else:
            assert relative_l2(parameter.grad, gradients[theirs]) < 1e-4, name
            squares += float(parameter.grad.double().square().sum())
    assert squares**0.5 == pytest.approx(expected["with_mask"]["all"]["norm"], rel=1e-4)
