"""Scores from an image encoder's embeddings, by the definitions of the papers that video customisation is compared with."""

from __future__ import annotations

import torch
from torch.nn import functional


def identity_per_frame(frames: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """CLIP-I (DINO-I with a DINO encoder) of each frame: its mean cosine with the references.

    The mean over the frames is the average pairwise cosine of generated and real images that DreamBooth (Ruiz et al.,
    CVPR 2023) defines and DreamVideo applies to frames. Ranges from -1 to 1; cosines of unlike photos are well above 0.

    Args:
        frames: (F, D)
        references: (R, D)

    Returns:
        (F,)
    """
    references = functional.normalize(references.float(), dim=-1)
    return functional.normalize(frames.float(), dim=-1) @ references.mean(0)


def consistency_per_pair(frames: torch.Tensor) -> torch.Tensor:
    """Cosine of each frame with the next; the mean is the frame consistency of Gen-1 (Esser et al., ICCV 2023).

    Args:
        frames: (F, D)

    Returns:
        (F - 1,), empty for one frame.
    """
    frames = functional.normalize(frames.float(), dim=-1)
    return (frames[:-1] * frames[1:]).sum(-1)
