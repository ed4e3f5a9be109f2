"""How the peers of `peer_methods` are trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from ..api import Training
from ..bases import Base
from ..dataset import PreparedSet
from ..method.attach import Attachment
from ..method.pair import ROLES, AdapterPair, PairConfig, Role, per_side
from ..training.recipes import Recipe
from .experiment import finish, one_role
from .fitting import fit
from .gated_lora import new_gated_pair

SPARSE_LAYERS: dict[Role, tuple[str, ...]] = {
    "identity": ("attn1.to_q", "attn1.to_k", "ffn.net.0.proj"),
    "motion": ("attn1.to_v", "attn1.to_out.0", "ffn.net.0.proj", "ffn.net.2"),
}
"""Where SMRABooth puts the LoRA of a subject and that of a motion in a Wan DiT: the layers that it found to matter for each."""


def jointtuner(
    base: Base, data: dict[Role, PreparedSet], recipe: Recipe, folder: Path, before: Sequence[AdapterPair]
) -> dict[str, torch.Tensor]:
    """One gated LoRA of both sides' ranks, on photos by the plain loss and on clips by the appearance-independent one."""
    sizes = per_side({"rank": PairConfig.identity_rank, **recipe.pair})
    pair = new_gated_pair(base, sizes["identity_rank"] + sizes["motion_rank"], recipe.train.seed)
    with Attachment(base.transformer, pair) as attachment:
        items = {role: data[role].items for role in ROLES}
        fit(base, pair.role_parameters("identity"), items, recipe.train, attachment, shifts_clips=True)
    return {name: tensor.detach().clone() for name, tensor in pair.sides["identity"].state_dict().items()}


def _sparse(
    role: Role, base: Base, data: dict[Role, PreparedSet], recipe: Recipe, folder: Path, before: Sequence[AdapterPair]
) -> AdapterPair:
    """One side alone for half of the steps, on the layers that SMRABooth gives it."""
    other = "motion" if role == "identity" else "identity"
    changes = {f"{other}_kind": "none", "target_layers": SPARSE_LAYERS[role]}
    return finish(Training(base, data, one_role(recipe, role, **changes), folder))


sparse_identity, sparse_motion = (partial(_sparse, role) for role in ROLES)
