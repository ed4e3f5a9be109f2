"""Files users keep: pairs, LoRA sides, and checkpoints of the reference."""

from .format import load_pair, read_header, save_pair
from .lora import write_lora
from .reference import read_reference

__all__ = ["load_pair", "read_header", "read_reference", "save_pair", "write_lora"]
