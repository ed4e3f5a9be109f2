"""A family of video DiTs as data: where its blocks, adapter sites, time embedding and first tokens are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass(frozen=True)
class Site:
    """A place in a block where adapters act: the tokens a module reads, and the output they are added to.

    `streams` are the names of the reading module's tensor arguments, in the order of its positional arguments and of
    the written outputs (one stream: the output is that tensor; several: a tuple). Adapters act on each token on its
    own, so the streams need not be joined. `writes` is the module whose output is updated, where it is not the one
    that reads. `linear_layers` are the layers, relative to the block, that LoRA updates.
    """

    name: str
    reads: str
    streams: tuple[str, ...]
    linear_layers: tuple[str, ...]
    writes: str | None = None


@dataclass(frozen=True)
class BlockList:
    """A `ModuleList` of blocks of one kind, the adapter sites of each, and other linear layers on tokens that LoRA may update."""

    path: str
    sites: tuple[Site, ...]
    other_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerPart:
    """A linear layer by its path in a block, and which output of the family's layer its first one is."""

    path: str
    linear: nn.Module
    first_row: int
    is_whole: bool

    @property
    def rows(self) -> slice:
        """Its outputs among those of the family's layer."""
        return slice(self.first_row, self.first_row + self.linear.out_features)


@dataclass(frozen=True)
class FamilyDescription:
    """What an adapter pair must know of a DiT class.

    Several classes may share a family: their sites have the same names and meaning, so one pair fits them all.

    Attributes:
        name: the family's name, as stored in pair files.
        package, class_name: the top-level package and the class.
        block_lists: the blocks, in the order in which they run; they are numbered through.
        block_streams: token arguments of the first kind of blocks, in positional order; `x.0` is the first of a tuple x.
        controller_streams: those of them whose tokens the StageBlender pools; none where these are `first_tokens`.
        time_embedding: path of the module that makes the time embedding, (B, E) or (B * n, E).
        time_linear: path of the linear layer whose width is E.
        time_embedding_output: index into its output where that is a tuple.
        time_argument: name and position of the blocks' argument that is the time embedding, (M, E) with the noisiest first, where no
            one module makes it; `time_embedding` is then one that every call begins with, and `time_linear` reads it.
        first_tokens: path of the module whose output (B, C, f, h, w) the StageBlender pools, where blocks run on other tokens as well.
        patch_layer: path of the layer that reads the latents.
        text_layer: path of the linear layer that reads the text's tokens.
        pooled_layer: of the one that reads a pooled text, where there is one.
        text_argument: name and position of the DiT's own argument that is the text's tokens (B, T, X), as the prompt gate reads them.
        needs_text_mask: it cannot run without the text's attention mask.
        variants: what a number of its input channels means, for people.
        expert_boundaries: of models of two experts, the noise level (sigma) from which on the first one runs, by the input channels.
        layer_paths: where this class calls a linear layer otherwise than the family does: the family's name to the path; or to those of
            several layers, where this class computes the outputs of one, in this order, one by one.
        unfused: modules of a block that may compute several of their layers at once, so that nothing on these is called, and what
            each then does by calling them: a function of the module and its arguments.
        methods: paths in a block ('' is the block) of modules that are not called as such, and by which methods they are.
        audio_modules: parts of a block that are left out of calls without sound, by whether what they write is sound.
        audio_weights: a regular expression for the paths of modules and parameters outside of `block_lists`, or that read no tokens, whose
            changes are heard.
        is_packed: tokens are (T, C), all of one sample.
        audio_tokens: of the blocks' arguments, runs of tokens (begin, end) of such a sample that are sound.
        changes_in_place: blocks overwrite their inputs, so what autograd saves must be copied.
    """

    name: str
    package: str
    class_name: str
    block_lists: tuple[BlockList, ...]
    block_streams: tuple[str, ...]
    controller_streams: tuple[str, ...]
    time_embedding: str
    time_linear: str
    patch_layer: str
    text_layer: str
    text_argument: tuple[str, int]
    time_embedding_output: int | None = None
    time_argument: tuple[str, int] | None = None
    first_tokens: str = ""
    pooled_layer: str = ""
    needs_text_mask: bool = False
    variants: Mapping[int, str] = field(default_factory=dict)
    expert_boundaries: Mapping[int, float] = field(default_factory=dict)
    layer_paths: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    unfused: Mapping[str, Callable[..., torch.Tensor]] = field(default_factory=dict)
    methods: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    audio_modules: Mapping[str, bool] = field(default_factory=dict)
    audio_weights: str = ""
    is_packed: bool = False
    audio_tokens: Callable[[tuple, Mapping[str, object]], list[tuple[int, int]]] | None = None
    changes_in_place: bool = False

    def blocks(self, transformer: nn.Module) -> Iterator[tuple[nn.Module, BlockList]]:
        """The blocks of a DiT in running order, each with its kind."""
        for block_list in self.block_lists:
            for block in transformer.get_submodule(block_list.path):
                yield block, block_list

    def compute_dtype(self, transformer: nn.Module) -> torch.dtype:
        """Dtype of a DiT's matrices; some of its other weights may be kept in float32."""
        block, block_list = next(iter(self.blocks(transformer)))
        return next(self.layer_parts(block, block_list.sites[0].linear_layers[0])).linear.weight.dtype

    def layer_parts(self, block: nn.Module, layer: str) -> Iterator[LayerPart]:
        """What computes a linear layer of a block, by the family's name for it: one layer here, or several, each a part of its outputs.

        Raises:
            AttributeError: the block has no such layer.
        """
        paths = self.layer_paths.get(layer, layer)
        first = 0
        for path in (paths,) if isinstance(paths, str) else paths:
            linear = block.get_submodule(path)
            yield LayerPart(path, linear, first, is_whole=isinstance(paths, str))
            first += getattr(linear, "out_features", 0)

    def linear_layers(self) -> list[str]:
        """The family's names of all linear layers that sites name."""
        return [layer for block_list in self.block_lists for site in block_list.sites for layer in site.linear_layers]

    def audio_module(self, layer: str) -> str:
        """The one of `audio_modules` that a layer of a block lies in, or ''."""
        return next((module for module in self.audio_modules if layer == module or layer.startswith(f"{module}.")), "")

    def is_audio(self, path: str) -> bool:
        """Whether a module or parameter beside the layers on tokens belongs to what makes sound."""
        return bool(self.audio_weights) and re.search(self.audio_weights, path) is not None

    def text_of(self, args: tuple, kwargs: Mapping[str, object]) -> torch.Tensor | None:
        """The text among the arguments of a call of the DiT; None where there is none."""
        name, position = self.text_argument
        return kwargs[name] if name in kwargs else args[position] if position < len(args) else None

    def time_width(self, transformer: nn.Module) -> int:
        """Width E of a DiT's time embedding."""
        linear = transformer.get_submodule(self.time_linear)
        return linear.out_features if self.time_argument is None else linear.in_features


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, of torch or a class of ComfyUI's own for quantized weights."""
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Linear" and hasattr(module, "in_features"))
