"""Two MODELs, the experts of one denoising, as one base to train on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

from comfy.model_patcher import ModelPatcher

from ..dualreal_core.bases.two_experts import TwoExpertBase
from ..dualreal_core.errors import InputError
from ..dualreal_core.families import family_of
from ..dualreal_core.families.base_record import expert_boundary
from ..dualreal_core.families.expert_names import EXPERTS, named_expert
from .comfy_base import ComfyBase
from .model_file import model_file
from .patching import diffusion_model
from .training_model import ready_to_train


def both_experts(high: ComfyBase, low_noise_model: ModelPatcher, boundary: float, stack: ExitStack) -> TwoExpertBase:
    """Both experts, of which one is loaded at a time; the second one's copy is given back when the stack is closed.

    Raises:
        InputError: the two differ in size, or are sampled in different ways.
    """
    high.rest()
    low = ComfyBase(stack.enter_context(ready_to_train(low_noise_model)), high.condition_dim)
    if asdict(high.objective) != asdict(low.objective):
        raise InputError(
            "model and low_noise_model have different noise schedules: put the same shift node (ModelSamplingSD3) behind both, as for "
            "sampling."
        )
    low.rest()
    return TwoExpertBase(high, low, boundary)


def applied_by(base: ComfyBase | TwoExpertBase) -> list:
    """What tells the pairs that the MODEL carries from others; of two MODELs, of each."""
    return [expert.applied for expert in base.experts] if isinstance(base, TwoExpertBase) else base.applied


def boundary_between(model: ModelPatcher, low_noise_model: ModelPatcher) -> float:
    """The sigma at which two experts switch, of which neither need be loaded.

    Raises:
        InputError: they are one MODEL, or not the high-noise and the low-noise expert of one.
    """
    if model.is_clone(low_noise_model):
        raise InputError("model and low_noise_model are the same MODEL: wire the low-noise expert into low_noise_model, or nothing.")
    wired = {"model": model, "low_noise_model": low_noise_model}
    names = {place: named_expert(model_file(one)) for place, one in wired.items()}
    for (place, found), expected in zip(names.items(), EXPERTS, strict=True):
        if found not in (None, expected):
            raise InputError(
                f"{place} is the {found} expert by its name ({model_file(wired[place])}), and takes the {expected} one: "
                "wire the high-noise expert into model and the low-noise expert into low_noise_model."
            )
    transformers = [diffusion_model(one) for one in wired.values()]
    kinds = [(family_of(one).name, expert_boundary(one)) for one in transformers]
    if kinds[0] != kinds[1]:
        raise InputError("model and low_noise_model are of different kinds: wire both experts of one model, such as Wan 2.2 A14B.")
    if kinds[0][1] is None:
        raise InputError(
            f"low_noise_model is wired, and this {kinds[0][0]} model has no two experts that are known: unwire it. Wan 2.2 A14B has, for "
            "text to video and for image to video."
        )
    return kinds[0][1]
