"""Latents, conditioning and sampling of the models in `variants`, on ComfyUI's own patchers and samplers, without a server."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.nested_tensor
import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_void import VOID_DDIM
from variants import Seen, Variant

TEXT_LENGTH = 16
STEPS = 2


def noise(seed: int, *shape: int) -> torch.Tensor:
    """The same numbers for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(value: object, seed: int) -> object:
    """An entry of the conditioning from its line in `variants`."""
    if isinstance(value, Seen):
        states = noise(seed, 1, value.tokens, value.width)
        return SimpleNamespace(penultimate_hidden_states=states, last_hidden_state=states)
    if isinstance(value, tuple):
        return noise(seed, *value)
    if isinstance(value, list):
        return [made(one, seed + index) for index, one in enumerate(value)]
    if isinstance(value, dict):
        return {name: made(one, seed) for name, one in value.items()}
    return value


def conditioning(variant: Variant, seed: int, length: int = TEXT_LENGTH) -> list:
    """CONDITIONING of noise: text of `length` tokens, and what else the model reads."""
    extras: dict[str, object] = {}
    if variant.pooled_dim:
        extras["pooled_output"] = noise(seed + 1, 1, variant.pooled_dim)
    if variant.needs_text_mask:
        extras["attention_mask"] = torch.ones(1, length, dtype=torch.long)
    for number, (name, value) in enumerate(variant.extras.items()):
        extras[name] = made(value, 40 + number)
        if "mask" in name and torch.is_tensor(extras[name]):
            extras[name] = (extras[name] > 0).float()
    return [[noise(seed, 1, length, variant.text_dim), extras]]


def empty_latent(variant: Variant, batch: int = 1, with_audio: bool = True) -> torch.Tensor:
    """(batch, C, f, h, w), nested with the audio's where the model makes both."""
    video = torch.zeros(batch, *variant.latent_shape)
    if not variant.audio_shape or not with_audio:
        return video
    return comfy.nested_tensor.NestedTensor([video, torch.zeros(batch, *variant.audio_shape)])


def noise_like(latent: torch.Tensor, seed: int) -> torch.Tensor:
    if latent.is_nested:
        return comfy.nested_tensor.NestedTensor([noise(seed + index, *one.shape) for index, one in enumerate(latent.unbind())])
    return noise(seed, *latent.shape)


def flat(latent: torch.Tensor) -> torch.Tensor:
    """All numbers of a latent in a row, those of the audio last."""
    parts = latent.unbind() if latent.is_nested else [latent]
    return torch.cat([part.float().cpu().flatten() for part in parts])


def sampled(
    variant: Variant, model: ModelPatcher, *, cfg: float = 3.0, sampler: str = "euler", steps: int = STEPS, batch: int = 1,
    with_audio: bool = True, mask: torch.Tensor | None = None, start: torch.Tensor | None = None,
    prompts: tuple[int, int] = (11, 12), lengths: tuple[int, int] = (TEXT_LENGTH, TEXT_LENGTH),
) -> torch.Tensor:  # fmt: skip
    """A latent, flat and on the CPU.

    Args:
        mask: over the latent, 1 where it is made anew; the rest stays as it is in `start`.
        prompts, lengths: seeds of the prompt and the negative one, and their numbers of tokens.
    """
    latent = empty_latent(variant, batch, with_audio) if start is None else start
    chosen = VOID_DDIM() if variant.sampler == "void" else comfy.samplers.sampler_object(sampler)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    texts = (conditioning(variant, *given) for given in zip(prompts, lengths, strict=True))
    with torch.inference_mode():
        done = comfy.sample.sample_custom(
            model, noise_like(latent, 5), cfg, chosen, sigmas, *texts, latent,
            noise_mask=mask, disable_pbar=True, seed=0,
        )  # fmt: skip
    return flat(done)
