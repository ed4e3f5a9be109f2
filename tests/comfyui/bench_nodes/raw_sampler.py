"""A SAMPLER without a solver: the guided prediction at every sigma for one and the same noise."""

from __future__ import annotations

from collections.abc import Callable

import comfy.sample
import comfy.samplers
import torch
from comfy_api.latest import io


class RawPredictions(comfy.samplers.Sampler):
    """Gives the noise as it is to the model once a sigma, so that a difference comes from the model and not from a path.

    Args:
        inner: MODEL, positive and negative prompt of another sampling, which is made before each prediction.
    """

    def __init__(self, inner: tuple | None = None) -> None:
        self.inner = inner

    def sample(
        self,
        model_wrap: Callable,
        sigmas: torch.Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: torch.Tensor,
        latent_image: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        """sigmas: (S,); noise: (B, C, F, H, W). Returns the denoised predictions, (S * B, C, F, H, W), sigma by sigma."""
        predictions = []
        for step, sigma in enumerate(sigmas):
            if self.inner is not None:
                model, *prompts = self.inner
                comfy.sample.sample(model, noise, 2, 4.0, "euler", "simple", *prompts, torch.zeros_like(noise), disable_pbar=True, seed=0)
                model_wrap.model_patcher.pre_run()  # ComfyUI takes the patcher from a model that was sampled
            predictions.append(model_wrap(noise, sigma.expand(len(noise)), **extra_args))
            if callback:
                callback(step, predictions[-1], noise, len(sigmas))
        return torch.cat(predictions)


class BenchRawSampler(io.ComfyNode):
    """For SamplerCustom; unlike other samplers it also uses the last sigma, so give it no zero."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.Model.Input("model", optional=True), io.Conditioning.Input("positive", optional=True),
            io.Conditioning.Input("negative", optional=True),
        ]  # fmt: skip
        return io.Schema(
            node_id="BenchRawSampler", display_name="Bench Raw Sampler", category="bench", inputs=inputs, outputs=[io.Sampler.Output()]
        )

    @classmethod
    def execute(cls, model: object = None, positive: list | None = None, negative: list | None = None) -> io.NodeOutput:
        return io.NodeOutput(RawPredictions(None if model is None else (model, positive, negative)))


NODES: list[type[io.ComfyNode]] = [BenchRawSampler]
