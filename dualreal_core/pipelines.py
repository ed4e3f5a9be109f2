"""A pair on a stock diffusers pipeline: `with applied(pipe, pair): video = pipe(prompt)`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from diffusers import DiffusionPipeline
from torch import nn

from .bases.noise_schedules import objective_of
from .errors import InputError
from .method.attach import Attachment
from .method.blend import Blend, BlendRecord, LearnedBlend
from .method.experts import experts_of, is_expert_pair
from .method.interception import Interception, Interceptor
from .method.pair import ROLES, AdapterPair
from .method.placement import placed

TRANSFORMERS = ("transformer", "transformer_2")
"""Names of DiTs in pipelines; those of Wan 2.2 have one for the first part of denoising and one for the rest."""
JOINT = "cond_uncond"
"""What pipelines call a call for both prompts, whose rows are the negative prompt's and then the prompt's."""
UNWANTED = ("uncond", "pred_uncond")
"""What they call one for the negative prompt alone."""


@contextmanager
def applied(
    pipe: DiffusionPipeline,
    pair: AdapterPair | Mapping[str, AdapterPair],
    *,
    strengths: tuple[float, float] = (1.0, 1.0),
    blend: Blend | None = None,
    condition: torch.Tensor | None = None,
    adapts_negative: bool = False,
    audio_strength: float = 0.0,
    follows_prompt: bool = True,
    record: BlendRecord | None = None,
) -> Iterator[None]:
    """A pair acts in a pipeline's DiTs inside, at the stage of denoising of each call; outside, the pipeline is as it was.

    The DiT may be compiled or offloaded before; the pair comes to the device that it computes on, as a copy. Several may be nested.

    Args:
        pair: acts in every DiT of the pipeline, one for two experts by its parts; or pairs by the name of the DiT, as
            {"transformer_2": pair}, in these alone.
        strengths: factors on the identity and the motion weights.
        blend: weights other than the pair's own.
        condition: reference embedding (E,) or (1 or B, E) for conditioned sides; B is the number of prompts, or of videos.
        adapts_negative: whether the pair also acts on the negative prompt. Where it does not, guidance moves away from the plain model.
        audio_strength: factor on what the pair does to the sound of models that have one.
        follows_prompt: whether the prompt gates of pairs that have one scale the weights by what each prompt names.
        record: collects the weights that are used for the prompt.

    Raises:
        InputError: the pipeline has no DiT that the pair was made for, or the condition is of another width than the pair reads.
    """
    transformers = {name: getattr(pipe, name) for name in TRANSFORMERS if getattr(pipe, name, None) is not None}
    if getattr(pipe, "scheduler", None) is None or not transformers:
        raise InputError(f"{type(pipe).__name__} has no transformer and scheduler: give a diffusers pipeline of a video DiT.")
    pairs = dict(pair) if isinstance(pair, Mapping) else _for_each(pair, transformers)
    if not pairs or (unknown := sorted(set(pairs) - set(transformers))):
        wrong = f"no {unknown[0]!r}, but" if pairs else "for its pairs"
        raise InputError(f"{type(pipe).__name__} has {wrong} {', '.join(transformers)}: name one of these for each pair.")
    for name, own in pairs.items():
        _check_experts(name, own)
        if condition is not None:
            _check_condition(condition, own)
    with ExitStack() as stack:
        for name, own in pairs.items():
            seen, transformer = transformers[name], getattr(transformers[name], "_orig_mod", transformers[name])
            sides = dict(zip(ROLES, strengths, strict=True))
            calls = _Calls(pipe, transformer, own, sides, blend, condition, adapts_negative, audio_strength, follows_prompt, record)
            stack.callback(calls.detach)
            stack.enter_context(_named(transformer, calls))
            stack.callback(Interception(seen, calls).remove)
        yield


def _for_each(pair: AdapterPair, names: Collection[str]) -> dict[str, AdapterPair]:
    """A pair by the names of a pipeline's DiTs, of which a pair for as many experts has a part each."""
    parts = experts_of(pair)
    return dict(zip(names, parts if len(parts) == len(names) else [pair] * len(names), strict=True))


def _check_experts(name: str, pair: AdapterPair) -> None:
    if is_expert_pair(pair):
        experts, index = pair.config.experts, TRANSFORMERS.index(name)
        raise InputError(
            f"The pair is for {len(experts)} experts ({', '.join(experts)}), and the pipeline's {name} is one DiT: "
            f'give {{"{name}": expert_of(pair, {index})}}.'
        )


def _check_condition(condition: torch.Tensor, pair: AdapterPair) -> None:
    for role in pair.sides:
        wanted = pair.config.condition_dim(role)
        if wanted is not None and condition.shape[-1:] != (wanted,):
            raise InputError(
                f"The pair reads reference embeddings of width {wanted}, but condition is of shape {tuple(condition.shape)}: "
                "make it by the image encoder that the pair was trained with, or give none."
            )


class _Calls(Interceptor):
    """Tells a pair, before each call of a DiT, where in denoising it is and which rows are the prompt's.

    Attributes:
        name: what the pipeline calls the current call; None where it has no names for its calls.
        run: the scheduler's timesteps of the current run of the pipeline, which makes them anew at the start of each.
        step: timestep and prompt of the current step of that run.
        num_prompted: rows of the prompt alone in that run's calls for both prompts; None before the first.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        transformer: nn.Module,
        pair: AdapterPair,
        strengths: Mapping[str, float],
        blend: Blend | None,
        condition: torch.Tensor | None,
        adapts_negative: bool,
        audio_strength: float,
        follows_prompt: bool,
        record: BlendRecord | None,
    ) -> None:
        self.pipe, self.transformer, self.pair, self.blend, self.record = pipe, transformer, pair, blend, record
        self.strengths, self.audio_strength, self.adapts_negative = strengths, audio_strength, adapts_negative
        self.follows_prompt = follows_prompt
        reads = any(pair.config.condition_dim(role) is not None for role in pair.sides)
        self.condition = condition.reshape(-1, condition.shape[-1]) if reads and condition is not None else None
        self.conditioned: tuple[Attachment, int, int] | None = None
        self.signature = inspect.signature(transformer.forward)
        self.name: str | None = None
        self.run: torch.Tensor | None = None
        self.step: tuple[float, torch.Tensor | None] | None = None
        self.num_prompted: int | None = None
        self.device = next((weight.device for weight in pair.sides.parameters()), torch.device("cpu"))
        self.attachment = self._attached(pair, blend)

    def detach(self) -> None:
        """Takes the pair out of the DiT."""
        self.attachment.detach()

    @torch.compiler.disable
    def before(self, args: tuple, kwargs: dict) -> None:
        given = self.signature.bind_partial(*args, **kwargs).arguments
        latents, timestep = given["hidden_states"], torch.as_tensor(given["timestep"])
        self._place(latents.device)
        if (timesteps := getattr(self.pipe.scheduler, "timesteps", None)) is not self.run:
            self.run, self.step, self.num_prompted = timesteps, None, None
        rows = latents.shape[0]
        noisiest = timestep.detach().reshape(rows if timestep.numel() % rows == 0 else 1, -1).amax(dim=1).float().cpu()
        objective = objective_of(self.pipe.scheduler)
        stages, levels = objective.stage(noisiest).clamp(0, 1), objective.noise_level(noisiest).clamp(0, 1)
        is_wanted = self._wanted(rows, float(noisiest.max()), given.get("encoder_hidden_states"))
        self._give_condition(rows, sum(is_wanted) or rows)
        attachment = self.attachment
        attachment.row_strengths = None if self.adapts_negative else [float(one) for one in is_wanted]
        is_one = len(set(stages.tolist())) == 1
        attachment.move_to(*((float(stages[0]), float(levels[0])) if is_one else (stages, levels)))
        attachment.record = self.record if any(is_wanted) else None

    @torch.compiler.disable
    def after(self, args: tuple, kwargs: dict, output: object) -> object:
        self.attachment.finish_call()
        return output

    def _wanted(self, rows: int, timestep: float, text: torch.Tensor | None) -> list[bool]:
        """For each row whether it is one of what is asked for, and not of what to keep away from."""
        if self.name == JOINT:
            if self.num_prompted is None:  # asked once, as some pipelines change their guidance_scale on the way and not their rows
                is_guided = getattr(self.pipe, "do_classifier_free_guidance", None)
                is_guided = self.pipe.guidance_scale > 1 if is_guided is None else is_guided
                self.num_prompted = rows // 2 if is_guided else rows
            return [row >= rows - self.num_prompted for row in range(rows)]
        if self.name is not None:
            return [self.name not in UNWANTED] * rows
        if self.step is None or self.step[0] != timestep:  # pipelines without names call the DiT with the prompt first
            self.step = timestep, text
        return [text is self.step[1]] * rows

    def _give_condition(self, rows: int, num_videos: int) -> None:
        """Has each row read the condition of its video; a call for both prompts holds all videos twice."""
        if self.condition is None:
            return
        if len(self.condition) == 1:  # all rows read it
            rows = num_videos = 1
        if self.conditioned == (self.attachment, rows, num_videos):
            return
        num_each, rest = divmod(num_videos, len(self.condition))
        if rest:
            raise InputError(
                f"The pipeline makes {num_videos} videos at once, and condition holds {len(self.condition)} reference embeddings: "
                "give one for all, or one for each prompt."
            )
        condition = self.condition.repeat_interleave(num_each, dim=0).repeat(rows // num_videos, 1)
        self.attachment.condition = condition.to(next(self.attachment.pair.sides.parameters()))
        self.conditioned = self.attachment, rows, num_videos

    def _place(self, device: torch.device) -> None:
        """Brings the pair to where the DiT computes now."""
        if device != self.device:
            self.attachment.detach()
            blend = self.blend
            if isinstance(blend, LearnedBlend):
                blend = LearnedBlend(copy.deepcopy(blend.controller).to(device=device))
            self.attachment, self.device = self._attached(placed(self.pair, device), blend), device

    def _attached(self, pair: AdapterPair, blend: Blend | None) -> Attachment:
        attachment = Attachment(self.transformer, pair, blend)
        try:
            attachment.strengths, attachment.audio_strength = self.strengths, self.audio_strength
            attachment.follows_prompt = self.follows_prompt
        except BaseException:
            attachment.detach()
            raise
        return attachment


@contextmanager
def _named(transformer: nn.Module, calls: _Calls) -> Iterator[None]:
    """Has calls know the name by which a pipeline announces each of them; diffusers' caches are told as before."""
    announce = getattr(transformer, "cache_context", None)
    if announce is None:
        yield
        return

    @contextmanager
    def cache_context(name: str, *args: object, **kwargs: object) -> Iterator[None]:
        with announce(name, *args, **kwargs):
            calls.name = name
            try:
                yield
            finally:
                calls.name = None

    outer = vars(transformer).get("cache_context")
    transformer.cache_context = cache_context
    try:
        yield
    finally:
        del transformer.cache_context
        if outer is not None:
            transformer.cache_context = outer
