"""Prompt Gate: a pair that acts only on prompts that name it."""

from __future__ import annotations

from comfy_api.latest import io

from .gate_fitting import with_fitted_gate
from .gate_words import known_words
from .progress import told
from .types import CATEGORY, PairType, TrainedPair


class PromptGate(io.ComfyNode):
    """Fits a gate to a pair: which words of a prompt name which side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealPromptGate",
            display_name="Prompt Gate",
            category=CATEGORY,
            description="Has each side of a pair act only on prompts that name it. Prompts that name neither give the model's own result.",
            search_aliases=["dualreal", "trigger words", "lora bleeding", "acts on", "gate"],
            inputs=[
                io.Model.Input("model", tooltip="The video model of the pair. It is only looked at, not changed."),
                io.Clip.Input("clip", tooltip="The text encoder of the model. It encodes some hundred prompts, once."),
                PairType.Input("pair", tooltip="From the Joint Trainer, Load Pair, Combine or Blend Two LoRAs. A gate it has is replaced."),
                io.String.Input(
                    "identity_words", default="", display_name="identity acts on",
                    tooltip="Words of which a prompt must hold one for the identity to act, separated by commas: 'sks dog'. Empty: from "
                    "the pair's file, that is its trigger or the trigger words that its LoRA names.",
                ),
                io.String.Input(
                    "motion_words", default="", display_name="motion acts on",
                    tooltip="Words of which a prompt must hold one for the motion to act, separated by commas: 'plays the violin'. Empty: "
                    "from the pair's file, that is what its captions share or the trigger words that its LoRA names.",
                ),
            ],
            outputs=[PairType.Output(display_name="pair", tooltip="The pair with its gate, for Apply StageBlender and Save Pair.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, clip, pair: TrainedPair, identity_words="", motion_words="") -> io.NodeOutput:
        given = {"identity": identity_words, "motion": motion_words}
        words = known_words(pair, given)
        gated, said = with_fitted_gate(pair, model, clip, words, cls.hidden.unique_id)
        return io.NodeOutput(gated, ui=told("\n".join(said)))


NODES: list[type[io.ComfyNode]] = [PromptGate]
