"""A family of video DiTs as data: where its blocks, adapter sites, time embedding and first tokens are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """A place in every block where adapters act: a module, and the token streams it maps to itself.

    `streams` are the names of the module's tensor arguments, in the order of its positional arguments and of its
    outputs (one stream: the output is that tensor; several: a tuple). Adapters act on each token on its own, so
    the streams need not be joined. `linear_layers` are the layers, relative to the block, that LoRA updates.
    """

    name: str
    module: str
    streams: tuple[str, ...]
    linear_layers: tuple[str, ...]


@dataclass(frozen=True)
class FamilyDescription:
    """What an adapter pair must know of a DiT class.

    Attributes:
        name: the family's name, as stored in pair files.
        class_name: the diffusers class.
        blocks: path of the `ModuleList` of blocks.
        sites: adapter sites of a block.
        block_streams: token arguments of a block, in positional order.
        controller_streams: those of them whose tokens the StageBlender pools.
        time_embedding: path of the module that makes the time embedding (B, E).
        time_embedding_output: index into its output where that is a tuple.
    """

    name: str
    class_name: str
    blocks: str
    sites: tuple[Site, ...]
    block_streams: tuple[str, ...]
    controller_streams: tuple[str, ...]
    time_embedding: str
    time_embedding_output: int | None = None
