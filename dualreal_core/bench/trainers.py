"""How the benchmark's methods are trained: by the dual-aware loop, or by the plain one of `fitting`. `TRAINERS` names them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ..api import Training
from ..bases import Base
from ..dataset import PreparedItem, PreparedSet
from ..method.attach import Attachment
from ..method.combine import combine
from ..method.pair import ROLES, AdapterPair, PairConfig, Role, new_pair, per_side
from ..toyworld.trial import Trial
from ..training.recipes import Recipe
from .experiment import finish, one_role, train_joint, train_side
from .fitting import fit
from .gated import with_fitted_gate, with_gate_by_loss
from .joining.reconcile import reconcile
from .peer_trainers import jointtuner, sparse_identity, sparse_motion
from .prior import mixed, sample_prior
from .recipes import FIXED_WEIGHTS

Trained = AdapterPair | dict[str, torch.Tensor]
"""A pair, or all weights of the DiT, or what others train on."""
Data = Mapping[Role, PreparedSet]

SPATIAL_SHARE = 0.25
"""Of the motion's half of the steps, for MotionDirector's spatial path: it learns frames, which takes less than a motion."""
LORA_SCALE = 2.0
"""Sum of both weights where a baseline is LoRA at full strength: each side then has weight 1."""


@dataclass(frozen=True)
class Trainer:
    """A way to train.

    Attributes:
        train: gets the base, the prepared photos and clips (the trial, where it `is_data_free`), a recipe whose `steps` are those of
            the whole method, a folder for its run, and what was trained before it.
        sees: the roles whose files it learns from, or whose words it knows.
        needs: trainers whose results it starts from.
        is_data_free: it knows the words of the trial alone.
    """

    train: Callable[[Base, Data | Trial, Recipe, Path, Sequence[Trained]], Trained]
    sees: tuple[Role, ...] = ROLES
    needs: tuple[str, ...] = ()
    is_data_free: bool = False


def _second(role: Role, base: Base, data: Data, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> AdapterPair:
    """Side `role` for half of the steps, with the other side, trained before, frozen and always in the pass."""
    other: Role = "motion" if role == "identity" else "identity"
    training = Training(base, data, one_role(recipe, role), folder)
    training.pair.sides[other].load_state_dict(before[0].sides[other].state_dict())
    return finish(training)


def _full_finetune(base: Base, data: Data, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> dict[str, torch.Tensor]:
    """Every weight of the DiT on photos and clips, no adapter. The base's own weights are put back, bit for bit."""
    transformer = base.transformer
    kept = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    try:
        transformer.requires_grad_(True)
        fit(base, list(transformer.parameters()), _items(data), recipe.train)
        return {name: tensor.detach().clone() for name, tensor in transformer.state_dict().items()}
    finally:
        transformer.load_state_dict(kept)
        transformer.requires_grad_(False)
        transformer.zero_grad(set_to_none=True)


def _mixed_lora(base: Base, data: Data, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> AdapterPair:
    """One LoRA on photos and clips, with the parameters of two: the sum of their ranks."""
    sizes = per_side({"rank": PairConfig.identity_rank, **recipe.pair})
    rank = sizes["identity_rank"] + sizes["motion_rank"]
    pair = _lora_pair(base, recipe, identity_kind="lora", motion_kind="none", identity_rank=rank, identity_alpha=float(rank))
    with Attachment(base.transformer, pair) as attachment:
        fit(base, pair.role_parameters("identity"), _items(data), recipe.train, attachment)
    return pair


def _unmasked(base: Base, data: Data, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> AdapterPair:
    """Both sides learn from every batch, whichever side it belongs to."""
    pair = new_pair(base.transformer, recipe.train.seed, **recipe.pair)
    with Attachment(base.transformer, pair) as attachment:
        fit(base, list(pair.parameters()), _items(data), recipe.train, attachment)
    return pair


def _motiondirector(base: Base, data: Data, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> AdapterPair:
    """MotionDirector's two paths (Zhao et al., ECCV 2024), of which the motion path is kept.

    First a spatial LoRA learns the clips' frames as stills; then, with it frozen and on, a motion LoRA learns the clips by
    the plain plus the appearance-debiased loss. Its layers are the same, as attention here is not split into space and time.
    """
    half = recipe.train.steps // 2
    num_spatial = min(max(1, round(SPATIAL_SHARE * half)), half - 1)
    clips = data["motion"].items
    paths = _lora_pair(base, recipe, identity_kind="lora", motion_kind="lora")
    stills = [
        replace(item, latents=item.latents[:, frame : frame + 1], conditions=None)  # latents here keep every frame
        for item in clips
        for frame in range(item.latents.shape[1])
    ]
    phases: dict[Role, tuple[int, list[PreparedItem]]] = {"identity": (num_spatial, stills), "motion": (half - num_spatial, clips)}
    for role, (steps, items) in phases.items():
        settings = replace(recipe.train, steps=steps, motion_ratio=float(role == "motion"))
        with Attachment(base.transformer, paths) as attachment:
            fit(base, paths.role_parameters(role), {role: items}, settings, attachment, role == "motion")
    kept = _lora_pair(base, recipe, identity_kind="none", motion_kind="lora")
    kept.sides["motion"].load_state_dict(paths.sides["motion"].state_dict())
    return kept


def _beside_prior(roles: Sequence[Role], base: Base, data: Data, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> AdapterPair:
    """Jointly, with the base's own among the files of these sides."""
    return train_joint(base, mixed(base, data, before[0], recipe.train.seed, roles), recipe, folder)


def _gated(base: Base, trial: Trial, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> AdapterPair:
    """What was trained, its two sides added up where they were apart, with a prompt gate."""
    return with_fitted_gate(base, trial, combine(*before) if len(before) > 1 else before[0], folder)


def _gated_by_loss(base: Base, data: Data, recipe: Recipe, folder: Path, before: Sequence[Trained]) -> AdapterPair:
    pair, prior = before
    return with_gate_by_loss(base, data, prior, pair, recipe.train)


def _items(data: Data) -> dict[Role, Sequence[PreparedItem]]:
    return {role: data[role].items for role in ROLES}


def _lora_pair(base: Base, recipe: Recipe, **changes: object) -> AdapterPair:
    return new_pair(base.transformer, recipe.train.seed, **{**recipe.pair, "scale": LORA_SCALE, **FIXED_WEIGHTS, **changes})


TRAINERS = {
    "identity": Trainer(lambda base, data, recipe, folder, before: train_side(base, data, recipe, "identity", folder), sees=("identity",)),
    "motion": Trainer(lambda base, data, recipe, folder, before: train_side(base, data, recipe, "motion", folder), sees=("motion",)),
    "joint": Trainer(lambda base, data, recipe, folder, before: train_joint(base, data, recipe, folder)),
    "second-motion": Trainer(partial(_second, "motion"), needs=("identity",)),
    "second-identity": Trainer(partial(_second, "identity"), needs=("motion",)),
    "full-finetune": Trainer(_full_finetune),
    "mixed-lora": Trainer(_mixed_lora),
    "unmasked": Trainer(_unmasked),
    "motiondirector": Trainer(_motiondirector, sees=("motion",)),
    "jointtuner": Trainer(jointtuner),
    "sparse-identity": Trainer(sparse_identity, sees=("identity",)),
    "sparse-motion": Trainer(sparse_motion, sees=("motion",)),
    "prior": Trainer(lambda base, trial, recipe, folder, before: sample_prior(base, recipe.train.seed), sees=(), is_data_free=True),
    "joint-prior": Trainer(partial(_beside_prior, ROLES), needs=("prior",)),
    "joint-prior-clips": Trainer(partial(_beside_prior, ("motion",)), needs=("prior",)),
    "gated": Trainer(_gated, needs=("joint",), is_data_free=True),
    "gated-sum": Trainer(_gated, needs=("identity", "motion"), is_data_free=True),
    "gated-by-loss": Trainer(_gated_by_loss, needs=("joint", "prior")),
    "reconciled": Trainer(
        lambda base, trial, recipe, folder, before: reconcile(base, trial, *before), needs=("identity", "motion"), is_data_free=True
    ),
}
