"""A CONDITIONING as a model's own conds, and what it says of frames that are given instead of made."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.conds
import comfy.model_base
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch
from comfy.model_base import BaseModel

from ..dualreal_core.errors import InputError

ComfyConds = dict[str, object]
"""ComfyUI's conds of one sample, by name."""
HELD_MASK, HELD_LATENTS = "dualreal_held_mask", "dualreal_held_latents"
"""Conds of ours, for models in whose latents given frames are held clean."""
REPLACED = "time_dim_replace"
"""Latents that Kandinsky 5 itself puts in the place of the first noisy ones."""
IMAGE_CONDS = ("c_concat", "clip_fea", "denoise_mask", REPLACED, HELD_MASK, HELD_LATENTS)
"""Those that tell of given frames."""
KEYFRAMES, PAYLOAD = "minimax_keyframes", "minimax_payload"
"""An entry of a CONDITIONING of MiniMax-H3, and the cond that it becomes a part of."""
RATE = "frame_rate"
"""Both an entry of a CONDITIONING of LTX models and their cond."""
OPTIONAL_IMAGE = ("HunyuanVideo15", "Kandinsky5", "WAN21_HuMo")
"""Classes of ComfyUI whose further channels are zero, or filled by itself, where there is no image: they are trained that way too."""
NODES_OF_OTHER_INPUTS = {
    "WAN21_Vace": "WanVaceToVideo", "WAN22_S2V": "WanSoundImageToVideo", "WAN21_HuMo": "WanHuMoImageToVideo",
    "WAN21_SCAIL": "WanSCAILToVideo", "WAN21_SCAIL2": "WanSCAILToVideo",
}  # fmt: skip
"""By class of ComfyUI's model that reads references, poses or sound and no first frame, the node that gives it those."""
MASK_CHANNELS = (0, 1, 4)
"""How many a model may have beside those of the image."""
OTHER_STREAMS: dict[str, tuple[int, ...]] = {"MiniMaxH3": (32, 2, 0)}
"""By class of ComfyUI's model, the empty latent (without batch) of a stream that it also wants, and that is not trained."""
IMAGE_CURE = (
    "switch on image_to_video of Identity Dataset and Motion Dataset, wire conditioning of a stock image-to-video node, or use a "
    "text-to-video model"
)


@dataclass(frozen=True)
class HeldFrames:
    """Frames that are given: the model sees them clean, and what it says of them does not count.

    mask, latents: (B, C, f, h, w); the mask is 1 where the model makes the video, 0 where it is given.
    """

    mask: torch.Tensor
    latents: torch.Tensor

    def shown(self, model: BaseModel, noisy: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        """Noisy latents as ComfyUI's sampler shows them to the model. noisy: (B, C, f, h, w); sigmas: (B,)."""
        noise = self.latents + self._velocity(noisy, sigmas)
        given = model.scale_latent_inpaint(x=noisy, sigma=sigmas, noise=noise, latent_image=self.latents, denoise_mask=self.mask)
        return noisy * self.mask + given * (1 - self.mask)

    def answered(self, output: torch.Tensor, noisy: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        """What the model puts out, with what leads to the given frames in their place: there is no loss, and a sampler keeps them."""
        return output.float() * self.mask + self._velocity(noisy, sigmas) * (1 - self.mask)

    def _velocity(self, noisy: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        return (noisy - self.latents) / sigmas.reshape(-1, 1, 1, 1, 1).clamp(min=1e-6)


def held_frames(conds: ComfyConds) -> tuple[ComfyConds, HeldFrames | None]:
    """Batched conds without ours, and the frames that these hold."""
    left = {name: value for name, value in conds.items() if name not in (HELD_MASK, HELD_LATENTS)}
    return left, HeldFrames(conds[HELD_MASK], conds[HELD_LATENTS]) if HELD_MASK in conds else None


def holds_frames(model: BaseModel) -> bool:
    """Whether a model sees given frames clean among the noisy ones, as ComfyUI's sampler shows them to it."""
    return type(model).scale_latent_inpaint is not BaseModel.scale_latent_inpaint and type(model).__name__ not in OTHER_STREAMS


def model_conds(
    model: BaseModel, conditioning: list, latents: torch.Tensor, mask: torch.Tensor | None, name: str, like: ComfyConds | None = None
) -> ComfyConds:
    """Conds of one sample.

    latents: (1, C, f, h, w) on the model's device; mask: as it, 0 where frames are given.

    Args:
        name: of the input that the CONDITIONING came through, for error messages.
        like: of a sample whose image or keyframe, and whose frame rate, are taken where the CONDITIONING has none.

    Raises:
        InputError: the model wants an image and there is none, it is of another size or kind than the model's, or the model reads other
            inputs in its place.
    """
    given, device = comfy.sampler_helpers.convert_cond(conditioning), latents.device
    extras = given[0]
    extras.setdefault("pooled_output", None)  # without the key, some classes raise; those that need it are checked before
    for key, value in _entries_of(like or {}).items():
        extras.setdefault(key, value)
    image, wants = extras.get("concat_latent_image"), _image_channels(model, latents)
    borrowed = {} if like is None or image is not None else {key: cond for key, cond in like.items() if key in IMAGE_CONDS}
    if image is None and "c_concat" not in borrowed and wants >= latents.shape[1] and type(model).__name__ not in OPTIONAL_IMAGE:
        raise InputError(f"The model wants an image beside the noise (image to video), and {name} has none: {IMAGE_CURE}.")
    if image is not None and type(model).__name__ in NODES_OF_OTHER_INPUTS:
        raise InputError(
            f"{name} gives a first frame, which this model ({type(model).__name__}) does not read: switch off image_to_video of both "
            f"dataset nodes, or wire conditioning of {NODES_OF_OTHER_INPUTS[type(model).__name__]}, which gives what it reads."
        )
    if image is not None and wants:
        _check_image(model, image, wants, latents, name)
    held = {"denoise_mask": mask, "latent_image": latents} if mask is not None and holds_frames(model) else {}
    if "c_concat" in borrowed and model.concat_keys:  # its own would need the image
        extras["concat_latent_image"] = torch.zeros_like(latents)
    encoded = comfy.samplers.encode_model_conds(model.extra_conds, given, latents, device, "positive", **held)
    found = {key: cond.process_cond(batch_size=1, area=None) for key, cond in encoded[0]["model_conds"].items()}
    if held:
        found |= _held(mask, latents)
    elif REPLACED in found:
        made = torch.ones_like(latents)
        made[:, :, : found[REPLACED].cond.shape[2]] = 0
        found |= _held(made, latents)
    found |= borrowed
    return _with_image_embedding(model, found, name)


def streams(model: BaseModel, latents: torch.Tensor) -> tuple[torch.Tensor, dict[str, list[tuple[int, ...]]]]:
    """Latents (B, C, f, h, w) as a model of several streams takes them, and the option that says so; others take them as they are."""
    other = OTHER_STREAMS.get(type(model).__name__)
    if other is None:
        return latents, {"latent_shapes": [tuple(latents.shape)]} if isinstance(model, comfy.model_base.LTXAV) else {}
    packed, shapes = comfy.utils.pack_latents([latents, latents.new_zeros(len(latents), *other)])
    return packed, {"latent_shapes": [tuple(shape) for shape in shapes]}


def _entries_of(conds: ComfyConds) -> dict[str, object]:
    """What conds of another sample say of keyframes and frame rate, as entries of a CONDITIONING."""
    rate = {RATE: conds[RATE].cond} if RATE in conds else {}
    keyframes = conds[PAYLOAD].cond.get("keyframes") if PAYLOAD in conds else None
    return rate | ({KEYFRAMES: keyframes} if keyframes else {})


def _held(mask: torch.Tensor, latents: torch.Tensor) -> ComfyConds:
    return {HELD_MASK: comfy.conds.CONDRegular(mask), HELD_LATENTS: comfy.conds.CONDRegular(latents)}


def _image_channels(model: BaseModel, latents: torch.Tensor) -> int:
    """Channels of an image that a model reads beside the latents: those that are left zero where there is none."""
    if model.concat_keys:  # which it cannot fill without one
        return sum(latents.shape[1] if "image" in key else 1 for key in model.concat_keys)
    blank = model.concat_cond(noise=latents, device=latents.device)
    return 0 if blank is None or blank.any() else blank.shape[1]


def _check_image(model: BaseModel, image: torch.Tensor, wanted: int, latents: torch.Tensor, name: str) -> None:
    if wanted - image.shape[1] not in MASK_CHANNELS:
        raise InputError(
            f"The image of {name} has {image.shape[1]} channels, and the model reads {wanted} beside the noise: it wants more than a first "
            "frame (a control video, a video to fill in), so use an image-to-video model."
        )
    fills_up = bool(model.concat_keys) or isinstance(model, comfy.model_base.CogVideoX)
    if image.shape[2] != latents.shape[2] and not (fills_up and image.shape[2] == 1):
        raise InputError(
            f"The image of {name} is made for {image.shape[2]} latent frames, and a sample has {latents.shape[2]}: give each sample its "
            "own, as image_to_video of the dataset nodes does."
        )


def _with_image_embedding(model: BaseModel, conds: ComfyConds, name: str) -> ComfyConds:
    """Conds without an image embedding that the model does not read.

    Raises:
        InputError: it reads another width.
    """
    if "clip_fea" not in conds:
        return conds
    reader = getattr(model.diffusion_model, "img_emb", None) or getattr(model.diffusion_model, "vision_in", None)
    if reader is None:
        return {key: cond for key, cond in conds.items() if key != "clip_fea"}
    width, given = reader.proj[0].normalized_shape[0], conds["clip_fea"].cond.shape[-1]
    if width != given:
        raise InputError(
            f"The image embedding of {name} is {given} wide, and the model reads {width}: wire the image encoder of the model into "
            "clip_vision of Motion Dataset (clip_vision_h for Wan 2.1, SigLIP for HunyuanVideo 1.5), or unwire it."
        )
    return conds
