"""Files users keep: pairs, LoRA files, and checkpoints of the reference."""

from .format import load_pair, read_header, save_pair
from .lora_export import export_lora
from .reference import read_reference

__all__ = ["export_lora", "load_pair", "read_header", "read_reference", "save_pair"]
