"""The embedded base: a small Wan DiT trained on the toy world, with its codec and text, all inside the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel

from ..families import WAN
from ..files.digest import file_digest
from ..objective import FlowMatching
from ..toyworld.codec import CELLS_PER_LATENT, ToyCodec
from ..toyworld.config import LATENT_CHANNELS, TRANSFORMER_CONFIG
from ..toyworld.model import SHIFT, WEIGHTS, load_codec, load_weights, position_planes
from ..toyworld.text import embed_text
from ..toyworld.world import FRAME_CELLS, NUM_FRAMES
from .base import pad_texts
from .denoising import denoise


class ToyWorldBase:
    """See `bases.base.Base` for every member. Frames are 32 x 32 cells; latents keep every frame."""

    name = "toyworld"
    family = WAN
    objective = FlowMatching(shift=SHIFT, logit_std=1.2)
    latent_channels = LATENT_CHANNELS
    frame_multiple = 1
    size_multiple = 2 * CELLS_PER_LATENT
    default_size = (FRAME_CELLS, FRAME_CELLS)
    default_num_frames = NUM_FRAMES
    default_fps = 10.0
    default_guidance_scale = 3.0
    default_num_steps = 20
    condition_dim = 3 * LATENT_CHANNELS
    compute_dtype = torch.float32

    def __init__(self, device: str = "cpu", weights: Path = WEIGHTS) -> None:
        self._weights = weights
        self.device = device
        self._codec: ToyCodec | None = None
        self.transformer = WanTransformer3DModel(**TRANSFORMER_CONFIG)
        self.transformer.load_state_dict(load_weights("transformer", weights))
        self.transformer.requires_grad_(False).eval().to(device)
        self.architecture = self.transformer
        self.denoise = partial(denoise, FlowMatchEulerDiscreteScheduler(shift=SHIFT), frames_first=False)
        self.fingerprint = file_digest(weights / "codec.safetensors")

    def rest(self) -> None:
        """Does nothing: its weights are too few to be moved."""

    @contextmanager
    def encoders(self) -> Iterator[None]:
        self._codec = load_codec(self._weights).to(self.device)
        try:
            yield
        finally:
            self._codec = None

    @property
    def codec(self) -> ToyCodec:
        """The codec, inside `encoders()`."""
        if self._codec is None:
            raise RuntimeError("The encoders are not loaded: work inside `with base.encoders():`.")
        return self._codec

    def encode_text(self, prompt: str) -> torch.Tensor:
        return embed_text(prompt).to(self.device)

    def batch_texts(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        return pad_texts(texts).to(self.device)

    def dit_text(self, text: torch.Tensor) -> torch.Tensor:
        return text

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        return self.codec.encode(frames.to(self.device)).transpose(0, 1)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        return self.codec.decode(latents.transpose(0, 1)).clamp(-1, 1)

    def embed_image(self, frame: torch.Tensor) -> torch.Tensor:
        """Mean, spread and maximum of each latent channel over the frame: what is in it, not where."""
        latents = self.codec.encode(frame[None].to(self.device))[0].flatten(1)  # (16, h * w)
        return torch.cat([latents.mean(1), latents.std(1), latents.amax(1)])

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        return (LATENT_CHANNELS, num_frames, height // CELLS_PER_LATENT, width // CELLS_PER_LATENT)

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        batch, _, frames, height, width = latents.shape
        planes = position_planes(frames, height, width).to(latents).expand(batch, -1, -1, -1, -1)
        return self.transformer(torch.cat([latents, planes], dim=1), timestep, text, return_dict=False)[0]
