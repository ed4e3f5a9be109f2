"""Puts a pair into a DiT's forward pass, and takes it out again; the DiT's weights are never touched."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType, TracebackType

import torch
from torch import nn

from ..errors import InputError
from ..families import BlockList, FamilyDescription, Site, family_of
from .adapter import Adapter
from .blend import Blend, BlendRecord, FixedBlend, LearnedBlend, PartOfBlend, SharePlan
from .call import Call, Run
from .coverage import WHAT_TO_DO, Coverage, Place, stepped_past
from .interception import Interception, Interceptor
from .pair import ROLES, AdapterPair, Role, base_sizes, iterate_sides
from .stage_blender import Stage
from .updates import ReadTokens, Updates, partial_batch, streams_of


class Attachment:
    """A pair at work in a DiT, from the start until `detach`. Also a context manager: attached inside, detached after.

    The DiT may be compiled, before or after. What is set here counts from the next call on. Weights of a pair that were changed do
    so as well, in compiled code from the next time that anything is set, and where nothing counts the change (by `.data`, in
    inference mode, or other tensors in their place) from the next time that it is attached.

    Attributes:
        coverage: which of the pair's places the DiT has called.
        record: collects the weights that were used, when set; see `finish_call`.
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
        self.coverage = Coverage()
        self.call = Call()
        self._blend = blend or default_blend(pair)
        self._stage: Stage | None = None
        self._row_strengths: tuple[float, ...] | None = None
        self._given_of: tuple = ()
        self._side_weights: list[torch.Tensor] = list(pair.sides.parameters())
        self._arranged_for: tuple = ()
        self._dtype = family.compute_dtype(transformer)
        if self._side_weights and (not self._dtype.is_floating_point or self._dtype.itemsize < 2):  # stored so, computed otherwise
            self._dtype = self._side_weights[0].dtype
        self._updates: list[Updates] = []
        self._registrations = list(_registrations(self, transformer, family))
        self._handles: list[Interception] = []
        self.attach()

    def attach(self) -> None:
        """Puts everything in place; does nothing where it is."""
        if self._handles:
            return
        self._side_weights, self._arranged_for = list(self.pair.sides.parameters()), ()
        try:
            for intercept in self._registrations:
                self._handles.append(intercept())
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
        self.call.weights = self.call.token_runs = None
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
        self._blend = blend
        self._give()

    @property
    def stage(self) -> Stage | None:
        """Position of the next calls in denoising, 0 (noise) to 1, or (B,) of their rows; None where it is not known."""
        return self._stage

    @stage.setter
    def stage(self, stage: Stage | None) -> None:
        self._stage = stage
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

    def _give(self) -> None:
        """What the host knows about the next call, by one copy to the device at most."""
        device = self._side_weights[0].device if self._side_weights else torch.device("cpu")
        stage = tuple(self._stage.tolist()) if isinstance(self._stage, torch.Tensor) else self._stage
        place = device, torch.is_inference_mode_enabled()  # autograd takes nothing that was made in it
        given_of = self._blend, stage, tuple(self.call.strengths.values()), self._row_strengths, place
        if given_of != self._given_of:
            scheduled = self._blend.scheduled(self._stage)
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
        blend, groups = LearnedBlend(pair.controller), pair.config.total_groups
        return blend if groups == pair.controller.out.out_features else PartOfBlend(blend, pair.first_group, groups)
    if pair.config.share_schedule:
        return SharePlan(stages=pair.config.share_schedule).blend(pair.config)
    return FixedBlend(pair.config.scale / 2, pair.config.scale / 2)


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


def _runs(flags: Sequence[bool]) -> tuple[int | slice, ...]:
    """The runs of true flags; those of one alone as its index."""
    edges = [index for index, (flag, before) in enumerate(zip([*flags, False], [False, *flags], strict=True)) if flag != before]
    return tuple(begin if end == begin + 1 else slice(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True))


def _registrations(
    attachment: Attachment, transformer: nn.Module, family: FamilyDescription
) -> Iterator[Callable[[], Interception]]:
    """One call per place, made once, so that re-attaching puts the same interceptors back."""
    call, coverage = attachment.call, attachment.coverage
    blocks = list(family.blocks(transformer))
    paths = [f"{listed.path}.{number}" for listed in family.block_lists for number in range(len(transformer.get_submodule(listed.path)))]
    yield functools.partial(Interception, transformer.get_submodule(family.time_embedding), _KeepEmbedding(call, coverage, family))
    if family.first_tokens:
        yield functools.partial(Interception, transformer.get_submodule(family.first_tokens), _KeepTokens(call))
    choose = _ChooseWeights(attachment, family)
    for block in (block for block, block_list in blocks if block_list is blocks[0][1]):  # some samplers leave out the very first
        yield functools.partial(Interception, block, choose)
    for index, site, adapters in _places(attachment.pair, family, blocks):
        block, written = blocks[index][0], site.writes or site.reads
        reader, writer = block.get_submodule(site.reads), block.get_submodule(written)
        audio_module = family.audio_module(written)
        is_audio = family.audio_modules.get(audio_module, False)
        place = Place(paths[index], written, frozenset(adapters), audio_module, is_audio)
        mark = coverage.expect(place)
        group = attachment.pair.config.group_of(index)
        update = Updates(writer, adapters, site, call, group, mark, is_audio, family.methods.get(written, Interceptor.methods))
        attachment._updates.append(update)
        if reader is not writer:
            update.read_mark = coverage.expect(replace(place, layer=site.reads))
            reading = ReadTokens(site, update.read_mark, update, family.methods.get(site.reads, Interceptor.methods))
            yield functools.partial(Interception, reader, reading)
        yield functools.partial(Interception, writer, update)
        for path, unfused in family.unfused.items():
            if site.reads.startswith(f"{path}."):
                yield functools.partial(Interception, block.get_submodule(path), _Unfused(unfused))


def _places(
    pair: AdapterPair, family: FamilyDescription, blocks: Sequence[tuple[nn.Module, BlockList]]
) -> Iterator[tuple[int, Site, dict[Role, Adapter]]]:
    """Where a pair acts: number of the block, what is read and written there, and the adapters of both sides.

    Raises:
        InputError: the DiT has no such place.
    """
    named: dict[tuple[int, str], dict[Role, Adapter]] = {}
    for role, index, name, adapter in iterate_sides(pair):
        named.setdefault((index, name), {})[role] = adapter
    for (index, name), adapters in named.items():
        block, block_list = blocks[index]
        site = next((site for site in block_list.sites if site.name == name), None)
        try:
            if site is not None:
                block.get_submodule(site.reads), block.get_submodule(site.writes or site.reads)
                yield index, site, adapters
                continue
            for part in family.layer_parts(block, name):
                own = adapters if part.is_whole else {role: adapter.of_outputs(part.rows) for role, adapter in adapters.items()}
                yield index, Site(name, part.path, ("input",), ()), own
        except AttributeError as error:
            raise InputError(f"The pair acts on {name} in block {index}, which this base lacks: use the base it was made for.") from error


class _Unfused(Interceptor):
    """Has a module call its layers one by one; a forward that somebody else has put on it stays."""

    def __init__(self, forward: Callable[..., torch.Tensor]) -> None:
        self.forward = forward


class _KeepEmbedding(Interceptor):
    """Keeps the time embedding for the first block of a call."""

    def __init__(self, call: Call, coverage: Coverage, family: FamilyDescription) -> None:
        self.call, self.coverage, self.output = call, coverage, family.time_embedding_output

    def after(self, args: tuple, kwargs: dict, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        self.coverage.has_run = True
        if self.call.embedding is None:  # some bases embed a second timestep, of reference frames, afterwards
            self.call.embedding, self.call.embedded = output if self.output is None else output[self.output], args[0]
        return output


class _KeepTokens(Interceptor):
    """Keeps the first tokens of a call for its first block."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def after(self, args: tuple, kwargs: dict, output: torch.Tensor) -> torch.Tensor:
        if self.call.first_tokens is None:
            self.call.first_tokens = output
        return output


class _ChooseWeights(Interceptor):
    """Has the blend choose the weights of a call when its first block is entered."""

    def __init__(self, attachment: Attachment, family: FamilyDescription) -> None:
        self.attachment, self.call, self.family = attachment, attachment.call, family
        self.num_groups = attachment.pair.config.num_groups
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
        call.use(weights.expand(rows, self.num_groups, 2), torch.is_grad_enabled())

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
