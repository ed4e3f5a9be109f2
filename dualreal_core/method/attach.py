"""Puts a pair into a DiT's forward pass, and takes it out again; the DiT's weights are never touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType, TracebackType

import torch
from torch import nn

from ..errors import InputError
from ..families import FamilyDescription, family_of
from .blend import Blend, BlendRecord, FixedBlend, LearnedBlend, PartOfBlend, SharePlan
from .call import Call
from .coverage import Coverage, Place, stepped_past
from .first_block import ChooseWeights, KeepEmbedding, KeepText, KeepTokens
from .interception import Interception, Interceptor
from .pair import ROLES, AdapterPair, Role, base_sizes
from .places import updates_of
from .stage_blender import Stage
from .updates import Updates


class Attachment:
    """A pair at work in a DiT, from the start until `detach`. Also a context manager: attached inside, detached after.

    The DiT may be compiled, before or after. What is set here counts from the next call on. Weights of a pair that were changed do
    so as well, in compiled code from the next time that anything is set, and where nothing counts the change (by `.data`, in
    inference mode, or other tensors in their place) from the next time that it is attached.

    Attributes:
        coverage: which of the pair's places the DiT has called.
        record: collects the weights that were used, when set; see `finish_call`.
        follows_prompt: whether the pair's prompt gate, if it has one, scales the weights of each call by what its text names.
    """

    def __init__(self, transformer: nn.Module, pair: AdapterPair, blend: Blend | None = None) -> None:
        """Attaches `pair`; without `blend`, by its controller, or on its share schedule, or each side at half its scale.

        Raises:
            InputError: the pair was made for another architecture or width.
        """
        transformer = getattr(transformer, "_orig_mod", transformer)
        check_fit(transformer, pair)
        family = family_of(transformer)
        self.pair = pair
        self.record: BlendRecord | None = None
        self.follows_prompt = True
        self.coverage = Coverage()
        self.call = Call()
        self._blend = default_blend(pair) if blend is None else _own_part(blend, pair)
        self._stage: Stage | None = None
        self._noise_level: Stage | None = None
        self._row_strengths: tuple[float, ...] | None = None
        self._given_of: tuple = ()
        self._side_weights: list[torch.Tensor] = list(pair.sides.parameters())
        self._arranged_for: tuple = ()
        self._dtype = family.compute_dtype(transformer)
        if self._side_weights and (not self._dtype.is_floating_point or self._dtype.itemsize < 2):  # stored so, computed otherwise
            self._dtype = self._side_weights[0].dtype
        acting = list(updates_of(pair, transformer, family, self.call, self.coverage))
        self._updates = [one for _, one in acting if isinstance(one, Updates)]
        self._acting = [*self._choosing(transformer, family), *acting]
        self._handles: list[Interception] = []
        self.attach()

    def attach(self) -> None:
        """Puts everything in place; does nothing where it is."""
        if self._handles:
            return
        self._side_weights, self._arranged_for = list(self.pair.sides.parameters()), ()
        try:
            for module, interceptor in self._acting:
                self._handles.append(Interception(module, interceptor))
        except BaseException:
            self.detach()
            raise
        self._give()
        self._arrange_anew()

    def detach(self) -> None:
        """Takes everything out; the DiT is then as it was. Calling it again does nothing."""
        for handle in reversed(self._handles):
            handle.remove()
        self._handles = []
        self.call.forget()
        self.call.weights = self.call.token_runs = self.call.text = self.call.named = None
        for group in self.call.groups.values():
            group.weights, group.parts = None, ()
        for update in self._updates:
            update.read = None

    @property
    def blend(self) -> Blend:
        """Where the weights come from; exchangeable at any time."""
        return self._blend

    @blend.setter
    def blend(self, blend: Blend) -> None:
        self._blend = _own_part(blend, self.pair)
        self._give()

    @property
    def stage(self) -> Stage | None:
        """Position of the next calls in denoising, 0 (noise) to 1, or (B,) of their rows; None where it is not known."""
        return self._stage

    @stage.setter
    def stage(self, stage: Stage | None) -> None:
        self.move_to(stage, None)

    @property
    def noise_level(self) -> Stage | None:
        """Factor on the noise (sigma of a flow model) in the next calls, 1 to 0, or (B,) of their rows; None where it is not known."""
        return self._noise_level

    def move_to(self, stage: Stage | None, noise_level: Stage | None) -> None:
        """Sets where in denoising the next calls are: both are one place, by the noise schedule that the host goes by."""
        self._stage, self._noise_level = stage, noise_level
        self.call.forget()
        self._give()

    @property
    def strengths(self) -> Mapping[Role, float]:
        """Factors on the weights of both sides; to be set as a whole."""
        return MappingProxyType(self.call.strengths)

    @strengths.setter
    def strengths(self, strengths: Mapping[Role, float]) -> None:
        self.call.strengths = {role: float(strengths[role]) for role in ROLES}
        self._give()
        self._arrange_anew()

    @property
    def audio_strength(self) -> float:
        """Factor on the weights of what the pair does to the sound of models that have one; 0, as at first, leaves it as it is."""
        return self.call.audio_strength

    @audio_strength.setter
    def audio_strength(self, strength: float) -> None:
        self.call.audio_strength = float(strength)
        self._arrange_anew()

    @property
    def row_strengths(self) -> tuple[float, ...] | None:
        """Factors on the weights of each row of the next calls, or None. Rows of factor 0 cost nothing."""
        return self._row_strengths

    @row_strengths.setter
    def row_strengths(self, strengths: Sequence[float] | None) -> None:
        self._row_strengths = None if strengths is None else tuple(float(one) for one in strengths)
        acts = [True] if strengths is None else [one != 0 for one in self._row_strengths]
        self.call.rows = None if all(acts) else _runs(acts)
        self._give()

    @property
    def condition(self) -> torch.Tensor | None:
        """Reference embedding (B or 1, E) of the next calls, or None."""
        return self.call.condition

    @condition.setter
    def condition(self, condition: torch.Tensor | None) -> None:
        if condition is not self.call.condition:
            self.call.condition = condition
            self._arrange_anew()

    @property
    def weights(self) -> torch.Tensor | None:
        """Weights (B, G, 2) of the current call, chosen when its first block was entered."""
        return self.call.weights

    @property
    def named(self) -> torch.Tensor | None:
        """How far the prompts of the current call name each side (B or 1, 2), identity first; None where no prompt gate has a say."""
        return self.call.named

    def silent(self) -> list[Place]:
        """Places where the pair should have acted by now and has not; none, at no cost, once all have been called."""
        return self.coverage.silent(self.strengths, self.audio_strength)

    def start_over(self) -> None:
        """Has every place be called anew, as at the beginning of a sampling."""
        self.coverage.start_over()

    def finish_call(self) -> None:
        """To be called after the DiT: records the weights that were used.

        Raises:
            InputError: the DiT stepped past a place on which the pair acts.
        """
        if places := self.silent():
            raise InputError(stepped_past(places))
        if self.record is not None and self.call.weights is not None:
            self.record.add(self.call.weights, self.stage)

    @contextmanager
    def weighted(self, weights: torch.Tensor) -> Iterator[None]:
        """Uses these weights (B, G, 2) inside, where no block has just chosen them: a block that is run again to go back through.

        Condition and strengths are those that are set, so a pass back is to follow its call before they are set anew.
        """
        kept = self.call.weights, self.call.uses_autograd
        self.call.use(weights, True)
        try:
            yield
        finally:
            if kept[0] is not None:
                self.call.use(*kept)

    def __enter__(self) -> Attachment:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    def prepare(self) -> None:
        """Brings what a call reads up to date; one that is not compiled does so itself."""
        self._give()
        if not torch.is_grad_enabled():
            self._arrange()

    def _choosing(self, transformer: nn.Module, family: FamilyDescription) -> Iterator[tuple[nn.Module, Interceptor]]:
        """The modules by which the blend and the prompt gate choose the weights of a call."""
        if self.pair.gate is not None:
            yield transformer, KeepText(self, self.call, family)
        yield transformer.get_submodule(family.time_embedding), KeepEmbedding(self.call, self.coverage, family)
        if family.first_tokens:
            yield transformer.get_submodule(family.first_tokens), KeepTokens(self.call)
        choose = ChooseWeights(self, self.call, self.pair.config.num_groups, family, self.pair.gate)
        blocks = list(family.blocks(transformer))
        for block in (block for block, block_list in blocks if block_list is blocks[0][1]):  # some samplers leave out the very first
            yield block, choose

    def _give(self) -> None:
        """What the host knows about the next call, by one copy to the device at most."""
        device = self._side_weights[0].device if self._side_weights else torch.device("cpu")
        where = _hashable(self._stage), _hashable(self._noise_level)
        place = device, torch.is_inference_mode_enabled()  # autograd takes nothing that was made in it
        given_of = self._blend, where, tuple(self.call.strengths.values()), self._row_strengths, place
        if given_of != self._given_of:
            scheduled = self._blend.scheduled(self._stage, self._noise_level)
            strengths = torch.tensor([[one * strength for strength in given_of[2]] for one in self._row_strengths or (1.0,)])
            rows = max(len(scheduled), len(strengths))
            if {len(scheduled), len(strengths)} - {1, rows}:  # one of them is of former calls, and to be set anew
                self.call.given, self._given_of = None, ()
                return
            self.call.given = torch.cat([scheduled.expand(rows, -1), strengths.expand(rows, -1)], dim=1).to(device)
            self._given_of = given_of
        if self.call.is_compiled:
            self._arrange_anew()

    def _arrange(self) -> None:
        """Fuses the sides of each place for calls without autograd, unless that was done and nothing has changed since."""
        written = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in self._side_weights]
        condition = self.call.condition
        if condition is not None:
            written.append((condition.data_ptr(), condition.shape, 0 if condition.is_inference() else condition._version))
        acts = tuple(bool(strength) for strength in (*self.call.strengths.values(), self.call.audio_strength))
        arranged_for = acts, written
        if arranged_for != self._arranged_for:
            self.call.groups = {}
            with torch.no_grad():
                for update in self._updates:
                    update.arrange(self._dtype)
            self._arranged_for = arranged_for

    def _arrange_anew(self) -> None:
        """Arranges now; where autograd is at work, which needs nothing fused, only takes the sides that have strength."""
        if not torch.is_grad_enabled():
            self._arrange()
            return
        self.call.groups, self._arranged_for = {}, ()
        for update in self._updates:
            update.take_sides()


def default_blend(pair: AdapterPair) -> Blend:
    """The pair's own controller, or the share schedule alone that its sides were trained on, or half its scale for each."""
    if pair.controller is not None:
        return _own_part(LearnedBlend(pair.controller), pair)
    if pair.config.share_schedule:
        return SharePlan(stages=pair.config.share_schedule).blend(pair.config)
    return FixedBlend(pair.config.scale / 2, pair.config.scale / 2)


def _own_part(blend: Blend, pair: AdapterPair) -> Blend:
    """A blend as it is, or a StageBlender's of several experts for the one that a pair is the part of."""
    groups = pair.config.total_groups
    is_of_all = isinstance(blend, LearnedBlend) and blend.controller.out.out_features > groups
    return PartOfBlend(blend, pair.first_group, groups) if is_of_all else blend


def check_fit(transformer: nn.Module, pair: AdapterPair) -> None:
    """Raises InputError where a pair was made for another kind or size of DiT, or for several that take turns."""
    if pair.config.experts:
        raise InputError(
            f"The pair is for a model of {len(pair.config.experts)} experts ({', '.join(pair.config.experts)}), and this is one DiT: use "
            "Apply StageBlender (two experts) in ComfyUI, and in Python expert_of(pair, 0) for the first expert."
        )
    for name, value in base_sizes(transformer).items():
        made_for = getattr(pair.config, name)
        if made_for != value and (name != "time_dim" or pair.controller is not None):
            raise InputError(
                f"The pair was made for a base with {name} {made_for}, but this base has {name} {value}: "
                "use the base it was made for, or train a new pair."
            )


def _hashable(stage: Stage | None) -> float | tuple[float, ...] | None:
    return tuple(stage.tolist()) if isinstance(stage, torch.Tensor) else stage


def _runs(flags: Sequence[bool]) -> tuple[int | slice, ...]:
    """The runs of true flags; those of one alone as its index."""
    edges = [index for index, (flag, before) in enumerate(zip([*flags, False], [False, *flags], strict=True)) if flag != before]
    return tuple(begin if end == begin + 1 else slice(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True))
