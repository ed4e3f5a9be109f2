"""The Joint Trainer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path

import comfy.model_management
import comfy.sd
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..dualreal_core.api import Training, fit_recipe
from ..dualreal_core.bases.two_experts import TwoExpertBase, expert_fields, record_of
from ..dualreal_core.dataset.cache import PreparedSet
from ..dualreal_core.errors import InputError
from ..dualreal_core.gating.words import SideWords
from ..dualreal_core.method.pair import Role, base_sizes
from ..dualreal_core.storage import save_pair
from ..dualreal_core.storage.renames import former_pair_settings
from ..dualreal_core.training.loop import ALGORITHM_VERSION
from ..dualreal_core.training.recipes import Recipe
from ..dualreal_core.training.run import RunDirectory
from .comfy_base import ComfyBase
from .encoding import captions_of
from .gate_fitting import with_fitted_gate
from .gate_words import sides_of, words_of_captions
from .model_file import model_file
from .model_inputs import check_references
from .neighbours import sentence_on_training
from .train_preview import TrainingView
from .training_experts import applied_by, both_experts, boundary_between
from .training_model import ready_to_train
from .types import CATEGORY, LossMapType, PairType, SettingsType, TrainedPair, TrainerSettings

RUN_NAME = re.compile(r"[\w][\w .-]{0,99}")


class JointTrainer(io.ComfyNode):
    """Trains an identity and a motion together on the MODEL that is wired."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealJointTrainer",
            display_name="Joint Trainer",
            category=CATEGORY,
            description="Trains an identity and a motion together. Interrupted, it saves; run again, it continues exactly where it was.",
            search_aliases=["dualreal", "train lora", "video lora", "identity motion training"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model", 
                    tooltip="The video model: Wan 2.1 or 2.2, LTX-Video, LTX-2, HunyuanVideo, CogVideoX, MiniMax-H3 or Kandinsky 5, from "
                    "text or from an image. It is not changed."),
                SettingsType.Input("settings", tooltip="From Training Settings."),
                io.Latent.Input("identity_latents", tooltip="One latent per photo, from Identity Dataset or a stock dataset node."),
                io.Conditioning.Input("identity_conditioning", tooltip="One caption per photo, or a single one for all."),
                io.Latent.Input("motion_latents", tooltip="One latent per clip, from Motion Dataset or a stock dataset node."),
                io.Conditioning.Input("motion_conditioning", tooltip="One caption per clip, or a single one for all."),
                io.String.Input("name", default="my pair",
                    tooltip="Names the run's folder in output/dualreal/runs: letters, digits, spaces, dots, dashes."),
                io.Mask.Input("identity_masks", optional=True,
                    tooltip="One mask per photo, 1 where the subject is: the background then counts a tenth."),
                io.ClipVisionOutput.Input("motion_references", optional=True,
                    tooltip="One image embedding per clip: lets the motion side tell a clip's appearance from its movement. For the "
                    "adapter 'bottleneck'; a LoRA takes none."),
                io.Conditioning.Input("preview_conditioning", optional=True,
                    tooltip="A prompt to sample from the half-trained pair whenever a preview is due; needs the VAE as well."),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the sample of a preview."),
                io.Model.Input("low_noise_model", optional=True,
                    tooltip="The low-noise expert of Wan 2.2, where model is the high-noise one: one run then trains a pair for both, in "
                    "turns. One of them is on the device at a time."),
                io.Clip.Input("clip", optional=True,
                    tooltip="The text encoder of the model: the pair then gets a prompt gate by the captions of the dataset nodes, so that "
                    "each side acts only on prompts that name it. For words of your own use Prompt Gate."),
            ],
            outputs=[
                PairType.Output(display_name="pair", tooltip="The trained pair, for Apply StageBlender and Save Pair."),
                LossMapType.Output(display_name="loss_map", tooltip="Loss of each step on its own data, for the stock Plot Loss Graph."),
                io.Int.Output(display_name="steps", tooltip="The step that training reached."),
                io.String.Output(display_name="report",
                    tooltip="What limits the result, with the numbers it rests on; empty without evaluations."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, settings, identity_latents, identity_conditioning, motion_latents, motion_conditioning, name,
        identity_masks=None, motion_references=None, preview_conditioning=None, vae=None, low_noise_model=None,
        clip=None,
    ) -> io.NodeOutput:  # fmt: skip
        wanted: TrainerSettings = settings[0]
        references = _wired(motion_references)
        if references and wanted.recipe.pair["motion_kind"] == "lora":
            raise InputError(
                "motion_references are wired, and a LoRA cannot take them: set adapter to 'bottleneck' in Training Settings, or unwire "
                "them."
            )
        check_references(references, "motion_references")
        width = int(references[0].image_embeds.shape[-1]) if references else None
        low = next(iter(_wired(low_noise_model)), None)
        captions = {"identity": captions_of(identity_conditioning), "motion": captions_of(motion_conditioning)}
        words = words_of_captions(captions)
        models, boundary = ([model[0]], None) if low is None else ([model[0], low], boundary_between(model[0], low))
        with ExitStack() as stack:
            base = ComfyBase(stack.enter_context(ready_to_train(model[0])), width)
            data = {
                "identity": base.prepare("identity", identity_latents, identity_conditioning, _wired(identity_masks)),
                "motion": base.prepare("motion", motion_latents, motion_conditioning, (), references),
            }
            if low is not None:
                base = both_experts(base, low, boundary, stack)
            num_groups = min(wanted.recipe.pair["num_groups"], base_sizes(base.architecture)["num_blocks"])
            recipe = replace(wanted.recipe, pair={**wanted.recipe.pair, "num_groups": num_groups})
            recipe, notes = fit_recipe(base, recipe, base.architecture, model_file(model[0]))
            directory, note = _run_directory(name[0], base, data, recipe)
            note = " ".join(filter(None, (note, *notes, *dict.fromkeys(map(sentence_on_training, models)))))
            view = TrainingView(cls.hidden.unique_id, base, recipe.train.steps, wanted.preview_every, note)
            view.prepare_sample(_wired(preview_conditioning), _wired(vae), data["motion"].items[0])
            made_for = {"name": base.name, "encoders": base.fingerprint, **record_of(base, list(map(model_file, models)))}
            training = Training(base, data, recipe, directory, {"base": made_for, **_prompts(words)})
            try:
                is_resumed = training.directory.settings_file.exists()
                taken = training.steps(is_resumed, save_every=wanted.save_every, on_evaluation=view.evaluated, on_note=view.noted)
                with closing(taken) as steps:
                    for done in steps:
                        view.show(done, training)
                        comfy.model_management.throw_exception_if_processing_interrupted()
                training.save(directory / "pair.safetensors")
            finally:
                training.close()
        pair = TrainedPair(training.pair.cpu().requires_grad_(False), training.result_header)
        if recipe.prompt_gate and (encoder := next(iter(_wired(clip)), None)) is not None:
            pair, said = _gated(pair, model[0], encoder, words, captions, cls.hidden.unique_id)
            save_pair(directory / "pair.safetensors", pair.pair, pair.header)
            view.noted(said)
        losses = [record["loss"] for record in training.directory.metrics()]
        step, report = len(losses), "\n".join(training.directory.report())
        shown = view.result(view.summary(step, losses, report), training, cls)
        return io.NodeOutput(pair, {"loss": losses}, step, report, ui=shown)


def _wired(values: list | None) -> list:
    """What an optional list input holds, without the empty entries of an unwired one."""
    return [value for value in values or [] if value is not None]


def _prompts(words: Mapping[Role, SideWords]) -> dict[str, object]:
    """What a pair's header says of words that name its sides."""
    named = {"trigger" if role == "identity" else role: own.names[0] for role, own in words.items()}
    return {"prompts": named} if named else {}


def _gated(
    pair: TrainedPair, model: ModelPatcher, clip: comfy.sd.CLIP, words: Mapping[Role, SideWords], captions: Mapping[Role, list[str]],
    node_id: str,
) -> tuple[TrainedPair, str]:  # fmt: skip
    """The pair with a prompt gate by the words of its captions, and what is to be said of it; without one where they tell none."""
    known = {role: own for role, own in words.items() if role in sides_of(pair.pair)}
    if not known:
        return pair, "The pair has no prompt gate, as its captions tell no words that name a side: give some in Prompt Gate."
    spoken = [*captions["identity"], *captions["motion"]]
    gated, said = with_fitted_gate(pair, model, clip, known, node_id, spoken, words_input="{role}_words of Prompt Gate")
    return gated, " ".join(said)


def _run_directory(name: str, base: ComfyBase | TwoExpertBase, data: dict[Role, PreparedSet], recipe: Recipe) -> tuple[Path, str]:
    """The folder of this very run, and a sentence on how it relates to others of its name.

    The folder is named by everything that decides the result: the same graph finds its run again, another one starts its own.
    """
    if not RUN_NAME.fullmatch(name) or ".." in name:
        raise InputError(f"{name!r} cannot name a run: use letters, digits, spaces, dots and dashes, without slashes.")
    asked = {
        "algorithm_version": ALGORITHM_VERSION, "base": base.fingerprint, "condition": base.condition_dim,
        "objective": asdict(base.objective), "pairs": applied_by(base), "train": recipe.train.recorded(), "pair": dict(recipe.pair),
        **expert_fields(base), **{role: [*part.fingerprints] for role, part in data.items()},
    }  # fmt: skip
    runs = Path(folder_paths.get_output_directory()) / "dualreal" / "runs" / name
    keys = [
        hashlib.sha256(json.dumps({**asked, "pair": pair}, sort_keys=True).encode()).hexdigest()[:12]
        for pair in (asked["pair"], *former_pair_settings(asked["pair"]))
    ]
    key = next((one for one in keys if (runs / one / "run.json").exists()), keys[0])
    directory = runs / key
    own = RunDirectory(directory)
    if own.settings_file.exists():
        return directory, f"Continues the run {name}/{key} after step {len(own.metrics())}."
    others = sorted(path.parent.name for path in runs.glob("*/run.json"))
    if others:
        return directory, f"Starts afresh as {name}/{key}: settings, data or model differ from {', '.join(others[:3])}, which are kept."
    return directory, f"Starts the run {name}/{key}."


NODES: list[type[io.ComfyNode]] = [JointTrainer]
