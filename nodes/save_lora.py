"""Pairs out of ComfyUI as ordinary LoRA files."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..dualreal_core.errors import InputError
from ..dualreal_core.method.family_steps import PRESERVING, listed_steps
from ..dualreal_core.method.pair import ROLES, Role
from ..dualreal_core.storage.beside_export import BesideParts, beside_parts
from ..dualreal_core.storage.export_plan import SHIFTS, SIDES, has_own_blend, plan_export
from ..dualreal_core.storage.exported_files import Exported, ExportRequest, write_planned
from ..dualreal_core.storage.lora_forms import DTYPES, FORMS
from ..dualreal_core.storage.step_strengths import TOOLS, float_list, wan2gp_multiplier
from .adapters import LORAS, new_file
from .progress import told
from .types import CATEGORY, BlendType, PairType, TrainedPair


class SaveLora(io.ComfyNode):
    """A pair to models/loras."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealSaveLora",
            display_name="Save LoRA",
            category=CATEGORY,
            description="Writes either side of a pair, or a fixed mix of both, as an ordinary LoRA to models/loras, for Load LoRA and "
            "other programs. A blend that changes over denoising becomes its mean. Existing files are never overwritten.",
            search_aliases=["dualreal", "export lora", "merge lora", "extract lora"],
            is_output_node=True,
            inputs=[
                PairType.Input("pair", tooltip="The pair whose LoRA sides are written. Bottlenecks have no LoRA form."),
                io.Combo.Input(
                    "side", options=list(SIDES), default="mix",
                    tooltip="'mix': one file with both sides at their weights. 'both': a file of each side. Or one side alone.",
                ),
                io.Combo.Input(
                    "form", options=list(FORMS), default="comfyui",
                    tooltip="Who reads the file: 'comfyui' Load LoRA, 'diffusers' load_lora_weights, 'peft' a folder for PeftModel, "
                    "'kohya' kohya's scripts, musubi and Load LoRA.",
                ),
                io.String.Input(
                    "filename_prefix", default="lora",
                    tooltip="Beginning of the file name in models/loras; a number follows: 'lora' gives lora_00001_.safetensors. It may "
                    "name a subfolder, as in 'cats/playful'; %year%, %month%, %day%, %hour%, %minute% and %second% are filled in.",
                ),
                io.Float.Input(
                    "identity_strength", default=1.0, min=0.0, max=4.0, step=0.05,
                    tooltip="Factor on the identity's weights, 0 to 4. Without a blend 1 is the weight at an even blend.",
                ),
                io.Float.Input(
                    "motion_strength", default=1.0, min=0.0, max=4.0, step=0.05,
                    tooltip="Factor on the motion's weights, 0 to 4. Without a blend 1 is the weight at an even blend.",
                ),
                io.Combo.Input(
                    "dtype", options=list(DTYPES), default="fp32", advanced=True,
                    tooltip="Precision of the numbers in the file. 'fp32' is exact; 'bf16' and 'fp16' take half the space.",
                ),
                BlendType.Input(
                    "blend", optional=True,
                    tooltip="Weights that change over denoising and depth; the file holds their mean over denoising. Without one, the mean "
                    "of the pair's own blend where it has one, else an even blend.",
                ),
                io.String.Input(
                    "blend_data", optional=True, force_input=True,
                    tooltip="The output 'data' of Blend Map: weights that a run really used, in place of a blend.",
                ),
                io.Sigmas.Input(
                    "sigmas", optional=True,
                    tooltip="Steps of a sampling, as its scheduler gives them: the mean is over these, and the outputs have a strength for "
                    "each. Without them the mean is over 50 steps at the model's default shift.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="identity_strengths",
                    tooltip="For each step a factor on the identity's file, by which it follows the blend: floats, as '0.4, 0.4, 1.4'; a "
                    "line for each expert. Empty without 'sigmas', and for a mix.",
                ),
                io.String.Output(display_name="motion_strengths", tooltip="The same for the motion's file."),
                io.String.Output(
                    display_name="wan2gp",
                    tooltip="The same as Loras Multipliers of Wan2GP: a word for each file in the order in which they were written.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, pair: TrainedPair, side, form, filename_prefix, identity_strength, motion_strength, dtype, blend=None, blend_data=None,
        sigmas=None,
    ) -> io.NodeOutput:  # fmt: skip
        if blend is not None and blend_data:
            raise InputError("Both blend and blend_data are connected: leave one out.")
        family = pair.pair.config.family
        shift = SHIFTS.get(family, 1.0)
        denoising = None if sigmas is None else listed_steps(family, _falling(sigmas, family), shift)
        strengths = dict(zip(ROLES, (identity_strength, motion_strength), strict=True))
        plan = plan_export(pair.pair, None, blend or blend_data or None, denoising, shift, strengths)
        path, name = new_file(LORAS, filename_prefix)
        with torch.no_grad():
            beside = {role: _beside(pair, role, strengths[role]) for role in ROLES}
            written = write_planned(path, pair.pair, plan, SIDES[side], ExportRequest(form, dtype), pair.header, beside)
        folder = f" in models/{LORAS}/{name.rpartition(path.name)[0].rstrip('/')}".rstrip("/")
        said = written.lines(list(TOOLS) if sigmas is not None else ())
        if blend is None and not blend_data and not has_own_blend(pair.pair) and len(plan.weights) > 1:
            said.append("Both sides keep their weights throughout: wire a blend to this node's 'blend' to have its mean in the file.")
        said.append(f"All{folder}.")
        return io.NodeOutput(*_texts(written, sigmas is not None), ui=told("\n".join(said)))


def _beside(pair: TrainedPair, role: Role, strength: float) -> dict[str, BesideParts]:
    """By expert, what the LoRA of a side changes with a constant strength."""
    return {
        expert: beside_parts((one.update, strength) for one in pair.beside_of(role) if one.expert in (None, expert))
        for expert in pair.pair.config.experts or ("",)
        if role in pair.pair.sides
    }


def _falling(sigmas: torch.Tensor, family: str) -> list[float]:
    """The sigmas at which steps begin; what some schedulers of flow models add above 1 lies at 1."""
    return [float(sigma) if family in PRESERVING else min(float(sigma), 1.0) for sigma in sigmas.flatten().tolist()]


def _texts(written: Exported, has_steps: bool) -> tuple[str, str, str]:
    if not has_steps:
        return "", "", ""
    lists = ["\n".join(map(float_list, written.strengths.get(role, ()))) for role in ROLES]
    return lists[0], lists[1], " ".join(wan2gp_multiplier(one) for own in written.strengths.values() for one in own)


NODES: list[type[io.ComfyNode]] = [SaveLora]
