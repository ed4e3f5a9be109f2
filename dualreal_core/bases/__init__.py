"""Base models: the embedded toy world, and diffusers folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from .base import Base, Offload

__all__ = ["Base", "load_base"]


def load_base(
    name: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    image_encoder: Path | None = None,
    offload: Offload = "none",
) -> Base:
    """A base by name: `toyworld`, or a diffusers folder of CogVideoX, Wan, LTX-Video, LTX-2, HunyuanVideo or HunyuanVideo 1.5.

    Of Wan 2.2 A14B it has two experts.

    Args:
        dtype: of the DiT's weights; the embedded base is always float32.
        image_encoder: folder of a CLIP vision model for reference embeddings; default: the model folder's own, if any.
        offload: where the DiT of a model folder waits while the encoders are at work: 'none' (nowhere: it is read again from its
            files), 'model' (in main memory) or 'blocks' (in main memory, from where each block comes while it computes; to sample
            only). Without an accelerator it is always 'none'. The embedded base is too small to be moved.

    Raises:
        InputError: the folder is missing or holds no model of a known kind.
    """
    if str(name) == "toyworld":
        from .toyworld import ToyWorldBase

        return ToyWorldBase(device)
    from .diffusers_folder import DiffusersFolderBase, boundary_of_folder
    from .two_experts import TwoExpertBase

    of_component = partial(DiffusersFolderBase, Path(name), dtype, device, image_encoder, offload)
    boundary = boundary_of_folder(Path(name))
    if boundary is None:
        return of_component()
    return TwoExpertBase(of_component("transformer"), of_component("transformer_2"), boundary)
