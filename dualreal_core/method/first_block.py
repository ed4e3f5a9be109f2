"""How the blend comes to choose the weights of a call: by the text, the time embedding and the tokens of its first block."""

from __future__ import annotations

import itertools
from typing import Protocol

import torch

from ..errors import InputError
from ..families import FamilyDescription
from .blend import Blend
from .call import Call, Run
from .coverage import WHAT_TO_DO, Coverage
from .interception import Interceptor
from .prompt_gate import PromptGate
from .updates import partial_batch, streams_of

NO_TEXT = (
    "The pair's prompt gate reads the text that the model is called with, and this call has none: give the model a prompt, or have the "
    "pair not follow the prompt."
)


class Chooses(Protocol):
    """What an attachment has for its first block."""

    blend: Blend
    follows_prompt: bool

    def prepare(self) -> None:
        """Brings what a call reads up to date."""


class KeepText(Interceptor):
    """Keeps the text that the DiT is called with for the first block of the call.

    Code that was compiled before has bound `__call__` and looks `forward` up; what offloads has bound `forward`, and comes by `__call__`.
    """

    methods = ("__call__", "forward")

    def __init__(self, attachment: Chooses, call: Call, family: FamilyDescription) -> None:
        self.attachment, self.call, self.family = attachment, call, family

    def before(self, args: tuple, kwargs: dict) -> None:
        self.call.text = self.family.text_of(args, kwargs)
        if self.call.text is None and self.attachment.follows_prompt:
            raise InputError(NO_TEXT)


class KeepEmbedding(Interceptor):
    """Keeps the time embedding for the first block of a call."""

    def __init__(self, call: Call, coverage: Coverage, family: FamilyDescription) -> None:
        self.call, self.coverage, self.output = call, coverage, family.time_embedding_output

    def after(self, args: tuple, kwargs: dict, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        self.coverage.has_run = True
        if self.call.embedding is None:  # some bases embed a second timestep, of reference frames, afterwards
            self.call.embedding, self.call.embedded = output if self.output is None else output[self.output], args[0]
        return output


class KeepTokens(Interceptor):
    """Keeps the first tokens of a call for its first block."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def after(self, args: tuple, kwargs: dict, output: torch.Tensor) -> torch.Tensor:
        if self.call.first_tokens is None:
            self.call.first_tokens = output
        return output


class ChooseWeights(Interceptor):
    """Has the blend choose the weights of a call when its first block is entered, and the prompt gate, if there is one, scale them."""

    def __init__(self, attachment: Chooses, call: Call, num_groups: int, family: FamilyDescription, gate: PromptGate | None) -> None:
        self.attachment, self.call, self.num_groups, self.family, self.gate = attachment, call, num_groups, family, gate
        self.methods = family.methods.get("", Interceptor.methods)

    def before(self, args: tuple, kwargs: dict) -> None:
        call, family = self.call, self.family
        if call.embedding is None:  # chosen by an earlier block of this call
            if call.weights is None:
                raise InputError(f"The pair goes by {family.time_embedding}, which the model computed without calling it: {WHAT_TO_DO}.")
            return
        streams = streams_of(args, kwargs, family.block_streams)
        tokens = [streams[family.block_streams.index(name)] for name in family.controller_streams]
        if call.first_tokens is not None:
            tokens = [call.first_tokens.flatten(2).transpose(1, 2)]
        if family.is_packed:
            call.token_runs = self._token_runs(args, kwargs, len(tokens[0]))
            tokens = [stream[None] for stream in tokens]
        rows = tokens[0].shape[0]
        if torch.compiler.is_compiling():
            call.is_compiled = True
        else:
            self.attachment.prepare()
        if family.time_argument is None:
            embedding = _of_noisiest(call.embedding, call.embedded, rows)
        else:
            name, position = family.time_argument
            embedding = (kwargs[name] if name in kwargs else args[position])[:1]
        call.forget()
        if call.given is None:
            raise InputError("The stages and the strengths of rows that were set are of batches of different sizes.")
        if len(call.given) != 1 and len(call.given) != rows:
            raise InputError(partial_batch("The first block", rows, len(call.given)))
        weights = self.attachment.blend.weights(embedding, tokens, call.given[:, :-2]) * call.given[:, None, -2:]
        call.named = self._named(rows) if self.gate is not None and self.attachment.follows_prompt else None
        if call.named is not None:
            weights = weights * call.named[:, None]
        call.use(weights.expand(rows, self.num_groups, 2), torch.is_grad_enabled())

    def _named(self, rows: int) -> torch.Tensor:
        """How far the prompt of each row names each side: (B or 1, 2)."""
        text = self.call.text
        if text is None:
            raise InputError(NO_TEXT)
        if len(text) not in (1, rows):
            raise InputError(partial_batch("The first block", rows, len(text)))
        return self.gate(text)

    def _token_runs(self, args: tuple, kwargs: dict, count: int) -> tuple[Run, ...] | None:
        """All `count` tokens of a packed sample as runs of sound and of anything else; None where these are weighted alike."""
        audio, strength = self.family.audio_tokens(args, kwargs), self.call.audio_strength
        if not audio or strength == 1:
            return None
        edges = [0, *(edge for run in audio for edge in run), count]
        runs = [(begin, end, strength if index % 2 else 1.0) for index, (begin, end) in enumerate(itertools.pairwise(edges))]
        return tuple(run for run in runs if run[1] > run[0])


def _of_noisiest(embedding: torch.Tensor, embedded: torch.Tensor, rows: int) -> torch.Tensor:
    """(B, E) of embeddings (B * n, E): where frames or tokens have timesteps of their own, those of references are cleaner than the rest.

    embedded: what was embedded, timesteps (B * n,) or their sines (B * n, D), of which the slowest, which is last, rises with them.
    """
    embedding = embedding.reshape(rows, -1, embedding.shape[-1])
    if embedding.shape[1] == 1:
        return embedding[:, 0]
    noisiest = embedded.reshape(*embedding.shape[:2], -1)[..., -1].argmax(dim=1)
    return embedding[torch.arange(rows, device=noisiest.device), noisiest]
