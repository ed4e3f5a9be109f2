"""Parity with the published implementation: every case of the golden data, at the tolerances its README states."""

from __future__ import annotations

import pytest
import torch
from golden import SHIPPED, Golden, relative_l2
from safetensors.torch import load_file

from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.pair import AdapterPair
from dualreal_core.storage import load_pair

FORMS = ["adapter.pth", "adapter.safetensors"]
MOST_BYTES = 3_000_000


def test_what_is_shipped_is_small():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < MOST_BYTES


@pytest.fixture(scope="module")
def transformer(golden: Golden) -> torch.nn.Module:
    return golden.transformer()


@pytest.fixture(scope="module", params=FORMS)
def pair(request, golden: Golden) -> AdapterPair:
    pair, _ = load_pair(golden.folder / request.param)
    return pair


def condition(golden: Golden, name: str) -> torch.Tensor:
    """(B, 1, E) in the golden data, (B, E) here."""
    return golden.tensor("inputs", name).squeeze(1)


def run(golden: Golden, transformer, *, one_frame: bool = False) -> torch.Tensor:
    inputs, suffix = golden.tensors("inputs"), "_1frame" if one_frame else ""
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
def test_output(golden, transformer, pair, case):
    (blend, condition_name), expected = CASES[case], golden.tensor("outputs", case)
    with Attachment(transformer, pair, blend) as attachment:
        attachment.condition = condition(golden, condition_name) if condition_name else None
        output = run(golden, transformer, one_frame=case.endswith("1frame"))
    assert relative_l2(output, expected) < 1e-5


def widened(tensors: dict[str, torch.Tensor], extra: dict[str, int]) -> dict[str, torch.Tensor]:
    """A checkpoint of the reference with more hidden numbers in each adapter of a side, half of which nothing reaches and half of
    which reach nothing, so that it computes the same."""
    generator, wide = torch.Generator().manual_seed(0), dict(tensors)
    for name, weight in tensors.items():
        if name.startswith("controller."):
            continue
        _, _, adapter, layer, _ = name.split(".")
        more = extra.get(adapter.partition("_")[0], 0)
        unreached, unused = more - more // 2, more // 2
        if layer == "down_linear":
            added = [torch.zeros(unreached, *weight.shape[1:]), torch.randn(unused, *weight.shape[1:], generator=generator)]
            wide[name] = torch.cat([weight, *added])
        elif layer == "up_linear" and weight.ndim == 2:
            added = [torch.randn(len(weight), unreached, generator=generator), torch.zeros(len(weight), unused)]
            wide[name] = torch.cat([weight, *added], dim=1)
    return wide


@pytest.mark.parametrize("extra", [{"id": 5}, {"motion": 8}, {"id": 3, "motion": 4}], ids=str)
@torch.no_grad()
def test_sides_of_different_widths(golden, transformer, tmp_path, extra):
    wide = widened(load_file(golden.folder / "adapter.safetensors"), extra)
    torch.save({name: torch.nn.Parameter(weight) for name, weight in wide.items()}, tmp_path / "wide.pth")
    pair, _ = load_pair(tmp_path / "wide.pth")
    assert pair.config.identity_bottleneck_dim == 16 + extra.get("id", 0)
    assert pair.config.motion_bottleneck_dim == 16 + extra.get("motion", 0)
    with Attachment(transformer, pair) as attachment:
        attachment.condition = condition(golden, "y_image")
        assert relative_l2(run(golden, transformer), golden.tensor("outputs", "both_controller_cond")) < 1e-5


@torch.no_grad()
def test_base_after_detach(golden, transformer, pair):
    plain = run(golden, transformer)
    attachment = Attachment(transformer, pair)
    assert not torch.equal(run(golden, transformer), plain)
    attachment.detach()
    assert torch.equal(run(golden, transformer), plain)
    assert relative_l2(plain, golden.tensor("outputs", "base")) < 1e-5


@torch.no_grad()
def test_start_of_training(golden, transformer):
    started, _ = load_pair(golden.folder / "adapter.safetensors")
    for adapter in [*started.sides["identity"].values(), *started.sides["motion"].values()]:
        adapter.up.weight.zero_(), adapter.up.bias.zero_()
    started.controller.out.weight.zero_(), started.controller.out.bias.zero_()
    with Attachment(transformer, started) as attachment:
        attachment.condition = condition(golden, "y_image")
        assert relative_l2(run(golden, transformer), golden.tensor("outputs", "start_zero_init_controller")) < 1e-5


@torch.no_grad()
def test_controller_weights(golden, pair):
    expected = golden.tensors("controller")
    for row, embedding in enumerate(expected["emb"]):
        weights = pair.controller(embedding, [expected["tokens"]])
        assert relative_l2(weights[..., 0], expected["alpha"][row]) < 1e-5
        assert relative_l2(weights[..., 1], expected["beta"][row]) < 1e-5


@torch.no_grad()
def test_internals(golden, transformer, pair):
    expected, seen = golden.tensors("internals_both_controller_cond"), {}

    def watch(name):
        def hook(module, args, kwargs, output):
            seen[f"{name}.hidden_states"], seen[f"{name}.encoder_hidden_states"] = output

        return hook

    with Attachment(transformer, pair) as attachment:
        attachment.condition = condition(golden, "y_image")
        hooks = [
            block.register_forward_hook(watch(f"block{i}"), with_kwargs=True) for i, block in enumerate(transformer.transformer_blocks)
        ]
        run(golden, transformer)
        for hook in hooks:
            hook.remove()
    for role, prefix in (("identity", "id"), ("motion", "motion")):
        for site in ("attn", "ff"):
            name = f"block0.{prefix}_{site}_adapter"
            adapter = pair.sides[role][f"0-{site}"]
            seen[f"{name}.out"] = adapter(expected[f"{name}.in"], condition(golden, "y_image") if role == "motion" else None)
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


def backward(golden, transformer, pair, role):
    """Loss of the golden step of a role, after its backward pass."""
    from diffusers import CogVideoXDPMScheduler

    from dualreal_core.objective import VPrediction

    step = {name.partition(".")[2]: value for name, value in golden.tensors("train_steps").items() if name.startswith(role)}
    inputs, suffix = golden.tensors("inputs"), "_1frame" if role == "identity" else ""
    scheduler = CogVideoXDPMScheduler.from_pretrained(golden.folder / "scheduler")
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
def test_loss_and_gradients(golden, transformer, pair, role):
    """Norms of all gradients, and those gradients themselves that the set has."""
    expected = golden.table("train_steps.json")[role]
    pair.zero_grad(set_to_none=True)
    pair.requires_grad_(True)
    assert backward(golden, transformer, pair, role) == pytest.approx(expected["loss"], rel=1e-5)
    assert_gradients(golden, pair, role, expected["none_no_mask"], expected["no_mask"]["all"]["norm"])


@pytest.mark.parametrize("role", ["identity", "motion"])
def test_masked_gradients(golden, transformer, pair, role):
    expected = golden.table("train_steps.json")[role]
    pair.zero_grad(set_to_none=True)
    pair.requires_grad_(True)
    pair.sides["motion" if role == "identity" else "identity"].requires_grad_(False)
    backward(golden, transformer, pair, role)
    assert_gradients(golden, pair, role, expected["none_with_mask"], expected["with_mask"]["all"]["norm"])


def assert_gradients(golden, pair, role, without, whole_norm):
    gradients, norms, squares = golden.tensors(f"grads_{role}_no_mask"), golden.table("train_steps.json")[role]["per_parameter_norm"], 0.0
    assert len(gradients) > 60
    for name, parameter in pair.named_parameters():
        theirs = reference_name(name)
        if theirs in without:
            assert parameter.grad is None, name
            continue
        norm = float(parameter.grad.double().norm())
        assert norm == pytest.approx(norms[theirs], rel=1e-4), name
        assert theirs not in gradients or relative_l2(parameter.grad, gradients[theirs]) < 1e-4, name
        squares += norm**2
    assert squares**0.5 == pytest.approx(whole_norm, rel=1e-4)
