"""Apply StageBlender, the blends that can be wired to it, and the map of the weights it used."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence

import numpy as np
import torch
from comfy_api.input import CurveInput
from comfy_api.latest import io, ui
from torch import nn

from ..dualreal_core.errors import InputError
from ..dualreal_core.families import family_of
from ..dualreal_core.families.expert_names import named_expert
from ..dualreal_core.method.blend import PLANS, SharePlan
from ..dualreal_core.method.pair import ROLES, AdapterPair, iterate_sides
from ..dualreal_core.plots.heat_map import blend_map
from .base_weights import with_beside
from .expert_parts import differences_from, part_for
from .gate_words import GATE, on_gate
from .model_file import model_file
from .model_inputs import check_references
from .patching import Strengths, applied_pairs, apply_pair, diffusion_model
from .progress import told
from .sampled_part import record_of, run_behind
from .types import CATEGORY, FOR_BLEND, BesideWeight, BlendType, PairType, TrainedPair

CURVES = "curves"
CURVE_POINTS = 33
NEGATIVE_CHOICES = ("plain base", "adapted")


def blending_inputs() -> list[io.Input]:
    """How a pair acts, on whatever it is put: inputs of the nodes that do so, in their order."""
    return [
        io.Float.Input(
            "identity_strength", default=1.0, min=0.0, max=4.0, step=0.05,
            tooltip="Factor on the identity's weights, 0 to 4. 1 is as trained; 0 leaves the identity out.",
        ),
        io.Float.Input(
            "motion_strength", default=1.0, min=0.0, max=4.0, step=0.05,
            tooltip="Factor on the motion's weights, 0 to 4. 1 is as trained; 0 leaves the motion out.",
        ),
        io.Float.Input(
            "start_percent", default=0.0, min=0.0, max=1.0, step=0.01, advanced=True,
            tooltip="Where in denoising the pair begins to act, as a share from 0 (pure noise) to 1 (clean).",
        ),
        io.Float.Input(
            "end_percent", default=1.0, min=0.0, max=1.0, step=0.01, advanced=True,
            tooltip="Where in denoising the pair stops acting, as a share from 0 (pure noise) to 1 (clean).",
        ),
        io.Combo.Input(
            "negative", options=list(NEGATIVE_CHOICES), default=NEGATIVE_CHOICES[0], advanced=True,
            tooltip="What the negative prompt sees. 'plain base' guides away from the model without the pair, which strengthens "
            "what the pair has learned; 'adapted' is the paper's way. At cfg 1 no negative prompt is computed: it does nothing.",
        ),
        BlendType.Input(
            "blend", optional=True,
            tooltip="Blend Curves, Fixed Blend or Schedule Blend. Without one, the pair's own weights hold: its share schedule or "
            "network (or an even blend).",
        ),
        io.ClipVisionOutput.Input(
            "reference", optional=True,
            tooltip="Image embedding of the identity, for a bottleneck that was trained with references; ignored by others.",
        ),
    ]  # fmt: skip


def follow_prompt_input() -> io.Input:
    """Whether a pair's prompt gate has a say; the last input of nodes that put a pair on a model."""
    return io.Boolean.Input(
        "follow_prompt", default=True, optional=True, advanced=True,
        tooltip="Of a pair with a prompt gate: each side acts only on prompts that name it. Off: both act on every prompt. A pair without "
        "a gate always does.",
    )  # fmt: skip


class ApplyStageBlender(io.ComfyNode):
    """Puts a pair on a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealApplyStageBlender",
            display_name="Apply StageBlender",
            category=CATEGORY,
            description="Puts a pair on a model: its identity and motion act in every block, weighted per denoising stage and depth.",
            search_aliases=["dualreal", "blend lora", "identity motion", "stage blender"],
            inputs=[
                io.Model.Input("model", tooltip="The video model that the pair was trained on."),
                PairType.Input("pair", tooltip="An identity and a motion: from the Joint Trainer, Load Pair or Combine."),
                *blending_inputs(),
                io.Float.Input(
                    "audio_strength", default=0.0, min=0.0, max=4.0, step=0.05, optional=True, advanced=True,
                    tooltip="Factor on what the pair does to the sound, in models that make one (LTX-2, MiniMax-H3). 0 adds nothing to it; "
                    "it still follows the picture. 1 is as a LoRA loader would.",
                ),
                follow_prompt_input(),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the pair at work. The input stays as it is.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, pair: TrainedPair, identity_strength, motion_strength, start_percent, end_percent, negative, blend=None, reference=None,
        audio_strength=0.0, follow_prompt=True,
    ) -> io.NodeOutput:  # fmt: skip
        if start_percent >= end_percent:
            raise InputError(f"start_percent {start_percent} is not below end_percent {end_percent}: the pair would never act.")
        with torch.inference_mode(False):  # so that a pair can also be trained on a model which has one
            own = copy.deepcopy(pair.pair)
        adapts_negative = negative == NEGATIVE_CHOICES[1]
        strengths = Strengths(
            identity_strength, motion_strength, start_percent, end_percent, adapts_negative, audio_strength, follow_prompt
        )
        own, said_of_part = part_for(own, model)
        weights = None if blend is None else blend.blend(own.config)
        patched = apply_pair(model, own, strengths, weights, condition_for(own, reference), pair.header.get(GATE))
        beside = [one for one in pair.beside if one.expert in (None, named_expert(model_file(model)))]
        with_beside(patched, beside, strengths)
        differences = differences_from(pair.header, model)
        for difference in differences:
            logging.warning(difference)
        silence = "" if audio_strength else silent_on_sound(own, diffusion_model(model), beside)
        gate = on_gate(own, pair.header) if follow_prompt else ""
        said = " ".join(filter(None, (said_of_part, gate, *differences, silence)))
        return io.NodeOutput(patched, ui=told(said)) if said else io.NodeOutput(patched)


class FixedBlend(io.ComfyNode):
    """The same share at every step and in every block."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealFixedBlend",
            display_name="Fixed Blend",
            category=CATEGORY,
            description="Gives identity and motion the same shares at every step and in every block.",
            inputs=[
                io.Float.Input(
                    "identity_share", default=0.5, min=0.0, max=1.0, step=0.01, display_mode=io.NumberDisplay.slider,
                    tooltip="Share of the identity, 0 to 1; the rest is the motion's. 0.5 is even.",
                )
            ],
            outputs=[BlendType.Output(display_name="blend", tooltip=FOR_BLEND)],
        )  # fmt: skip

    @classmethod
    def execute(cls, identity_share: float) -> io.NodeOutput:
        return io.NodeOutput(SharePlan((identity_share,)))


class ScheduleBlend(io.ComfyNode):
    """Shares that follow a curve over denoising and one over depth."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        even = [(0.0, 0.5), (1.0, 0.5)]
        return io.Schema(
            node_id="DualRealScheduleBlend",
            display_name="Schedule Blend",
            category=CATEGORY,
            description="Draws the identity's share over denoising and over depth: a preset, or two curves.",
            inputs=[
                io.Combo.Input(
                    "preset", options=[*PLANS, CURVES], default="movement first",
                    tooltip="'movement first': the motion leads early, the identity late; chosen in the toy world. 'paper trend' "
                    "follows the paper's report. 'curves' uses both curves below; every other preset leaves them aside.",
                ),
                io.Curve.Input(
                    "stage_curve", default=even, optional=True, socketless=False,
                    tooltip="Identity share (0 to 1, up) over denoising (0 noise to 1 clean, right). Used with the preset 'curves'.",
                ),
                io.Curve.Input(
                    "depth_curve", default=even, optional=True, socketless=False,
                    tooltip="Identity share (0 to 1, up) over depth (0 first to 1 last blocks, right); its distance from 0.5 is added to "
                    "the stage curve's. Used with the preset 'curves'.",
                ),
            ],
            outputs=[BlendType.Output(display_name="blend", tooltip=FOR_BLEND)],
        )  # fmt: skip

    @classmethod
    def execute(cls, preset: str, stage_curve=None, depth_curve=None) -> io.NodeOutput:
        return io.NodeOutput(SharePlan(_shares(stage_curve), _shares(depth_curve)) if preset == CURVES else PLANS[preset])


class BlendMap(io.ComfyNode):
    """Shows the weights that were used."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealBlendMap",
            display_name="Blend Map",
            category=CATEGORY,
            description="The weights that were really used, by all samplers of the run: denoising stage across, block groups down.",
            not_idempotent=True,
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL of the sampler, from Apply StageBlender or Blend Two LoRAs."),
                io.Latent.Input("latent", tooltip="The (last) sampler's output: tells the run that is shown, and that it is done."),
                io.Model.Input(
                    "low_noise_model", optional=True,
                    tooltip="For two experts (Wan 2.2 A14B): the other MODEL. Where one node made both it is needed only "
                    "where the pair has a side for one expert alone. Either MODEL may be without a pair.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Heat map of the identity's share."),
                io.String.Output(
                    display_name="data", tooltip="JSON: stages (0 to 1), and identity and motion weights as [stage][group]."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, latent, low_noise_model=None) -> io.NodeOutput:
        carried = [applied_pairs(one) for one in (model, low_noise_model) if one is not None]
        is_one = low_noise_model is not None and model.is_clone(low_noise_model)
        if not any(carried) or (is_one and not all(carried)):  # of two experts, one may have been left as it is
            raise InputError("This model carries no pair: connect that of Apply StageBlender or Blend Two LoRAs.")
        shown = list(dict.fromkeys(pairs[-1] for pairs in carried if pairs))
        parts = list({id(part): part for applied in shown for part in applied.parts}.values())  # two experts may share theirs
        if not parts:
            raise InputError("No sampling was recorded yet: connect the same MODEL to the sampler, and the sampler's LATENT here.")
        configs = [applied.pair.config for applied in shown]
        if len({config.num_groups for config in configs}) > 1:
            groups = " and ".join(str(config.num_groups) for config in configs)
            raise InputError(f"The pairs of the two MODELs weigh {groups} groups of blocks: give each MODEL a Blend Map of its own.")
        run = run_behind(latent["samples"], parts)
        record = record_of(run)
        table, positions = record.table(), record.positions()  # (S, G, 2)
        picture = blend_map(table, configs[0].scale, "Blend that was used", positions, run[-1].end_stage)
        image = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32) / 255)[None]
        stages = [round(stage, 5) for stage in positions]
        weights = {role: [[round(float(value), 5) for value in row] for row in table[..., index]] for index, role in enumerate(ROLES)}
        notes = list(dict.fromkeys(part.note for part in run if part.note))
        data = {"stages": stages, **weights, **({"notes": notes} if notes else {})}
        said = told(" ".join(notes)).as_dict() if notes else {}
        return io.NodeOutput(image, json.dumps(data), ui={**ui.PreviewImage(image, cls=cls).as_dict(), **said})


def condition_for(pair: AdapterPair, reference) -> torch.Tensor | None:
    """The reference embedding (1, E) for sides that read one.

    Raises:
        InputError: it is none, or of another width.
    """
    widths = {pair.config.condition_dim(role) for role in ROLES} - {None}
    if reference is None or not widths:
        return None
    check_references([reference], "reference")
    embedding = reference.image_embeds[:1]
    if {embedding.shape[-1]} != widths:
        raise InputError(
            f"The reference embedding is {embedding.shape[-1]} wide, and the pair was trained with {', '.join(map(str, widths))}: "
            "load the CLIP vision model that was used in training."
        )
    return embedding


def silent_on_sound(pair: AdapterPair, transformer: nn.Module, beside: Sequence[BesideWeight] = ()) -> str:
    """A sentence where adapters of a pair, or what comes with them, would change the sound, to be said where they do not; else empty."""
    family = family_of(transformer)
    if family.audio_tokens is not None:
        return "The pair adds nothing to the sound: raise audio_strength where it should."
    layers = {(index, layer) for _, index, layer, _ in iterate_sides(pair)}
    heard = {one.update.path: one.update.is_audio for one in beside}
    count = sum(family.audio_modules.get(family.audio_module(layer), False) for _, layer in layers) + sum(heard.values())
    if not count:
        return ""
    whole = len(layers) + len(heard)
    return f"{count} of the {whole} layers that the pair changes make the sound and are left as they are: raise audio_strength."


def _shares(curve: object) -> tuple[float, ...]:
    if curve is None:
        return (0.5,)
    values = CurveInput.from_raw(curve).to_lut(CURVE_POINTS)
    return tuple(float(value) for value in np.clip(values, 0.0, 1.0))


NODES: list[type[io.ComfyNode]] = [ApplyStageBlender, FixedBlend, ScheduleBlend, BlendMap]
