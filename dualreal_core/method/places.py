"""Where in a DiT a pair acts, and what each side does there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn

from ..errors import InputError
from ..families import BlockList, FamilyDescription, Site
from .adapter import Adapter
from .call import Call
from .coverage import Coverage, Place
from .interception import Interceptor
from .pair import AdapterPair, Role, iterate_sides
from .updates import ReadTokens, Updates


def updates_of(
    pair: AdapterPair, transformer: nn.Module, family: FamilyDescription, call: Call, coverage: Coverage
) -> Iterator[tuple[nn.Module, Interceptor]]:
    """The modules on which a pair acts, each with what acts there.

    Raises:
        InputError: the DiT lacks one of them.
    """
    blocks = list(family.blocks(transformer))
    paths = [f"{listed.path}.{number}" for listed in family.block_lists for number in range(len(transformer.get_submodule(listed.path)))]
    for index, site, adapters in _places(pair, family, blocks):
        block, written = blocks[index][0], site.writes or site.reads
        reader, writer = block.get_submodule(site.reads), block.get_submodule(written)
        audio_module = family.audio_module(written)
        is_audio = family.audio_modules.get(audio_module, False)
        place = Place(paths[index], written, frozenset(adapters), audio_module, is_audio)
        mark, group = coverage.expect(place), pair.config.group_of(index)
        update = Updates(writer, adapters, site, call, group, mark, is_audio, family.methods.get(written, Interceptor.methods))
        if reader is not writer:
            update.read_mark = coverage.expect(replace(place, layer=site.reads))
            yield reader, ReadTokens(site, update.read_mark, update, family.methods.get(site.reads, Interceptor.methods))
        yield writer, update
        for path, unfused in family.unfused.items():
            if site.reads.startswith(f"{path}."):
                yield block.get_submodule(path), Unfused(unfused)


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


class Unfused(Interceptor):
    """Has a module call its layers one by one; a forward that somebody else has put on it stays."""

    def __init__(self, forward: Callable[..., torch.Tensor]) -> None:
        self.forward = forward
