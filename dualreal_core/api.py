"""The whole way in two calls: folders to a trained pair, and a pair to a video."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from .bases import Base
from .bases.base import check_size
from .bases.two_experts import at_work, attach, expert_fields, names_of_experts, record_of
from .dataset import Manifest, PreparedSet, prepare, scan_identity, scan_motion
from .dataset.photos import open_photo
from .errors import InputError
from .families.base_record import base_difference
from .files.cache_folder import latent_cache
from .gating.pair_gate import GateReport, GateWords, fit_prompt_gate
from .method.attach import Attachment
from .method.blend import Blend, BlendRecord
from .method.experts import base_of_expert
from .method.experts_attachment import ExpertsAttachment
from .method.pair import ROLES, AdapterPair, Role, iterate_sides, new_pair
from .sampling import SamplingSettings, default_sampling, sample
from .storage import save_pair
from .training.loop import ALGORITHM_VERSION, StepResult
from .training.noise_range import expert_ranges, fit_range
from .training.recipes import DUALREAL, Recipe, as_begun, fit_expert_steps, fit_warmup, preserving_as_begun
from .training.run import RunDirectory, run_training
from .training.scores import Evaluation
from .training.stopping import best_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainingData:
    """Where photos and clips lie, how they are captioned, the size they are used at, and the words that a prompt gate goes by, parted by
    commas, where trigger and captions do not tell them."""

    identity: Path
    motion: Path
    prompt_identity: str | None = None
    prompt_motion: str | None = None
    trigger: str = "*"
    size: tuple[int, int] | None = None
    num_frames: int | None = None
    fps: float | None = None
    identity_words: str = ""
    motion_words: str = ""

    def scan(self, base: Base, recipe: Recipe) -> dict[Role, Manifest]:
        """Looks through both folders; the reports say what will be used.

        Raises:
            InputError: a folder is unusable, or the identity prompt lacks its trigger.
        """
        size, num_frames = self.size or base.default_size, self.num_frames or base.default_num_frames
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise InputError(f"fps is {self.fps:g}: it must be a finite number above 0.")
        check_size(base, num_frames, *size)
        if num_frames < 2:
            raise InputError(f"{num_frames} frames do not fit {base.name}: clips have at least {base.frame_multiple + 1}.")
        manifests = {
            "identity": scan_identity(self.identity, self.prompt_identity, size, recipe.crops),
            "motion": scan_motion(
                self.motion, self.prompt_motion, size, num_frames, self.fps or base.default_fps, frame_multiple=base.frame_multiple
            ),
        }
        learns_identity = recipe.pair.get("identity_kind") != "none" and recipe.train.trains("identity")
        for item in manifests["identity"].items if learns_identity else ():
            require_trigger(item.caption, self.trigger, f"The caption of {item.source.path.name}")
        return manifests

    def gate_words(self, manifests: dict[Role, Manifest], recipe: Recipe) -> tuple[GateWords | None, str]:
        """What the prompt gate of such a pair is to go by; where it gets none though the recipe wants one, why, in a sentence.

        A side alone gets none, as there is no other to tell it from.
        """
        if not recipe.prompt_gate or any(recipe.pair.get(f"{role}_kind") == "none" for role in ROLES):
            return None, ""
        captions = {role: tuple(dict.fromkeys(item.caption for item in manifests[role].items)) for role in ROLES}
        try:
            words = (self.identity_words, self.motion_words, self.trigger)
            return GateWords.told(*words, captions["identity"], captions["motion"]), ""
        except InputError as problem:
            return None, f"The pair gets no prompt gate, so both sides act on every prompt. {problem}"


def require_trigger(prompt: str, trigger: str, what: str) -> None:
    """Raises InputError where a prompt lacks the word or words that stand for the identity, each a word of its own."""
    words, wanted = prompt.split(), trigger.split()
    if not any(words[place : place + len(wanted)] == wanted for place in range(len(words) - len(wanted) + 1)):
        raise InputError(f"{what}, {prompt!r}, lacks the trigger {trigger!r}: write it as a word of its own, as in 'dog {trigger}'.")


def prepare_data(
    base: Base, manifests: dict[Role, Manifest], cache: Path | None = None, progress: Progress | None = None
) -> dict[Role, PreparedSet]:
    """Latents, text and reference embeddings of both sides, computed once and kept in `cache` (default: `latent_cache`)."""
    return {role: prepare(base, manifests[role], cache or latent_cache(), progress=progress) for role in ROLES}


def check_recipe(base: Base, recipe: Recipe) -> None:
    """Finds out whether a recipe's pair can be made for a base, of which no weights are needed.

    Raises:
        InputError: it cannot, no data would train one of its sides, or no noise.
    """
    recipe, _ = fit_recipe(base, recipe, base.architecture)
    with torch.device("meta"):
        _new_pair(base, base.architecture, recipe)


def fit_recipe(base: Base, recipe: Recipe, transformer: nn.Module, file: str | None = None) -> tuple[Recipe, list[str]]:
    """The recipe as it is trained on a base, and a sentence on each thing in which that differs from what was asked for.

    Warm-up takes a fifth of the steps at most. An expert is trained at its own noise levels; two in one run take turns.

    Args:
        transformer: of the base, with or without its weights.
        file: that it comes from; default: the base's name.

    Raises:
        InputError: no noise is left to train at.
    """
    recipe, *notes = fit_warmup(recipe)
    names = names_of_experts(base)
    recipe, turns_note = fit_expert_steps(recipe, len(names))
    if names:
        ranges, turn = expert_ranges(recipe.train, base), recipe.train.expert_steps
        shown = (f"the {name} one at noise levels (sigma) {least:g} to {most:g}" for name, (least, most) in zip(names, ranges, strict=True))
        notes += [turns_note, f"Trains both experts in turns of {turn} step{'s' * (turn > 1)}: {', '.join(shown)}."]
    else:
        recipe, range_note = fit_range(recipe, base.objective, transformer, file or _name_alone(base))
        notes.append(range_note)
    return recipe, [note for note in notes if note]


class Training:
    """A training run: iterate over it for its steps, then `save` the pair.

    Attributes:
        pair: the pair in training.
        attachment: it at work in the base's DiT; sample with it between two steps if you like.
        recipe: as it is trained; see `fit_recipe`.
        notes: a sentence on each thing in which that differs from what was asked for.
    """

    def __init__(
        self, base: Base, data: dict[Role, PreparedSet], recipe: Recipe, directory: Path, header: dict[str, object] | None = None
    ) -> None:
        name, header = _name_alone(base), header or {}
        recorded = header.get("base") or {"name": name, "encoders": base.fingerprint, **record_of(base, [name])}
        self.directory = RunDirectory(directory)
        recipe, self.notes = fit_recipe(base, recipe, base.transformer)
        recipe = preserving_as_begun(recipe, self.directory.begun_fields("training"))
        recipe, self._network_note = as_begun(recipe, self.directory.begun_pair())
        self.base, self.data, self.recipe = base, data, recipe
        self.pair = _new_pair(base, base.transformer, recipe)
        self.pair.to(next(base.transformer.parameters()).device)
        self.header = {
            "base": recorded,
            "training": {"recipe": recipe.name, "algorithm_version": ALGORITHM_VERSION, **recipe.train.recorded()},
            "datasets": {role: list(data[role].fingerprints) for role in ROLES if self._sees(role)},
            **header,
        }
        self.attachment = attach(base, self.pair, transformer=base.transformer)

    def _sees(self, role: Role) -> bool:
        """Whether data of a role is trained on, by its own side or, to preserve the motion, by the identity."""
        kind, preserves = self.pair.config.kind, self.recipe.train.preservation_ratio > 0
        return kind(role) != "none" or (role == "motion" and kind("identity") != "none" and preserves)

    def steps(
        self,
        is_resumed: bool = False,
        stop_after: int | None = None,
        save_every: int = 100,
        on_evaluation: Callable[[Evaluation], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Iterator[StepResult]:
        """Trains, yielding after each step; see `run_training`. Take the steps inside `contextlib.closing`."""
        crops = {name: getattr(self.recipe, name) for name in ("num_crops", "crop_margin")}
        cuts = {role: self.data[role].cut for role in ROLES if self._sees(role)}
        asked_for = {
            **self.header,
            "base": {"name": self.base.name, "encoders": self.base.fingerprint},  # its whole path: two folders may share a name
            "pair": self.pair.config.recorded(),
            "crops": crops,
            "size, length, rate or caption of the data": cuts,
        }
        items = {role: self.data[role].items for role in ROLES}
        with self.directory.opened(asked_for, is_resumed):
            if self._network_note is not None and on_note is not None:
                on_note(self._network_note)
            yield from run_training(
                self.base, self.attachment, items, self.recipe.train, self.directory,
                is_resumed, stop_after, save_every, on_evaluation, on_note,
            )  # fmt: skip

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or training stopped early: `pair` is then the result."""
        return self.directory.is_over

    @property
    def result_header(self) -> dict[str, object]:
        """The header; it names the step of a best pair that was kept, and the steps at which the run was made longer."""
        training, longer = dict(self.header["training"]), self.directory.lengthenings()
        if self.recipe.train.save_best and self.is_over:
            training["kept_step"] = best_of(self.directory.evaluations()).step
        return {**self.header, "training": {**training, "lengthened": longer} if longer else training}

    def fit_gate(self, words: GateWords, cache: Path | None = None, progress: Progress | None = None) -> GateReport:
        """Gives the pair a prompt gate, once training is over; see `fit_prompt_gate`."""
        self.pair, report = fit_prompt_gate(self.base, self.pair, words, cache, progress)
        self.header = {**self.header, "prompt_gate": report.recorded()}
        return report

    def save(self, path: Path) -> None:
        """Writes the pair with its header."""
        save_pair(path, self.pair, self.result_header)

    def close(self) -> None:
        """Takes the pair out of the base."""
        self.attachment.detach()


def _new_pair(base: Base, transformer: nn.Module, recipe: Recipe) -> AdapterPair:
    """The untrained pair of a recipe; `transformer` with or without weights."""
    conditions = {"motion_condition_dim": base.condition_dim if recipe.conditions_motion else None}
    try:
        pair = new_pair(transformer, recipe.train.seed, **{**conditions, **recipe.pair, **expert_fields(base)})
    except ValueError as error:
        raise InputError(f"The pair cannot be made: {error}") from error
    for role in ROLES:
        if recipe.train.trains(role) and pair.config.kind(role) == "none":
            raise InputError(f"The {role} side is of kind 'none', but motion_ratio {recipe.train.motion_ratio} trains it: set 0 or 1.")
    of_sound = next((layer for _, _, layer, _ in iterate_sides(pair) if pair.family.audio_module(layer)), None)
    if of_sound is not None:
        raise InputError(
            f"target_layers names {of_sound}, which acts only where there is sound, and a pair is trained on videos without: leave it out."
        )
    return pair


def train_pair(
    base: Base,
    data: TrainingData,
    out: Path,
    recipe: Recipe = DUALREAL,
    directory: Path | None = None,
    is_resumed: bool = False,
    cache: Path | None = None,
    on_note: Callable[[str], None] | None = None,
) -> AdapterPair:
    """Trains a pair from folders and writes it to `out`; everything of the run lies in `directory` (`OUT.run`).

    Args:
        is_resumed: continues the run in `directory`, which was interrupted or is now to have more steps.
        cache: of latents, text and reference embeddings; default: `latent_cache`.
        on_note: called with a sentence on what the pair's prompt gate goes by, or on why it has none.

    Raises:
        InputError: see `TrainingData.scan`; or the run cannot be written, or continued.
    """
    directory = Path(directory or f"{out}.run")
    check_recipe(base, recipe)
    manifests = data.scan(base, recipe)
    words, note = data.gate_words(manifests, recipe)
    prepared = prepare_data(base, manifests, cache)
    prompts = {"identity": data.prompt_identity, "motion": data.prompt_motion, "trigger": data.trigger}
    training = Training(base, prepared, recipe, directory, {"prompts": prompts})
    try:
        with closing(training.steps(is_resumed)) as steps:
            for _ in steps:
                pass
        training.save(Path(out))
    finally:
        training.close()
    if words is not None:
        note = training.fit_gate(words, cache).line()
        training.save(Path(out))
    if note and on_note is not None:
        on_note(note)
    return training.pair


def generate(
    base: Base,
    pair: AdapterPair | None,
    prompt: str,
    reference_image: Path | torch.Tensor | None = None,
    seed: int | None = None,
    negative_prompt: str = "",
    blend: Blend | None = None,
    strengths: tuple[float, float] = (1.0, 1.0),
    settings: SamplingSettings | None = None,
    record: BlendRecord | None = None,
    progress: Progress | None = None,
    header: Mapping[str, object] | None = None,
    on_note: Callable[[str], None] | None = None,
    follows_prompt: bool = True,
) -> torch.Tensor:
    """Samples one video: frames (F, 3, H, W) in [-1, 1].

    Args:
        pair: None for the base alone.
        reference_image: photo of the identity (a file, or (3, H, W) in [-1, 1]) for a conditioned motion side.
        blend: weights other than the pair's own.
        seed: of the noise; default: that of `settings`.
        strengths: factors on the identity and the motion weights.
        settings: size, length, steps and guidance; default: the base's own, with seed 0.
        header: of the pair's file, which records the base that it was trained on.
        on_note: called with a sentence where that is another one than `base`, once its weights are there.
        follows_prompt: whether the pair's prompt gate, if it has one, scales both weights by what the prompt names.

    Raises:
        InputError: the image cannot be read, the pair was made for another base, or a size does not suit the base.
    """
    settings = settings or default_sampling(base)
    settings = settings if seed is None else replace(settings, seed=seed)
    check_size(base, settings.num_frames, settings.height, settings.width)
    if reference_image is not None and pair is not None:
        _check_condition(base, pair)
    attachment: Attachment | ExpertsAttachment | None = None
    try:
        if pair is not None:  # first, as all that can be wrong with it shows without the weights of the base
            attachment = attach(base, pair, blend)
            attachment.strengths = dict(zip(ROLES, strengths, strict=True))
            attachment.record, attachment.follows_prompt = record, follows_prompt
        with base.encoders(), torch.no_grad():
            text, negative = base.encode_text(prompt), base.encode_text(negative_prompt)
            condition = None
            if reference_image is not None and base.condition_dim is not None:
                condition = base.embed_image(read_reference_image(reference_image, (settings.height, settings.width)))
        recorded = base_of_expert((header or {}).get("base"), next(iter(names_of_experts(base)), ""))
        difference = base_difference(recorded, at_work(base, 0).transformer, _name_alone(base))
        if difference is not None and on_note is not None:
            on_note(difference)
        latents = sample(base, [text], negative, settings, attachment, condition, progress)
    finally:
        if attachment is not None:
            attachment.detach()
    with base.encoders(), torch.no_grad():
        return base.decode_latents(latents[0]).float().cpu()


def _name_alone(base: Base) -> str:
    """Without the places above it, as pairs are passed on."""
    return Path(base.name).resolve().name


def _check_condition(base: Base, pair: AdapterPair) -> None:
    for role in ROLES:
        wanted = pair.config.condition_dim(role)
        if wanted is not None and base.condition_dim != wanted:
            has = "no image encoder" if base.condition_dim is None else f"an image encoder of width {base.condition_dim}"
            raise InputError(
                f"The pair reads reference embeddings of width {wanted}, but {base.name} has {has}: "
                "name the one it was trained with (--image-encoder), or give no reference image."
            )


def read_reference_image(image: Path | torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A photo, cover-cropped to `size` as (height, width), as (3, H, W) in [-1, 1]."""
    if isinstance(image, torch.Tensor):
        return image
    return open_photo(Path(image)).cover(size).picture.permute(2, 0, 1) * 2 - 1
