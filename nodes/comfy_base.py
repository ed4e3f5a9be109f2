"""A MODEL of ComfyUI as a base of the core: what training asks of it, answered through its own conditioning."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.ldm.flux.layers import timestep_embedding
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..dualreal_core.bases.base import Denoiser, Progress
from ..dualreal_core.bases.solvers import denoise_plainly, plain_timesteps
from ..dualreal_core.dataset.cache import PreparedItem, PreparedSet, shrink_mask
from ..dualreal_core.errors import InputError
from ..dualreal_core.families import family_of
from ..dualreal_core.method.pair import Role
from ..dualreal_core.objective import FlowMatching, VPrediction
from .model_conds import OTHER_STREAMS, ComfyConds, held_frames, holds_frames, model_conds, streams
from .model_inputs import check_channels, check_text, encoders_of
from .patching import applied_pairs
from .training_model import call_options, load_to_train, unload
from .types import FILE_KEY

FLOW_TYPES = ("FLOW", "FLUX", "FLOW_AV")
V_TYPE = "V_PREDICTION_DDPM"
SINES, TIME_FACTOR = 256, 1000.0
"""How HunyuanVideo embeds a sigma."""
NUM_COMPARED = 61
"""Values of each weight that tell it from another; a prime, as at a distance of whole rows they would be of one column alone."""


@dataclass(frozen=True)
class ComfyItem(PreparedItem):
    """A sample whose `text` is ComfyUI's conds: they can be batched where they have equal sizes, and equal numbers (frame rates)."""

    @property
    def bucket(self) -> object:
        sizes = tuple((name, _alike(cond.cond, cond.size())) for name, cond in sorted(self.text.items()))
        return tuple(self.latents.shape), sizes


class ComfyBase:
    """See `dualreal_core.bases.base.Base`; only the members that training uses.

    Args:
        patcher: a MODEL from `ready_to_train`.
        condition_dim: width E of the reference embeddings, None without.

    Attributes:
        applied: what tells the pairs that the MODEL carries from others.
        encoders: what belongs to the model.
        num_channels: of the video's latents.
    """

    def __init__(self, patcher: ModelPatcher, condition_dim: int | None) -> None:
        self.patcher = patcher
        self.architecture = patcher.model.diffusion_model
        self._is_resting = False
        self.family = family_of(self.transformer)
        self.name = self.family.name
        self.encoders = encoders_of(self.transformer, self.family)
        self.objective = _objective(patcher)
        self.compute_dtype = patcher.model.get_dtype_inference()
        self.condition_dim = condition_dim
        self.fingerprint = _fingerprint(self.transformer)
        self.device = patcher.load_device
        self.num_channels = getattr(self.transformer, "latents_dim", patcher.model.latent_format.latent_channels)  # of MiniMax-H3's video
        self.applied = [applied.name for applied in applied_pairs(patcher)]
        self._uuid = uuid.uuid4()
        self._following: dict[float, float] = {}

    @property
    def transformer(self) -> nn.Module:
        """The DiT, loaded in full."""
        if self._is_resting:
            load_to_train(self.patcher)
            self._is_resting = False
        return self.architecture

    def rest(self) -> None:
        if not self._is_resting:
            unload(self.patcher)
            self._is_resting = True

    def batch_texts(self, texts: Sequence[ComfyConds]) -> ComfyConds:
        """Conds of one bucket, joined.

        Raises:
            InputError: the model computes one sample at a time.
        """
        if len(texts) > 1 and type(self.patcher.model).__name__ in OTHER_STREAMS:
            raise InputError(
                f"{self.encoders.model} computes one sample at a time: set identity_batch and motion_batch to 1 in Training Options, and "
                "raise accumulation instead, which does the same."
            )
        return comfy.samplers.cond_cat(list(texts))

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: ComfyConds) -> torch.Tensor:
        """What the DiT itself returns, before ComfyUI turns it into denoised latents.

        latents: (B, C, f, h, w); timestep: (B,) sigmas of a flow model, indices of a v-prediction model.

        Raises:
            InterruptProcessingException: the user cancelled the prompt.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        outputs: list[torch.Tensor | Sequence[torch.Tensor]] = []
        keep = self.transformer.register_forward_hook(lambda module, args, output: outputs.append(output))
        sigmas = self._sigmas(timestep)
        following = sigmas
        if self._following:
            following = torch.tensor([self._following.get(sigma, sigma) for sigma in sigmas.cpu().tolist()]).to(sigmas)
        options = {
            **call_options(self.patcher),
            "cond_or_uncond": [0],
            "uuids": [self._uuid],
            "sigmas": sigmas,
            "sample_sigmas": torch.stack([sigmas, following], dim=1).flatten(),
        }
        model, (conds, held) = self.patcher.model, held_frames(text)
        shown, shapes = streams(model, latents if held is None else held.shown(model, latents, sigmas))
        try:
            with self._second_timesteps(following):
                model.apply_model(shown, sigmas, transformer_options=options, **conds, **shapes)
        finally:
            keep.remove()
        output = outputs[0] if isinstance(outputs[0], torch.Tensor) else outputs[0][0]  # of several streams, the video
        return output if held is None else held.answered(output, latents, sigmas)

    def denoise(
        self, model: Denoiser, latents: torch.Tensor, num_steps: int, generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Samples plainly; meanwhile a model that asks which sigma comes next is told. latents: (B, C, f, h, w) -> the same."""
        sigmas = self._sigmas(torch.tensor(plain_timesteps(self.objective, num_steps))).cpu().tolist()
        self._following = dict(itertools.pairwise([*sigmas, 0.0]))
        try:
            return denoise_plainly(self.objective, model, latents, num_steps, generator, progress)
        finally:
            self._following = {}

    def _sigmas(self, timestep: torch.Tensor) -> torch.Tensor:
        """(B,) of timesteps (B,)."""
        if not isinstance(self.objective, VPrediction):
            return timestep
        return self.patcher.model.model_sampling.sigmas.to(timestep.device)[timestep.long()]

    @contextmanager
    def _second_timesteps(self, sigmas: torch.Tensor) -> Iterator[None]:
        """A step-distilled HunyuanVideo also embeds the sigma (B,) that it steps to, and takes that of the first row for all."""
        embed = getattr(self.transformer, "time_r_in", None)
        if embed is None:
            yield
            return
        rows = timestep_embedding(sigmas.float(), SINES, time_factor=TIME_FACTOR)
        hook = embed.register_forward_pre_hook(lambda module, args: (rows.to(args[0]),))
        try:
            yield
        finally:
            hook.remove()

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, f, h, w); sizes are counted in latent cells here, because a MODEL does not know its VAE."""
        return self.num_channels, num_frames, height, width

    def conds(
        self,
        conditioning: list,
        latents: torch.Tensor,
        name: str = "The conditioning",
        mask: torch.Tensor | None = None,
        like: ComfyConds | None = None,
    ) -> ComfyConds:
        """A CONDITIONING as the conds of one sample.

        latents: (C, f, h, w), for conds that have the latents' shape; mask: as they, 0 where frames are given.

        Args:
            name: of the input that it came through, for error messages.
            like: of a sample whose image is taken where the CONDITIONING has none.

        Raises:
            InputError: it has several entries, which training cannot tell apart, is of another text encoder than the model's, or lacks
                the image that the model wants.
        """
        if len(conditioning) != 1:
            raise InputError(f"A conditioning has {len(conditioning)} entries, and training takes one per sample: do not combine prompts.")
        check_text(conditioning, self.transformer, self.family, name)
        mask = None if mask is None else mask[None].to(self.device)
        return model_conds(self.patcher.model, conditioning, latents[None].to(self.device), mask, name, like)

    def prepare(
        self,
        role: Role,
        latents: Sequence[dict],
        conditioning: Sequence[list],
        masks: Sequence[torch.Tensor] = (),
        references: Sequence[object] = (),
    ) -> PreparedSet:
        """Lists as dataset nodes make them, as samples.

        Args:
            latents: LATENTs of one or more samples each.
            conditioning: one CONDITIONING per sample, or a single one for all.
            masks: MASKs (F, H, W) or (H, W), 1 where the subject is; one per sample, or none. Each latent frame takes the nearest one.
            references: CLIP_VISION_OUTPUTs; one per sample, or none.

        Raises:
            InputError: lists do not agree in length, are empty, are of another VAE or encoder than the model's, or hold what is no number.
        """
        num_channels = self.num_channels
        named = [(latent.get(FILE_KEY, ""), *sample) for latent in latents for sample in _samples(latent, role)]
        samples = [sample for _, sample, _ in named]
        if not samples:
            raise InputError(f"The {role} dataset is empty: connect latents from a dataset node.")
        for name, values in (("conditioning", conditioning), ("masks", masks), ("references", references)):
            allowed = {len(samples), 1 if name == "conditioning" else 0}
            if len(values) not in allowed:
                raise InputError(f"The {role} dataset has {len(samples)} latents and {len(values)} {name}: give one of each per sample.")
        items, digests, contents = [], [], {}
        for index, (file, sample, noise_mask) in enumerate(named):
            cond = conditioning[index if len(conditioning) > 1 else 0]
            wiring = f"wire into the node that makes {role}_latents ({role.title()} Dataset)"
            check_channels(sample.shape[0], num_channels, f"The {role} latents have", wiring, self.encoders)
            if not torch.isfinite(sample).all():
                raise InputError(
                    f"The {role} latents hold values that are no numbers (NaN or infinite): encode them again, in another precision."
                )
            content = contents.setdefault(file, _digest([sample])) if file else ""
            shown = [reference.image_embeds for reference in references[index : index + 1]]
            clean = self.patcher.model.process_latent_in(sample[None]).float()[0].cpu()
            if noise_mask is not None and holds_frames(self.patcher.model) and not noise_mask.any():
                raise InputError(f"Sample {index + 1} of the {role} latents is given whole (noise mask 0): nothing is left to learn.")
            text = self.conds(cond, clean, f"{role}_conditioning", noise_mask)
            said = [part for name in sorted(text) for part in (name, text[name].cond)]
            digests.append(_digest([sample, *said, *masks[index : index + 1], *shown]))
            items.append(
                ComfyItem(
                    latents=clean,
                    text=text,
                    conditions=references[index].image_embeds[:1].float().cpu().clone() if references else None,
                    mask=shrink_mask(masks[index].float().reshape(-1, 1, *masks[index].shape[-2:]), clean.shape) if masks else None,
                    source=f"sample {index + 1}",
                    fingerprint=content,
                )
            )
        return PreparedSet(items, tuple(digests))


def _samples(latent: dict, role: Role) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Each (C, f, h, w), with its noise mask of the same shape where there is one; pictures become clips of one frame."""
    tensor, mask = latent["samples"], latent.get("noise_mask")
    if tensor.is_nested or tensor.ndim not in (4, 5):
        shown = "several streams" if tensor.is_nested else f"{tensor.ndim} dimensions"
        raise InputError(f"The {role} latents have {shown}: give those of a video or image VAE.")
    tensor = tensor[:, :, None] if tensor.ndim == 4 else tensor
    masks = [None] * len(tensor) if mask is None else comfy.sampler_helpers.prepare_mask(mask.float(), tensor.shape, "cpu")
    return [(sample.clone(), given) for sample, given in zip(tensor, masks, strict=True)]


def _alike(value: object, size: Sequence[int]) -> tuple[float, ...]:
    """What conds of one batch share: a number itself, of others the size."""
    return ("value", value) if isinstance(value, (int, float)) else tuple(size)


def _objective(patcher: ModelPatcher) -> FlowMatching | VPrediction:
    sampling, kind = patcher.get_model_object("model_sampling"), patcher.model.model_type.name
    if kind in FLOW_TYPES:
        middle = float(sampling.percent_to_sigma(0.5))
        return FlowMatching(shift=middle / (1 - middle), timestep_scale=1.0)
    if kind == V_TYPE:
        return VPrediction(tuple((1 / (1 + sampling.sigmas.double() ** 2)).tolist()))
    raise InputError(f"The model predicts {kind}, which the Joint Trainer does not train: use a model of those that the guide lists.")


def _fingerprint(transformer: torch.nn.Module) -> str:
    """sha256 over names and shapes of all weights, and a few values of each: cheap for large models."""
    sha = hashlib.sha256()
    for name, weight in transformer.named_parameters():
        sha.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        values = weight.detach().flatten()
        sha.update(values[:: max(1, len(values) // NUM_COMPARED)][:NUM_COMPARED].float().cpu().numpy().tobytes())
    return sha.hexdigest()


def _digest(parts: Sequence[object]) -> str:
    """sha256 over tensors, lists and dicts of them, and the text of what is neither."""
    sha, left = hashlib.sha256(), list(reversed(parts))
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += [item for key in sorted(part, reverse=True) for item in (part[key], key)]
        elif isinstance(part, list):
            left += reversed(part)
        else:
            is_tensor = isinstance(part, torch.Tensor)
            sha.update(part.detach().float().cpu().contiguous().numpy().tobytes() if is_tensor else repr(part).encode())
    return sha.hexdigest()
