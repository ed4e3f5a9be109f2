"""A pair's prompt gate, fitted to what a CLIP makes of prompts that name its sides and of prompts that do not."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..dualreal_core.errors import InputError
from ..dualreal_core.gating.examples import make_examples
from ..dualreal_core.gating.fitting import FittedGate, fit_gate
from ..dualreal_core.gating.words import SideWords
from ..dualreal_core.method.pair import ROLES, Role, with_gate
from ..dualreal_core.method.prompt_gate import joined_gate
from .gate_words import GATE, STAND_IN, on_gate, sides_of
from .progress import Progress
from .prompt_texts import prompt_texts
from .types import TrainedPair

LOW_ACCURACY = 0.9
WORDS_INPUT = "{role}_words ('{role} acts on')"
KEPT, MAX_KEPT = "dualreal_gates", 4
"""Attachment of a CLIP's patcher with the gates that were fitted to its texts last: a strength is to be changed without doing it again."""


@dataclass(frozen=True)
class _Kept:
    model: weakref.ref[nn.Module]
    key: tuple
    fitted: FittedGate


def with_fitted_gate(
    pair: TrainedPair,
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    words: Mapping[Role, SideWords],
    node_id: str,
    captions: Sequence[str] = (),
    words_input: str = WORDS_INPUT,
) -> tuple[TrainedPair, list[str]]:
    """The pair with a gate, and what is to be said of it.

    Args:
        words: of each side that is to follow the prompt; a side without any acts on every prompt.
        node_id: of the node that shows how far it is.
        captions: of photos and clips, where they are known.
        words_input: how people find the input for the words of a `role`.

    Raises:
        InputError: there are no words, or the CLIP is not the model's.
    """
    sides = sides_of(pair.pair)
    if not words:
        inputs = " and ".join(words_input.format(role=role) for role in sides)
        raise InputError(f"Nothing says which words of a prompt name the {' or the '.join(sides)}: write them into {inputs}.")
    fitted = _fitted(model, clip, words, captions, node_id)
    with torch.inference_mode(False):
        own = fitted.gate if len(words) == len(ROLES) else joined_gate(*(fitted.gate if role in words else None for role in ROLES))
        gated = with_gate(pair.pair, copy.deepcopy(own)).requires_grad_(False)
    accuracy = {role: round(share, 4) for role, share in zip(ROLES, fitted.accuracy, strict=True) if role in words}
    names, sides_told = {role: list(own.names) for role, own in words.items()}, {role: asdict(own) for role, own in words.items()}
    record = {**names, "accuracy": accuracy, "sides": sides_told}
    right = " and ".join(f"the {role} in {share:.0%}" for role, share in accuracy.items())
    said = [on_gate(gated, {GATE: record}), f"On wordings that it was not fitted to it is right about {right}."]
    for role in sides:
        where = words_input.format(role=role)
        if role not in words:
            said.append(f"Nothing says which words name the {role}, so it acts on every prompt: write them into {where}.")
        elif accuracy[role] < LOW_ACCURACY:
            said.append(
                f"That is little for the {role}: write into {where} what other prompts do not hold, as a trigger word or a whole "
                "phrase, or several, separated by commas."
            )
    return replace(pair, pair=gated, header={**pair.header, GATE: record}), said


def _fitted(model: ModelPatcher, clip: comfy.sd.CLIP, words: Mapping[Role, SideWords], captions: Sequence[str], node_id: str) -> FittedGate:
    """Fitted anew, or kept with the CLIP from the last time."""
    patcher = getattr(clip, "patcher", None)
    key = (tuple(words.items()), tuple(captions), getattr(patcher, "patches_uuid", None), getattr(clip, "layer_idx", None))
    kept: tuple[_Kept, ...] = (patcher and patcher.get_attachment(KEPT)) or ()
    for one in kept:
        if one.key == key and one.model() is model.model:
            return one.fitted
    examples = make_examples(*(words.get(role, STAND_IN) for role in ROLES), captions)
    progress = Progress(node_id, len(examples), "Encoding prompts for the gate")
    with prompt_texts(model, clip, [example.prompt for example in examples], progress) as texts:
        progress.say("Fitting the gate.")
        fitted = fit_gate(texts, torch.tensor([example.names for example in examples]), [example.wording for example in examples])
    if patcher is not None:
        patcher.set_attachments(KEPT, (*kept, _Kept(weakref.ref(model.model), key, fitted))[-MAX_KEPT:])
    return fitted
