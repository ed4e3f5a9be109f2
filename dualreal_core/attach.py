"""Puts a pair into a DiT's forward pass with hooks, and takes it out again; the DiT's weights are never touched."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import nn

from .blend import Blend, BlendRecord, FixedBlend, LearnedBlend
from .errors import InputError
from .families import FamilyDescription, family_of
from .pair import ROLES, AdapterPair, Role, base_sizes, iterate_sides


class Attachment:
    """A pair at work in a DiT. Use as a context manager, or call `detach` in the end.

    Attributes:
        blend: where the weights come from; exchangeable at any time.
        condition: reference embedding (B or 1, E) of the next calls, or None.
        strengths: factors on the weights of both sides.
        row_strengths: factors (B,) on the weights of each row of the next calls, or None.
        record: collects the weights that were used, when set.
    """

    def __init__(self, transformer: nn.Module, pair: AdapterPair, blend: Blend | None = None) -> None:
        """Attaches `pair`; without `blend`, by its controller, or each side at half its scale.

        Raises:
            InputError: the pair was made for another architecture or width.
        """
        family = family_of(transformer)
        _check_fit(transformer, pair)
        self.pair = pair
        self.blend = blend or default_blend(pair)
        self.condition: torch.Tensor | None = None
        self.strengths: dict[Role, float] = dict.fromkeys(ROLES, 1.0)
        self.row_strengths: torch.Tensor | None = None
        self.record: BlendRecord | None = None
        self._embedding: torch.Tensor | None = None
        self._weights: torch.Tensor | None = None
        blocks = transformer.get_submodule(family.blocks)
        time_embedding = transformer.get_submodule(family.time_embedding)
        self._hooks = [
            time_embedding.register_forward_hook(_keep_embedding(self, family)),
            blocks[0].register_forward_pre_hook(_choose_weights(self, family), with_kwargs=True),
        ]
        sites: dict[str, dict[Role, nn.Module]] = {}
        for role, block, name, adapter in iterate_sides(pair):
            sites.setdefault(f"{block}-{name}", {})[role] = adapter
        by_name = {site.name: site for site in family.sites}
        for key, adapters in sites.items():
            block, name = int(key.partition("-")[0]), key.partition("-")[2]
            module, streams = (by_name[name].module, by_name[name].streams) if name in by_name else (name, ("input",))
            hook = _add_updates(self, pair.config.group_of(block), adapters, streams)
            self._hooks.append(blocks[block].get_submodule(module).register_forward_hook(hook, with_kwargs=True))

    def detach(self) -> None:
        """Removes every hook; the DiT is then as it was. Calling it again does nothing."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._embedding = self._weights = None

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()


def default_blend(pair: AdapterPair) -> Blend:
    """The pair's own controller, or half its scale for each side."""
    if pair.controller is not None:
        return LearnedBlend(pair.controller)
    return FixedBlend(pair.config.scale / 2, pair.config.scale / 2)


def _keep_embedding(attachment: Attachment, family: FamilyDescription):
    def hook(module: nn.Module, args: tuple, output: torch.Tensor | tuple) -> None:
        attachment._embedding = output if family.time_embedding_output is None else output[family.time_embedding_output]

    return hook


def _choose_weights(attachment: Attachment, family: FamilyDescription):
    def hook(block: nn.Module, args: tuple, kwargs: dict) -> None:
        tokens = [_stream(args, kwargs, name, family.block_streams.index(name)) for name in family.controller_streams]
        weights = attachment.blend.weights(attachment._embedding, tokens)
        strengths = [attachment.strengths[role] for role in ROLES]
        if strengths != [1.0, 1.0]:
            weights = weights * torch.tensor(strengths, dtype=weights.dtype, device=weights.device)
        if attachment.row_strengths is not None:
            weights = weights * attachment.row_strengths.to(weights)[:, None, None]
        attachment._weights = weights.expand(tokens[0].shape[0], attachment.pair.config.num_groups, 2)
        if attachment.record is not None:
            attachment.record.add(attachment._weights)

    return hook


def _add_updates(attachment: Attachment, group: int, adapters: dict[Role, nn.Module], streams: tuple[str, ...]):
    def hook(module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        weights = attachment._weights[:, group]  # (B, 2)
        outputs = output if isinstance(output, tuple) else (output,)
        updated = list(outputs)
        for position, name in enumerate(streams):
            hidden = _stream(args, kwargs, name, position)
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


def _check_fit(transformer: nn.Module, pair: AdapterPair) -> None:
    for name, value in base_sizes(transformer).items():
        made_for = getattr(pair.config, name)
        if made_for != value and (name != "time_dim" or pair.controller is not None):
            raise InputError(
                f"The pair was made for a base with {name} {made_for}, but this base has {name} {value}: "
                "use the base it was made for, or train a new pair."
            )
