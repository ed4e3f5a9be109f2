"""Puts a pair into a DiT's forward pass with hooks, and takes it out again; the DiT's weights are never touched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..errors import InputError
from ..families import FamilyDescription, Site, family_of
from .blend import Blend, BlendRecord, FixedBlend, LearnedBlend, SharePlan
from .coverage import WHAT_TO_DO, Coverage, Place, stepped_past
from .fused import FusedSite, can_fuse
from .pair import ROLES, AdapterPair, Role, base_sizes, iterate_sides
from .stage_blender import Stage


class Attachment:
    """A pair at work in a DiT, from the start until `detach`. Also a context manager: attached inside, detached after.

    Attributes:
        blend: where the weights come from; exchangeable at any time.
        condition: reference embedding (B or 1, E) of the next calls, or None.
        stage: position of the next calls in denoising, 0 (noise) to 1, or (B,) of their rows; None where it is not known.
        strengths: factors on the weights of both sides.
        row_strengths: factors (B,) on the weights of each row of the next calls, or None.
        record: collects the weights that were used, when set.
        coverage: which of the pair's places the DiT has called.
    """

    def __init__(self, transformer: nn.Module, pair: AdapterPair, blend: Blend | None = None) -> None:
        """Attaches `pair`; without `blend`, by its controller, or on its share schedule, or each side at half its scale.

        Raises:
            InputError: the pair was made for another architecture or width, or the DiT is compiled.
        """
        check_fit(transformer, pair)
        _check_uncompiled(transformer)
        self.pair = pair
        self.blend = blend or default_blend(pair)
        self.condition: torch.Tensor | None = None
        self.stage: Stage | None = None
        self.strengths: dict[Role, float] = dict.fromkeys(ROLES, 1.0)
        self.row_strengths: torch.Tensor | None = None
        self.record: BlendRecord | None = None
        self.coverage = Coverage()
        self._embedding: tuple[torch.Tensor, torch.Tensor] | None = None
        self._weights: torch.Tensor | None = None
        self._read: dict[tuple[nn.Module, str], list[torch.Tensor]] = {}
        self._registrations = list(_registrations(self, transformer, family_of(transformer)))
        self._handles: list[RemovableHandle | _LayerByLayer] = []
        self.attach()

    def attach(self) -> None:
        """Puts the hooks in place; does nothing where they are."""
        if not self._handles:
            self._handles = [register() for register in self._registrations]

    def detach(self) -> None:
        """Removes every hook; the DiT is then as it was. Calling it again does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._embedding = self._weights = None
        self._read.clear()

    def silent(self) -> list[Place]:
        """Places where the pair should have acted by now and has not; none, at no cost, once all have been called."""
        return self.coverage.silent(self.strengths)

    def check_fired(self) -> None:
        """To be called after the DiT: raises InputError where it stepped past a place on which the pair acts."""
        if places := self.silent():
            raise InputError(stepped_past(places))

    @contextmanager
    def weighted(self, weights: torch.Tensor) -> Iterator[None]:
        """Uses these weights (B, G, 2) inside, where no block has just chosen them: a block that is run again."""
        kept, self._weights = self._weights, weights
        try:
            yield
        finally:
            self._weights = kept

    @property
    def weights(self) -> torch.Tensor:
        """Weights (B, G, 2) of the current call, chosen when its first block was entered."""
        return self._weights

    def __enter__(self) -> Attachment:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()


def default_blend(pair: AdapterPair) -> Blend:
    """The pair's own controller, or the share schedule alone that its sides were trained on, or half its scale for each."""
    if pair.controller is not None:
        return LearnedBlend(pair.controller)
    if pair.config.share_schedule:
        return SharePlan(stages=pair.config.share_schedule).blend(pair.config)
    return FixedBlend(pair.config.scale / 2, pair.config.scale / 2)


def check_fit(transformer: nn.Module, pair: AdapterPair) -> None:
    """Raises InputError where a pair was made for another kind or size of DiT."""
    for name, value in base_sizes(transformer).items():
        made_for = getattr(pair.config, name)
        if made_for != value and (name != "time_dim" or pair.controller is not None):
            raise InputError(
                f"The pair was made for a base with {name} {made_for}, but this base has {name} {value}: "
                "use the base it was made for, or train a new pair."
            )


def _check_uncompiled(transformer: nn.Module) -> None:
    """Raises InputError where torch.compile was used: compiled code does not see hooks that come later, and would leave the pair out."""
    for name, module in transformer.named_modules():
        if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
            part = name or "The model"
            raise InputError(f"{part} is compiled, and a pair cannot act in compiled code: use the model without torch.compile.")


def _registrations(
    attachment: Attachment, transformer: nn.Module, family: FamilyDescription
) -> Iterator[Callable[[], RemovableHandle | _LayerByLayer]]:
    """One call per hook, made once, so that re-attaching puts the same hooks back."""
    blocks = list(family.blocks(transformer))
    paths = [f"{listed.path}.{number}" for listed in family.block_lists for number in range(len(transformer.get_submodule(listed.path)))]
    keep = _keep_embedding(attachment, family)
    yield lambda: transformer.get_submodule(family.time_embedding).register_forward_hook(keep)
    choose = _choose_weights(attachment, family)
    for block in (block for block, block_list in blocks if block_list is blocks[0][1]):  # some samplers leave out the very first
        yield lambda block=block: block.register_forward_pre_hook(choose, with_kwargs=True)
    places: dict[tuple[int, str], dict[Role, nn.Module]] = {}
    for role, index, name, adapter in iterate_sides(attachment.pair):
        places.setdefault((index, name), {})[role] = adapter
    for (index, name), adapters in places.items():
        block, block_list = blocks[index]
        site = next((site for site in block_list.sites if site.name == name), None)
        site = site or Site(name, family.layer_path(name), ("input",), ())
        try:
            reader, writer = block.get_submodule(site.reads), block.get_submodule(site.writes or site.reads)
        except AttributeError as error:
            raise InputError(f"The pair acts on {name} in block {index}, which this base lacks: use the base it was made for.") from error
        roles = frozenset(adapters)
        place = read_place = attachment.coverage.expect(Place(paths[index], site.writes or site.reads, roles))
        if reader is not writer:
            read_place = attachment.coverage.expect(Place(paths[index], site.reads, roles))
            read = _keep_read(attachment, writer, site, read_place)
            yield lambda reader=reader, read=read: reader.register_forward_pre_hook(read, with_kwargs=True)
        update = _add_updates(attachment, attachment.pair.config.group_of(index), adapters, site, place, read_place)
        yield lambda writer=writer, update=update: writer.register_forward_hook(update, with_kwargs=True)
        for path, sequence in family.sequences.items():
            if site.reads.startswith(f"{path}."):
                whole, layers = block.get_submodule(path), block.get_submodule(sequence)
                yield lambda whole=whole, layers=layers: _LayerByLayer(whole, layers)


class _LayerByLayer:
    """Has a module call its layers one by one until removed; one whose `forward` somebody else has replaced is left alone."""

    def __init__(self, module: nn.Module, layers: nn.Module) -> None:
        self._module = module if "forward" not in vars(module) else None
        if self._module is not None:
            module.forward = functools.partial(nn.Sequential.forward, layers)

    def remove(self) -> None:
        if self._module is not None:
            del self._module.forward


def _keep_embedding(attachment: Attachment, family: FamilyDescription):
    def hook(module: nn.Module, args: tuple, output: torch.Tensor | tuple) -> None:
        attachment.coverage.num_runs += 1
        if attachment._embedding is None:  # some bases embed a second timestep, of reference frames, afterwards
            embedding = output if family.time_embedding_output is None else output[family.time_embedding_output]
            attachment._embedding = embedding, args[0]

    return hook


def _choose_weights(attachment: Attachment, family: FamilyDescription):
    def hook(block: nn.Module, args: tuple, kwargs: dict) -> None:
        if attachment._embedding is None:  # chosen by an earlier block of this call
            if attachment._weights is None:
                raise InputError(f"The pair goes by {family.time_embedding}, which the model computed without calling it: {WHAT_TO_DO}.")
            return
        tokens = [_stream(args, kwargs, name, family.block_streams.index(name)) for name in family.controller_streams]
        rows = tokens[0].shape[0]
        embedding = _of_noisiest(*attachment._embedding, rows)
        attachment._embedding = None
        weights = attachment.blend.weights(embedding, tokens, attachment.stage)
        strengths = [attachment.strengths[role] for role in ROLES]
        if strengths != [1.0, 1.0]:
            weights = torch.stack([one * strength for one, strength in zip(weights.unbind(-1), strengths, strict=True)], dim=-1)
        if attachment.row_strengths is not None:
            _check_rows("The first block", rows, len(attachment.row_strengths))
            weights = weights * attachment.row_strengths.to(weights)[:, None, None]
        attachment._weights = weights.expand(rows, attachment.pair.config.num_groups, 2)
        if attachment.record is not None:
            attachment.record.add(attachment._weights, attachment.stage)

    return hook


def _of_noisiest(embedding: torch.Tensor, embedded: torch.Tensor, rows: int) -> torch.Tensor:
    """(B, E) of embeddings (B * n, E): where frames or tokens have timesteps of their own, those of references are cleaner than the rest.

    embedded: what was embedded, timesteps (B * n,) or their sines (B * n, D), of which the slowest, which is last, rises with them.
    """
    embedding = embedding.reshape(rows, -1, embedding.shape[-1])
    if embedding.shape[1] == 1:
        return embedding[:, 0]
    noisiest = embedded.reshape(*embedding.shape[:2], -1)[..., -1].argmax(dim=1)
    return embedding[torch.arange(rows, device=noisiest.device), noisiest]


def _check_rows(name: str, rows: int, whole: int) -> None:
    """Raises InputError where a module was given a part of the batch; which part it is cannot be told."""
    if whole > 1 and rows != whole:
        raise InputError(
            f"{name} was called with {rows} rows, and the batch has {whole}: a patch runs blocks for a part of the batch alone, and a pair "
            "cannot tell for which. Use the model without that patch, or sample without guidance (cfg 1)."
        )


def _keep_read(attachment: Attachment, writer: nn.Module, site: Site, place: Place):
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        attachment.coverage.heard(place)
        attachment._read[writer, site.name] = [_stream(args, kwargs, name, position) for position, name in enumerate(site.streams)]

    return hook


def _add_updates(
    attachment: Attachment, group: int, adapters: dict[Role, nn.Module], site: Site, place: Place, read_place: Place
):  # fmt: skip
    fused = FusedSite(adapters) if can_fuse(adapters) else None

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        attachment.coverage.heard(place)
        weights = attachment._weights[:, group]  # (B, 2)
        streams = attachment._read.pop((module, site.name), None)
        if streams is None:
            if read_place is not place:
                raise InputError(stepped_past([read_place]))
            streams = [_stream(args, kwargs, name, position) for position, name in enumerate(site.streams)]
        outputs = output if isinstance(output, tuple) else (output,)
        updated = list(outputs)
        dtype = next(iter(adapters.values())).down.weight.dtype
        for position, hidden in enumerate(streams):
            _check_rows(place.path, hidden.shape[0], len(weights))
            if fused is not None and not torch.is_grad_enabled() and hidden.dtype == updated[position].dtype == dtype:
                updated[position] = fused.add_to(updated[position], hidden, weights, attachment.condition)
                continue
            for role, adapter in adapters.items():
                if attachment.strengths[role] == 0:
                    continue
                update = adapter(hidden, attachment.condition)
                weight = weights[:, ROLES.index(role), None, None].to(update.dtype)
                updated[position] = updated[position] + weight * update
        return tuple(updated) if isinstance(output, tuple) else updated[0]

    return hook


def _stream(args: tuple, kwargs: dict, name: str, position: int) -> torch.Tensor:
    return kwargs[name] if name in kwargs else args[position]
