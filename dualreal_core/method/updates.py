"""What a pair does at one place of a block: both sides' updates of a module's output, by the weights of the call."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..errors import InputError
from ..families import Site, is_linear
from .adapter import Adapter
from .call import Call
from .coverage import Mark, stepped_past
from .fused import FusedAdapters, can_fuse, fuse
from .interception import Interceptor
from .layer_forms import FormAdapter
from .pair import ROLES, Role


class ReadTokens(Interceptor):
    """Keeps the tokens that a module reads for the update of what another one writes."""

    def __init__(self, site: Site, mark: Mark, update: Updates, methods: tuple[str, ...]) -> None:
        self.site, self.mark, self.update, self.methods = site, mark, update, methods

    def before(self, args: tuple, kwargs: dict) -> None:
        self.mark.was_called = True
        self.update.read = streams_of(args, kwargs, self.site.streams)


class Updates(Interceptor):
    """The adapters of both sides at one place.

    Calls without autograd run sides of one low-rank form fused (`arrange`), leave out rows in which the pair does not act, and add
    in place to what a linear layer has just made. Others take one side after the other, as each has gradients of its own, or a form
    that reads what the module itself has made.

    Args:
        module: whose output is updated.
        adapters: by role.
        site: names the streams of tokens.
        group: of the block.
        mark: set when the module is called.
        is_audio: whether the module writes sound.
        methods: by which it is called.
    """

    def __init__(
        self, module: nn.Module, adapters: Mapping[Role, Adapter], site: Site, call: Call, group: int, mark: Mark, is_audio: bool = False,
        methods: tuple[str, ...] = Interceptor.methods,
    ) -> None:  # fmt: skip
        self.module, self.adapters, self.site, self.call, self.number, self.mark = module, adapters, site, call, group, mark
        self.is_audio, self.methods = is_audio, methods
        self.makes_new = isinstance(module, nn.Linear) or (is_linear(module) and type(module).__module__.partition(".")[0] == "comfy")
        self.can_fuse = can_fuse(adapters.values())
        self.read: list[torch.Tensor] | None = None
        self.read_mark: Mark | None = None
        self.fused: FusedAdapters | None = None
        self.acting: dict[Role, Adapter] = dict(adapters)
        self.group = call.group(group, self._widths(), is_audio)

    def take_sides(self) -> None:
        """Takes the sides that have strength; what was fused is dropped."""
        is_silenced = self.is_audio and not self.call.audio_strength
        self.acting = {role: adapter for role, adapter in self.adapters.items() if self.call.strengths[role] and not is_silenced}
        self.group = self.call.group(self.number, self._widths(), self.is_audio)
        self.fused = None

    def arrange(self, dtype: torch.dtype) -> None:
        """Takes the sides that have strength, and fuses them for calls without autograd in this dtype."""
        self.take_sides()
        if self.acting and self.can_fuse:
            self.fused = fuse(self.acting, dtype, self.call.condition)

    def after(self, args: tuple, kwargs: dict, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        self.mark.was_called = True
        streams, self.read = self.read, None
        if streams is None:
            if self.read_mark is not None:
                raise InputError(stepped_past([self.read_mark.place]))
            streams = streams_of(args, kwargs, self.site.streams)
        if not isinstance(output, tuple):
            return self._updated(output, streams[0])
        return *(self._updated(*both) for both in zip(output, streams, strict=False)), *output[len(streams) :]

    def _updated(self, output: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """output: (B, ..., D) or (T, D) of a single row; hidden: likewise with C -> as output."""
        weights = self.group.weights
        if weights is None:
            raise InputError(f"{self.mark.place.path} was called before any block, or blocks were exchanged: attach the pair anew.")
        if len(weights) != 1 and len(weights) != len(hidden):  # names are read here alone, or each block would be compiled for its own
            raise InputError(partial_batch(self.mark.place.path, len(hidden), len(weights)))
        if torch.is_autocast_enabled(output.device.type):
            with torch.autocast(output.device.type, enabled=False):
                return self._added(output, hidden, weights)
        return self._added(output, hidden, weights)

    def _added(self, output: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if self.can_fuse and not self.call.uses_autograd:
            return self._fused(output, hidden) if self.acting else output
        base = output
        for role, adapter in self.acting.items():
            of_side = weights[:, ROLES.index(role)]
            if isinstance(adapter, FormAdapter):
                output = adapter.add_update(output, hidden, of_side, base, self.module)
            else:
                output = adapter.add_to(output, hidden, of_side, self.call.condition)
        return output

    def _fused(self, output: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        fused, dtype = self.fused, output.dtype
        if fused is None or fused.down.dtype != dtype:
            fused = fuse(self.acting, dtype, self.call.condition)
            if not torch.compiler.is_compiling():
                self.fused = fused
        if hidden.dtype != dtype:
            hidden = hidden.to(dtype)
        in_place = self._is_own(output)
        for rows, weights, factors in self.group.parts:
            if isinstance(rows, int) and hidden.ndim == 2:  # one vector per sample
                rows = slice(rows, rows + 1)
            if rows is None:
                return fused.add_to(output, hidden, weights, factors, in_place)
            if not in_place:
                output, in_place = output.clone(memory_format=torch.contiguous_format), True
            fused.of_rows(rows).add_to(output[rows], hidden[rows], weights, factors, in_place=True)
        return output

    def _is_own(self, output: torch.Tensor) -> bool:
        """Whether nobody else can hold the output: a linear layer makes a new one, which no hook or other forward has seen."""
        module = self.module
        return (
            self.makes_new
            and not torch.compiler.is_compiling()
            and not module._forward_hooks
            and not torch.nn.modules.module._global_forward_hooks
            and "forward" not in vars(module)
            and output.is_contiguous()
        )

    def _widths(self) -> tuple[int, int]:
        """Of the codes of acting sides; of none where they are computed one by one."""
        return tuple(self.acting[role].down.out_features if self.can_fuse and role in self.acting else 0 for role in ROLES)


def partial_batch(name: str, rows: int, whole: int) -> str:
    """The sentence for a module that was given a part of the batch; which part it is cannot be told."""
    return (
        f"{name} was called with {rows} rows, and the batch has {whole}: a patch runs blocks for a part of the batch alone, and a pair "
        "cannot tell for which. Use the model without that patch, or sample without guidance (cfg 1)."
    )


def streams_of(args: tuple, kwargs: dict, names: tuple[str, ...]) -> list[torch.Tensor]:
    """A module's arguments by these names, in the order of its positional ones; `x.0` is the first of a tuple x."""
    whole = [name.partition(".") for name in names]
    positions = {name: position for position, name in enumerate(dict.fromkeys(name for name, _, _ in whole))}
    given = [kwargs[name] if name in kwargs else args[positions[name]] for name, _, _ in whole]
    return [one[int(item)] if item else one for one, (_, _, item) in zip(given, whole, strict=True)]
