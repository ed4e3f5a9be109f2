"""A DiT whose weights come and go while its modules stay, so that what is attached to them stays attached."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ModelMixin
from torch import nn

from ..errors import InputError
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
        self._are_at_work = self._are_in_main_memory = False
        self.modules = self._without_weights()

    def check(self, shapes: TensorShapes) -> None:
        """Raises InputError where the weight files, of which these are the shapes, do not have what the config asks for."""
        wanted = {name: tuple(tensor.shape) for name, tensor in self.modules.state_dict().items()}
        check_complete(self._class, self._folder, [name for name in wanted if name not in shapes])
        for name, shape in wanted.items():
            if shapes[name] != shape:
                raise InputError(
                    f"{self._folder} does not load ({name} is of shape {shapes[name]}, and its config asks for {shape}): download it again."
                )

    def at_work(self) -> nn.Module:
        """The modules with their weights on the device, or, block by block, on their way there."""
        if self._are_at_work:
            return self.modules
        if self._offload == "blocks":
            self._move(load_weights(self._class, self._folder, self._dtype, "cpu"))
            self.modules.enable_group_offload(
                torch.device(self._device), torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1,
                use_stream=torch.device(self._device).type == "cuda",
            )  # fmt: skip
        elif self._are_in_main_memory:
            self.modules.to(self._device)
        else:
            self._move(load_weights(self._class, self._folder, self._dtype, self._device))
        self._are_at_work, self._are_in_main_memory = True, self._offload != "none"
        return self.modules

    def rest(self) -> None:
        """Takes the weights off the device."""
        if not self._are_at_work or self._offload == "blocks":  # which are in main memory between two calls anyway
            return
        if self._offload == "model":
            self.modules.to("cpu")
        else:
            self._move(self._without_weights())
        self._are_at_work = False
        free_memory(self._device)

    def _without_weights(self) -> nn.Module:
        with torch.device("meta"):
            empty = explained(lambda: self._class.from_config(self._config), self._folder)
        return empty.requires_grad_(False).eval()

    def _move(self, source: nn.Module) -> None:
        """Takes over all tensors of another instance."""
        for own, other in zip(self.modules.modules(), source.modules(), strict=True):
            tensors = {**dict(other.named_parameters(recurse=False)), **dict(other.named_buffers(recurse=False))}
            tensors |= {name: value for name, value in vars(other).items() if isinstance(value, torch.Tensor)}
            for name, tensor in tensors.items():
                setattr(own, name, tensor)
