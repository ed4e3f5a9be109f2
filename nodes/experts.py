"""Models of two experts, such as Wan 2.2 A14B, as one: a pair on both MODELs, and a LoRA of each expert as one side of a pair."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..dualreal_core.errors import InputError
from ..dualreal_core.families.base_record import expert_boundary
from ..dualreal_core.families.expert_names import EXPERTS, HIGH, LOOKED_FOR, LOW, lora_expert, named_expert, partners_of
from ..dualreal_core.method.experts import experts_of, join_experts
from ..dualreal_core.method.pair import ROLES, AdapterPair, Role
from .adapters import LORA_TOOLTIP, LORAS, file_in, fingerprint
from .base_weights import with_beside
from .blend import NEGATIVE_CHOICES, blending_inputs, condition_for, follow_prompt_input
from .expert_parts import differences_from
from .gate_words import GATE, on_gate
from .lora_import import experts_in, import_lora
from .model_file import model_file
from .patching import Strengths, applied_pairs, apply_pair, diffusion_model
from .progress import told
from .types import CATEGORY, PairType, TrainedPair

FOUND_BY_NAME = "found by name"
NONE = "none"
SAME_FILE = "same file"
ON_EVERY_MODEL = "load it by Load Identity LoRA or Load Motion LoRA, which act on every model that their pair is applied to"
SAME_STAGES = 1e-3
INPUTS = {HIGH: "model_high", LOW: "model_low"}
"""Inputs of nodes for two experts that take these."""


class ApplyTwoExperts(io.ComfyNode):
    """Puts a pair on both experts of a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealApplyTwoExperts",
            display_name="Apply StageBlender (two experts)",
            category=CATEGORY,
            description="Puts a pair on both experts of a model such as Wan 2.2 A14B, with one blend over the whole of denoising.",
            search_aliases=["dualreal", "wan 2.2", "high noise", "low noise", "two experts", "stage blender"],
            inputs=[
                io.Model.Input("model_high", tooltip="The high-noise model, which begins."),
                io.Model.Input("model_low", tooltip="The low-noise model, which ends."),
                PairType.Input(
                    "pair",
                    tooltip="A pair for two experts: each half acts on its model. A pair for one model acts on both.",
                ),
                *blending_inputs(),
                PairType.Input(
                    "low_pair", optional=True,
                    tooltip="Where each expert has a pair of its own: that of the low-noise model; 'pair' is then that of the other.",
                ),
                follow_prompt_input(),
            ],
            outputs=[
                io.Model.Output(display_name="model_high", tooltip="For the first sampler. The input stays as it is."),
                io.Model.Output(display_name="model_low", tooltip="For the second sampler. The input stays as it is."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model_high, model_low, pair: TrainedPair, identity_strength, motion_strength, start_percent, end_percent, negative, blend=None,
        reference=None, low_pair: TrainedPair | None = None, follow_prompt=True,
    ) -> io.NodeOutput:  # fmt: skip
        if start_percent >= end_percent:
            raise InputError(f"start_percent {start_percent} is not below end_percent {end_percent}: the pair would never act.")
        adapts_negative = negative == NEGATIVE_CHOICES[1]
        strengths = Strengths(
            identity_strength, motion_strength, start_percent, end_percent, adapts_negative, follows_prompt=follow_prompt
        )
        models = {HIGH: model_high, LOW: model_low}
        said, patched, parts = swapped(models), dict(models), halves(pair, low_pair)
        for expert, (own, header) in parts.items():
            model = models[expert]
            if not own.sides or not any(own.sides.values()):
                said.append(f"The pair has no side for the {expert} expert, which stays as it is.")
                continue
            weights = None if blend is None else blend.blend(own.config)
            try:
                patched[expert] = apply_pair(model, own, strengths, weights, condition_for(own, reference), header.get(GATE))
                source = low_pair if low_pair is not None and expert == LOW else pair
                beside = [one for one in source.beside if one.expert in (None, expert)]
                with_beside(patched[expert], beside, strengths)
            except InputError as error:
                raise InputError(f"{INPUTS[expert]}: {error}") from error
            said += differences_from(header, model, expert)
        said += of_unequal_kind(models)
        said += as_one([patched[expert] for expert in models if patched[expert] is not models[expert]])
        for sentence in said:
            logging.warning(sentence)
        if follow_prompt:
            said = [*dict.fromkeys(filter(None, (on_gate(own, header) for own, header in parts.values()))), *said]
        return io.NodeOutput(patched[HIGH], patched[LOW], ui=told("\n".join(said)) if said else None)


class LoadTwoExpertLoras(io.ComfyNode):
    """A LoRA of each expert as one side of a pair."""

    CHOICES: ClassVar[list[str]] = [FOUND_BY_NAME, NONE]

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list(LORAS)
        return io.Schema(
            node_id="DualRealLoadTwoExpertLoras",
            display_name="Load LoRAs (two experts)",
            category=CATEGORY,
            description="Takes the LoRAs of both experts of a model such as Wan 2.2 A14B as one side of a pair. The second file is found "
            "by its name.",
            search_aliases=["dualreal", "wan 2.2", "high noise", "low noise", "load lora", "two experts"],
            inputs=[
                io.Model.Input("model_high", tooltip="The high-noise model. It is only looked at, not changed."),
                io.Model.Input("model_low", tooltip="The low-noise model. It is only looked at, not changed."),
                io.Combo.Input("role", options=list(ROLES), tooltip="What the LoRAs have learned: a subject (identity) or a motion."),
                io.Combo.Input("lora", options=files, tooltip=f"The LoRA of either expert, or one file with both. {LORA_TOOLTIP}"),
                io.Combo.Input(
                    "partner", options=[*cls.CHOICES, *files], default=FOUND_BY_NAME,
                    tooltip=f"The LoRA of the other expert. '{FOUND_BY_NAME}' looks for {LOOKED_FOR}; choose the file if it finds a wrong "
                    f"one, or '{NONE}' where there is one LoRA alone.",
                ),
            ],
            outputs=[
                PairType.Output(display_name="pair", tooltip="A pair for two experts with this side alone: Combine it with the other."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(
        cls, lora: str | None, partner: str | None, role: str = "", model_high: None = None, model_low: None = None
    ) -> str:
        return fingerprint_of_experts(lora, partner)

    @classmethod
    def execute(cls, model_high: ModelPatcher, model_low: ModelPatcher, role: str, lora: str, partner: str) -> io.NodeOutput:
        models = {HIGH: model_high, LOW: model_low}
        files, said = files_of_experts(lora, partner)
        pair, notes = import_experts(models, files, role)
        said = [*swapped(models), *said, *notes, *of_unequal_kind(models)]
        return io.NodeOutput(pair, ui=told("\n".join(said)))


def fingerprint_of_experts(lora: str | None, partner: str | None) -> str:
    """Changes when a file does, or another one is found as its partner; names that are wired are None, see `fingerprint`."""
    files = folder_paths.get_filename_list(LORAS)
    is_found = partner == FOUND_BY_NAME and lora is not None
    chosen = partners_of(lora, files).files if is_found else (partner,) if partner in files else ()
    return " ".join(f"{name} {fingerprint(LORAS, name)}" for name in (lora, *chosen))


def import_experts(models: dict[str, ModelPatcher], files: dict[str, str], role: Role) -> tuple[TrainedPair, list[str]]:
    """LoRAs of one or of both experts as one side of a pair for two, and what is to be said of each file.

    Args:
        files: in models/loras, by expert; one may stand for both.
    """
    found: dict[str, TrainedPair] = {}
    said = []
    for expert, file in files.items():
        found[expert], note = import_lora(models[expert], file_in(LORAS, file), role, expert)
        said += [note] if note else []
    header = {
        "source": {expert: Path(file).name for expert, file in files.items()},
        "training": {expert: one.header["training"] for expert, one in found.items()},
        "prompts": {name: text for one in reversed(found.values()) for name, text in one.header.get("prompts", {}).items()},
    }
    with torch.inference_mode(False):
        pair = pair_of(found, expert_boundary(diffusion_model(models[HIGH])))
    beside = tuple(replace(weight, expert=expert) for expert, one in found.items() for weight in one.beside)
    return TrainedPair(pair.requires_grad_(False), header, beside), said


def halves(pair: TrainedPair, low_pair: TrainedPair | None) -> dict[str, tuple[AdapterPair, dict]]:
    """What acts on each expert, as copies, with the header that is about it.

    Raises:
        InputError: two pairs are given of which one is for two experts.
    """
    sources = (pair, low_pair or pair)
    parts = [experts_of(source.pair) for source in sources]
    if low_pair is not None and any(len(own) > 1 for own in parts):
        raise InputError("A pair for two experts needs no second one: leave low_pair unconnected, or give two pairs of one expert each.")
    with torch.inference_mode(False):  # so that a pair can also be trained on a model which has one
        copies = [copy.deepcopy(own[min(index, len(own) - 1)]) for index, own in enumerate(parts)]
    return {expert: (own, source.header) for expert, own, source in zip((HIGH, LOW), copies, sources, strict=True)}


def swapped(models: Mapping[str, ModelPatcher], inputs: Mapping[str, str] = INPUTS) -> list[str]:
    """Sentences on MODELs that are of the other expert by the names of their files, or both the same.

    Args:
        inputs: that take them, by expert.
    """
    files = {expert: model_file(model) for expert, model in models.items()}
    wrong = {expert: file for expert, file in files.items() if named_expert(file) not in (None, expert)}
    if len(wrong) == len(models):
        named = ", ".join(f"{inputs[expert]} is {wrong[expert]}" for expert in EXPERTS)
        return [f"The models seem to be swapped: {named}. Wire each to the other input."]
    is_one = models[HIGH].is_clone(models[LOW])
    both = " and ".join(inputs[expert] for expert in EXPERTS)
    same = [f"{both} are the same MODEL: wire the high-noise and the low-noise model, loaded from two files."]
    return (same if is_one else []) + [
        f"{inputs[expert]} is {file}, which is the {named_expert(file)} expert by its name: wire the {expert} model there."
        for expert, file in wrong.items()
    ]


def of_unequal_kind(models: Mapping[str, ModelPatcher], inputs: Mapping[str, str] = INPUTS) -> list[str]:
    """A sentence where two MODELs are no experts of one model; see `swapped`."""
    if len({expert_boundary(diffusion_model(model)) for model in models.values()}) == 1:
        return []
    both = " and ".join(inputs[expert] for expert in EXPERTS)
    return [f"{both} are of different kinds, as text to video and image to video: wire both experts of one model."]


def as_one(models: list[ModelPatcher]) -> list[str]:
    """Has the last pairs on two MODELs keep one record of what they did; a sentence where the two have different schedules."""
    if len(models) < len(EXPERTS):
        return []
    first, second = (applied_pairs(model)[-1] for model in models)
    if first.pair.config.num_groups == second.pair.config.num_groups:  # or a Blend Map has no rows for both
        second.parts = first.parts
    tables = torch.tensor([first.schedule.sigma_table, second.schedule.sigma_table])
    if (tables[0] - tables[1]).abs().max() < SAME_STAGES:
        return []
    shifts = [getattr(model.get_model_object("model_sampling"), "shift", None) for model in models]
    of_shifts = f" (shift {shifts[0]:g} and {shifts[1]:g})" if None not in shifts else ""
    return [
        f"The two models have different noise schedules{of_shifts}, so the same noise is another stage of the blend for each: give both "
        "the same shift."
    ]


def files_of_experts(lora: str, partner: str, chosen_by: str = "partner", may_share: bool = False) -> tuple[dict[str, str], list[str]]:
    """The file for each expert, and what is to be said of how it was found.

    Args:
        chosen_by: the input that names the partner.
        may_share: that input also has `SAME_FILE`.

    Raises:
        InputError: no partner was found or several, or it is not known which expert the only file is for.
    """
    inside = experts_in(file_in(LORAS, lora))
    if len(inside) == len(EXPERTS):
        return dict.fromkeys((HIGH, LOW), lora), [f"{lora} holds the LoRAs of both experts."]
    by_name = partners_of(lora, folder_paths.get_filename_list(LORAS) if partner == FOUND_BY_NAME else [partner])
    if partner == NONE:
        expert = _told(lora)
        if expert is None:
            instead = f"choose '{SAME_FILE}' as {chosen_by} to have it on both" if may_share else ON_EVERY_MODEL
            raise InputError(
                f"{lora} does not say by its name which expert it is for (as walk_high_noise or walk_low): rename it, or {instead}."
            )
        return {expert: lora}, [f"{lora} acts on the {expert} expert, and nothing on the other one."]
    if not by_name.files and partner == FOUND_BY_NAME:
        others = f", '{SAME_FILE}' where this one is for both, as of Wan 2.1," if may_share else ","
        raise InputError(
            f"No partner of {lora} was found in its folder: looked for a file whose name differs in the expert alone ({LOOKED_FOR}), also "
            f"in folders that differ so. Choose it as {chosen_by}{others} or '{NONE}' if there is none."
        )
    if len(by_name.files) > 1:
        found = ", ".join(by_name.files)
        raise InputError(f"{len(by_name.files)} files may be the partner of {lora}: {found}. Choose one as {chosen_by}.")
    other = by_name.files[0] if by_name.files else partner
    own, others = (by_name.expert, None) if by_name.expert else (_told(lora), _told(other))
    files = {HIGH: other, LOW: lora} if (own or _opposite(others)) == LOW else {HIGH: lora, LOW: other}
    said = [f"High noise: {files[HIGH]}. Low noise: {files[LOW]}."]
    if not own and not others:
        said[0] += f" Their names do not say which is which, so {lora} is taken for the high-noise one."
    elif own == others:
        said.append(f"Both files are of the {own} expert by their names or keys, {lora} and {other}: choose another LoRA or {chosen_by}.")
    return files, said


def pair_of(found: dict[str, TrainedPair], boundary: float | None) -> AdapterPair:
    """The pairs of both experts as one; of an expert that has none it holds nothing."""
    if len(found) == len(EXPERTS):
        return join_experts(found[HIGH].pair, found[LOW].pair, boundary)
    ((expert, one),) = found.items()
    empty = AdapterPair(replace(one.pair.config, identity_kind="none", motion_kind="none"))
    return join_experts(*((one.pair, empty) if expert == HIGH else (empty, one.pair)), boundary)


def _told(lora: str) -> str | None:
    """The expert that a LoRA file is for, by its keys or else by its name."""
    inside = experts_in(file_in(LORAS, lora))
    return inside[0] if len(inside) == 1 else lora_expert(lora)


def _opposite(expert: str | None) -> str | None:
    return {HIGH: LOW, LOW: HIGH}.get(expert)


NODES: list[type[io.ComfyNode]] = [ApplyTwoExperts, LoadTwoExpertLoras]
