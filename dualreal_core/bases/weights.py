"""A DiT whose weights come and go while its modules stay, so that what is attached to them stays attached."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ModelMixin
from torch import nn

from ..errors import InputError
from ..families import family_of
from .base import Offload
from .devices import free_memory
from .folder_files import TensorShapes
from .loading import check_complete, explained, load_weights


class ComingWeights:
    """Attributes:
        modules: the DiT. Without weights its parameters are on the meta device, which has shapes and no numbers.
    """

    def __init__(
        self, model_class: type[ModelMixin], folder: Path, config: dict[str, object], dtype: torch.dtype, device: str, offload: Offload
    ) -> None:
        self._class, self._folder, self._config, self._dtype, self._device = model_class, folder, config, dtype, device
        self._offload: Offload = "none" if torch.device(device).type == "cpu" else offload
        self._are_at_work = self._are_in_memory = False
        self.modules = self._without_weights()
        is_split = self._offload == "blocks"
        self._travelling = [block for block, _ in family_of(self.modules).blocks(self.modules)] if is_split else []
        for block in self._travelling:
            self._let_travel(block)

    def check(self, shapes: TensorShapes) -> None:
        """Raises InputError where the weight files, of which these are the shapes, do not have what the config asks for."""
        quantization = self._config.get("quantization_config")
        if quantization:
            method = quantization.get("quant_method") if isinstance(quantization, dict) else None
            raise InputError(
                f"{self._folder} holds quantized weights ({method or 'of an unknown kind'}), which cannot be used here: "
                "take the model's original weights, in float32 or 16 bit."
            )
        wanted = {name: tuple(tensor.shape) for name, tensor in self.modules.state_dict().items()}
        check_complete(self._class, self._folder, [name for name in wanted if name not in shapes])
        for name, shape in wanted.items():
            if shapes[name] != shape:
                raise InputError(
                    f"{self._folder} does not load ({name} is of shape {shapes[name]}, and its config asks for {shape}): download it again."
                )

    def at_work(self) -> nn.Module:
        """The modules with their weights on the device, those of blocks that are offloaded on their way there."""
        if not self._are_at_work:
            if not self._are_in_memory:
                at = "cpu" if self._offload == "blocks" else self._device
                self._take(load_weights(self._class, self._folder, self._dtype, at))
            travelling = {id(module) for block in self._travelling for module in block.modules()}
            for module in self.modules.modules():
                if id(module) not in travelling:
                    _put(module, _tensors(module), self._device)
            self._are_at_work = self._are_in_memory = True
        return self.modules

    def rest(self) -> None:
        """Takes the weights off the device."""
        if self._are_at_work:
            self._are_at_work, self._are_in_memory = False, self._offload != "none"
            if self._are_in_memory:
                self.modules.to("cpu")
            else:
                self._take(self._without_weights())
            free_memory(self._device)

    def _without_weights(self) -> nn.Module:
        with torch.device("meta"):
            empty = explained(lambda: self._class.from_config(self._config), self._folder)
        return empty.requires_grad_(False).eval()

    def _take(self, source: nn.Module) -> None:
        """Takes over all tensors of another instance."""
        for own, other in zip(self.modules.modules(), source.modules(), strict=True):
            for name, tensor in _tensors(other).items():
                setattr(own, name, tensor)

    def _let_travel(self, block: nn.Module) -> None:
        """Has a block's weights on the device only while it computes; the originals stay where they are."""
        kept: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []

        def fetch(block: nn.Module, args: tuple) -> None:
            kept.extend((module, _tensors(module)) for module in block.modules())
            for module, tensors in kept:
                _put(module, tensors, self._device)

        def leave(block: nn.Module, args: tuple, output: object) -> None:
            for module, tensors in kept:
                for name, tensor in tensors.items():
                    setattr(module, name, tensor)
            kept.clear()

        block.register_forward_pre_hook(fetch)
        block.register_forward_hook(leave, always_call=True)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, buffers and other tensors of a module, without those of its children, by name."""
    others = {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False)), **others}


def _put(module: nn.Module, tensors: dict[str, torch.Tensor], device: str) -> None:
    for name, tensor in tensors.items():
        moved = tensor.to(device)
        setattr(module, name, nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved)
