"""A LoRA file in the making: its tensors, what stands beside them, and what it does by definition to each parameter of a DiT."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from . import definitions

Rows = tuple[int, int]
"""First row and number of rows of a parameter."""


@dataclass(frozen=True)
class Form:
    """One way in which programs write LoRA files.

    Attributes:
        name: in tests and in the table.
        trainer: which program writes so.
        base: the model that it is of, by its name in `variants`.
        write: fills a sheet.
        expert: which one the model is, where the file holds two.
        refused: what the sentence that refuses it must say (a regular expression); empty where it acts.
    """

    name: str
    trainer: str
    base: str
    write: Callable[[Sheet], None]
    expert: str | None = None
    refused: str = ""


@dataclass
class Sheet:
    """See the module. Parameters are called as in ComfyUI's DiT, without prefix.

    Attributes:
        weights: of the base, as float32, by name.
        dtype: of the file.
        left_out: words with which the reader must say what it leaves out.
        file: name of the file.
        config: of `adapter_config.json` beside it.
        raw: the file as bytes, where it is no such of `tensors`.
    """

    weights: Mapping[str, torch.Tensor]
    dtype: torch.dtype = torch.float32
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    deltas: dict[str, torch.Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    file: str = "lora.safetensors"
    config: dict[str, object] | None = None
    raw: bytes | None = None
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(11))

    def weight(self, layer: str, rows: Rows | None = None) -> torch.Tensor:
        """A layer's weight (out, in), or some of its rows, in float64."""
        whole = self.weights[f"{layer}.weight"].double()
        return whole if rows is None else whole[rows[0] : rows[0] + rows[1]]

    def widths(self, layer: str, rows: Rows | None = None) -> tuple[int, int]:
        """Outputs and inputs of a linear layer."""
        return tuple(self.weight(layer, rows).shape[:2])

    def noise(self, *shape: int) -> torch.Tensor:
        """Float64, of the next numbers."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def put(self, key: str, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Writes a tensor; gives it in float64 as the file has it."""
        self.tensors[key] = tensor.to(dtype or self.dtype).contiguous()
        return self.tensors[key].double()

    def change(self, parameter: str, delta: torch.Tensor, rows: Rows | None = None, order: torch.Tensor | None = None) -> None:
        """Says what happens to a parameter, or to some of its rows. order: where each row of delta belongs among these."""
        if order is not None:
            placed = torch.empty_like(delta)
            placed[order] = delta
            delta = placed
        whole = self.deltas.setdefault(parameter, torch.zeros_like(self.weights[parameter], dtype=torch.float64))
        if rows is None:
            whole += delta.reshape(whole.shape)
        else:
            whole[rows[0] : rows[0] + rows[1]] += delta

    def matrices(
        self, layer: str, name: str, parts: Sequence[str] = ("lora_A.weight", "lora_B.weight"), rank: int = 4, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes down (R, in) and up (out, R) by their names; gives them as written."""
        out, inner = self.widths(layer, rows)
        down = self.put(f"{name}.{parts[0]}", self.noise(rank, inner) / math.sqrt(inner))
        up = self.put(f"{name}.{parts[1]}", 0.3 * self.noise(out, rank))
        return down, up

    def lora(
        self, layer: str, name: str, *, parts: Sequence[str] = ("lora_A.weight", "lora_B.weight"), rank: int = 4,
        alpha: torch.Tensor | None = None, scale: float | None = None, rows: Rows | None = None, order: torch.Tensor | None = None,
        acts: bool = True,
    ) -> None:  # fmt: skip
        """A low-rank update, with its alpha as a tensor beside where there is one.

        Args:
            scale: what the whole is multiplied by; None: alpha over rank, or 1 without alpha.
            order: where each row of the file's update belongs among those of the layer.
            acts: whether it does anything.
        """
        down, up = self.matrices(layer, name, parts, rank, rows)
        if alpha is not None:
            self.tensors[f"{name}.alpha"] = alpha.clone()
        if scale is None:
            scale = 1.0 if alpha is None else float(alpha.double().flatten()[0]) / rank
        delta = definitions.low_rank(up, down, scale)
        if acts:
            self.change(f"{layer}.weight", delta, rows, order)

    def foreign(self, name: str, out: int, inner: int, parts: Sequence[str] = ("lora_A.weight", "lora_B.weight"), rank: int = 4) -> None:
        """A low-rank update of a layer that the model does not have."""
        self.put(f"{name}.{parts[0]}", self.noise(rank, inner) / math.sqrt(inner))
        self.put(f"{name}.{parts[1]}", 0.3 * self.noise(out, rank))

    def settings(self, **fields: object) -> None:
        """peft's configuration of the DiT, as diffusers keeps it in the metadata, after the layers were written."""
        layers = sorted({key.removeprefix("transformer.").partition(".lora_")[0] for key in self.tensors})
        every = {"peft_type": "LORA", "target_modules": layers, **fields}
        self.metadata["lora_adapter_metadata"] = json.dumps({f"transformer.{name}": value for name, value in every.items()})

    def save(self, folder: Path) -> Path:
        """Writes everything into a folder of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file
        if self.raw is not None:
            path.write_bytes(self.raw)
        elif path.suffix == ".pt":
            torch.save(self.tensors, path)
        else:
            save_file(self.tensors, path, self.metadata or None)
        if self.config is not None:
            (folder / "adapter_config.json").write_text(json.dumps(self.config), encoding="utf-8")
        return path
