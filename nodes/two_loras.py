"""Blend Two LoRAs: two files in, a MODEL out on which both act, each with weights of its own over denoising and depth."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar

import comfy.sd
import folder_paths
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui

from ..dualreal_core.errors import InputError
from ..dualreal_core.families.expert_names import HIGH, LOOKED_FOR, LOW
from ..dualreal_core.method.blend import SharePlan
from ..dualreal_core.method.curves import BlendCurves
from ..dualreal_core.method.experts import experts_of
from ..dualreal_core.method.pair import ROLES, AdapterPair, Role
from ..dualreal_core.method.placement import sharing_weights
from ..dualreal_core.method.presets import EVEN, IDENTITY_EARLY, IDENTITY_EARLY_RANGE, MOVEMENT_FIRST, PRESETS, movement_first
from ..dualreal_core.plots.depth_bars import depth_bars
from .adapters import LORAS
from .base_weights import with_beside
from .blend import NEGATIVE_CHOICES, blending_inputs, silent_on_sound
from .expert_parts import differences_from
from .experts import FOUND_BY_NAME, as_one, of_unequal_kind, swapped
from .gate_fitting import with_fitted_gate
from .gate_words import GATE, known_words
from .lora_sides import NONE, SAME_FILE, LoraFile, LoraSides, fingerprint_of, read_sides
from .patching import Strengths, apply_pair, diffusion_model
from .progress import told
from .types import CATEGORY, BlendType, PairType

INPUTS = {HIGH: "model", LOW: "low_noise_model"}
MOST_EARLY = IDENTITY_EARLY_RANGE[1]
PARTNER_TOOLTIP = (
    f"With low_noise_model: the {{role}} LoRA of the other expert. '{FOUND_BY_NAME}' looks for {LOOKED_FOR}; '{SAME_FILE}' puts this "
    f"one on both experts, as a LoRA of Wan 2.1; '{NONE}' leaves the other expert without it."
)
WORDS_TOOLTIP = (
    "With clip: words of which a prompt must hold one for the {role} to act, separated by commas, such as '{example}'. Empty: the trigger "
    "words that its file names."
)
EXAMPLE_WORDS = ("sks dog", "plays the violin")


class BlendTwoLoras(io.ComfyNode):
    """An identity LoRA and a motion LoRA on a MODEL, by one blend."""

    PARTNERS: ClassVar[list[str]] = [FOUND_BY_NAME, SAME_FILE, NONE]

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list(LORAS)
        identity_strength, motion_strength, start_percent, end_percent, negative, *_ = blending_inputs()
        return io.Schema(
            node_id="DualRealBlendTwoLoras",
            display_name="Blend Two LoRAs",
            category=CATEGORY,
            description="Puts an identity LoRA and a motion LoRA on a model, never merged: each has its own weight at every noise level "
            "and depth. For more than two, put one node behind the other.",
            search_aliases=["dualreal", "load lora", "two loras", "lora stack", "blend lora", "character and action", "multi lora"],
            inputs=[
                io.Model.Input("model", tooltip="The video model of the LoRAs; of two experts (Wan 2.2) the high-noise one."),
                io.Combo.Input(
                    "identity_lora", options=[NONE, *files],
                    tooltip=f"The LoRA of the subject or the style, from models/loras. '{NONE}': the motion acts alone. Pair files of "
                    "models/dualreal are no LoRAs: Load Pair reads these.",
                ),
                io.Combo.Input(
                    "motion_lora", options=[NONE, *files],
                    tooltip=f"The LoRA of the action, movement or camera, from models/loras. '{NONE}': the identity acts alone.",
                ),
                identity_strength,
                motion_strength,
                io.Combo.Input(
                    "preset", options=list(PRESETS), default=MOVEMENT_FIRST,
                    tooltip=f"Both sides' weights over noise level and depth. '{MOVEMENT_FIRST}': the motion leads in noise, the identity "
                    "late. 'even': both at weight 1 throughout, as two LoRA loaders.",
                ),
                io.Float.Input(
                    "identity_early", default=IDENTITY_EARLY, min=IDENTITY_EARLY_RANGE[0], max=MOST_EARLY, step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip=f"Only with the preset '{MOVEMENT_FIRST}': the identity's weight in noise, 0 to {MOST_EARLY:g}. Lower it "
                    "where the movement suffers, raise it where a subject of unusual shape does.",
                ),
                start_percent,
                end_percent,
                negative,
                io.Model.Input(
                    "low_noise_model", optional=True,
                    tooltip="For two experts (Wan 2.2 A14B): the low-noise model. Each expert then gets its own file of either LoRA.",
                ),
                BlendType.Input(
                    "blend", optional=True,
                    tooltip="Blend Curves, Fixed Blend or Schedule Blend: decides instead of preset and identity_early.",
                ),
                io.Clip.Input(
                    "clip", optional=True,
                    tooltip="The text encoder of the model. With it each LoRA acts only on prompts that name it; the first run encodes "
                    "some hundred prompts. Without it both act on every prompt.",
                ),
                io.Float.Input(
                    "audio_strength", default=0.0, min=0.0, max=4.0, step=0.05, optional=True, advanced=True,
                    tooltip="Factor on what both LoRAs do to the sound, in models that make one (LTX-2, MiniMax-H3). 1 is as Load LoRA.",
                ),
                *(
                    io.Combo.Input(
                        f"{role}_partner", options=[*cls.PARTNERS, *files], default=FOUND_BY_NAME, optional=True, advanced=True,
                        tooltip=PARTNER_TOOLTIP.format(role=role),
                    )
                    for role in ROLES
                ),
                *(
                    io.String.Input(
                        f"{role}_words", default="", display_name=f"{role} acts on", optional=True,
                        tooltip=WORDS_TOOLTIP.format(role=role, example=example),
                    )
                    for role, example in zip(ROLES, EXAMPLE_WORDS, strict=True)
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with both LoRAs at work. The input stays as it is."),
                io.Model.Output(display_name="low_noise_model", tooltip="Likewise the low-noise model, where one is wired."),
                PairType.Output(display_name="pair", tooltip="Both LoRAs as a pair, at strength 1, for Save Pair or Save LoRA."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(
        cls, identity_lora: str, motion_lora: str, identity_partner: str = FOUND_BY_NAME, motion_partner: str = FOUND_BY_NAME, **_: object
    ) -> str:
        return fingerprint_of(_files(identity_lora, motion_lora, identity_partner, motion_partner), has_experts=True)

    @classmethod
    def execute(
        cls, model, identity_lora, motion_lora, identity_strength, motion_strength, preset, identity_early, start_percent, end_percent,
        negative, low_noise_model=None, blend=None, clip=None, audio_strength=0.0, identity_partner=FOUND_BY_NAME,
        motion_partner=FOUND_BY_NAME, identity_words="", motion_words="",
    ) -> io.NodeOutput:  # fmt: skip
        if start_percent >= end_percent:
            raise InputError(f"start_percent {start_percent} is not below end_percent {end_percent}: the LoRAs would never act.")
        models = [model] if low_noise_model is None else [model, low_noise_model]
        sides = read_sides(models, _files(identity_lora, motion_lora, identity_partner, motion_partner))
        sides, said_of_gate = _following_prompts(sides, models[0], clip, {"identity": identity_words, "motion": motion_words}, cls)
        adapts_negative = negative == NEGATIVE_CHOICES[1]
        strengths = Strengths(identity_strength, motion_strength, start_percent, end_percent, adapts_negative, audio_strength)
        chosen = blend or (movement_first(identity_early) if preset == MOVEMENT_FIRST else PRESETS[preset])
        patched, said = put_on(models, sides, strengths, chosen)
        silence = "" if audio_strength else silent_on_sound(sides.pair.pair, diffusion_model(model), sides.pair.beside)
        text = "\n".join(filter(None, (*sides.said, *said_of_gate, *said, *_on_files(identity_lora, motion_lora, blend, preset), silence)))
        shown = ui.PreviewImage(_picture(sides, strengths), cls=cls).as_dict()
        outputs = (patched[0], patched[1] if len(patched) > 1 else None, sides.pair)
        return io.NodeOutput(*outputs, ui={**told(text).as_dict(), **shown})


def put_on(
    models: list[ModelPatcher], sides: LoraSides, strengths: Strengths, blend: BlendCurves | SharePlan
) -> tuple[list[ModelPatcher], list[str]]:
    """Each MODEL, of two experts the high-noise one first, with its part of the pair; and what is to be said of it."""
    patched, said = list(models), []
    by_expert = dict(zip((HIGH, LOW), models, strict=False))
    if len(models) > 1:
        said += [*swapped(by_expert, INPUTS), *of_unequal_kind(by_expert, INPUTS)]
    changed = []
    for index, (expert, one) in enumerate(by_expert.items()):
        own = _part(sides.pair.pair, index)
        if not any(own.sides.values()):
            said.append(f"No LoRA is for the {expert} expert, which stays as it is.")
            continue
        try:
            patched[index] = apply_pair(one, own, strengths, blend.blend(own.config), named_by=sides.pair.header.get(GATE))
            beside = [weight for weight in sides.pair.beside if weight.expert in (None, expert)]
            with_beside(patched[index], beside, strengths)
        except InputError as error:
            raise InputError(f"The {expert} model: {error}" if len(models) > 1 else str(error)) from error
        changed.append(patched[index])
        said += differences_from(sides.pair.header, one, expert if len(models) > 1 else None)
    said += as_one(changed)
    for sentence in said:
        logging.warning(sentence)
    return patched, said


def _files(identity_lora: str, motion_lora: str, identity_partner: str, motion_partner: str) -> dict[Role, LoraFile]:
    return {"identity": LoraFile(identity_lora, identity_partner), "motion": LoraFile(motion_lora, motion_partner)}


def _on_files(identity_lora: str, motion_lora: str, blend: BlendCurves | SharePlan | None, preset: str) -> list[str]:
    """Sentences where the choice of files may not be what was meant."""
    if identity_lora == motion_lora:
        return [f"Both sides are {identity_lora}, so it acts twice: choose two LoRAs, or '{NONE}' for one side."]
    if blend is not None:
        return ["The wired blend decides: preset and identity_early do nothing."]
    if NONE in (identity_lora, motion_lora) and preset != EVEN:
        return [f"The preset {preset!r} weighs the one LoRA too: with {EVEN!r} it acts as by Load LoRA."]
    return []


def _following_prompts(
    sides: LoraSides, model: ModelPatcher, clip: comfy.sd.CLIP | None, given: dict[Role, str], node: type[io.ComfyNode]
) -> tuple[LoraSides, list[str]]:
    """Both sides with a prompt gate where there is a CLIP to fit it to, and what is to be said of it."""
    if clip is None:
        useless = [f"{role}_words" for role, words in given.items() if words.strip()]
        return sides, [f"{' and '.join(useless)} do nothing without clip: wire the text encoder of the model."] if useless else []
    gated, said = with_fitted_gate(sides.pair, model, clip, known_words(sides.pair, given), node.hidden.unique_id)
    if number := len(gated.beside):
        said.append(f"What the LoRAs change outside of blocks ({number} weight{'s' * (number > 1)}) acts on every prompt.")
    return replace(sides, pair=gated), said


def _part(pair: AdapterPair, index: int) -> AdapterPair:
    return sharing_weights(experts_of(pair)[index])


def _picture(sides: LoraSides, strengths: Strengths) -> torch.Tensor:
    """Norms by depth as an image (1, H, W, 3) in [0, 1]."""
    factors = {"identity": strengths.identity, "motion": strengths.motion}
    norms = {role: [factors[role] * value for value in values] for role, values in sides.norms.items()}
    bars = depth_bars(norms, "How much each LoRA changes, by depth")
    return torch.from_numpy(np.asarray(bars.convert("RGB"), dtype=np.float32) / 255)[None]


NODES: list[type[io.ComfyNode]] = [BlendTwoLoras]
