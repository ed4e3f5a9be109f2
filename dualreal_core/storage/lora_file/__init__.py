"""LoRA files of other programs, in any of their kinds and spellings."""

from .base_weights import WeightOf, plain, weights_of
from .report import LoadReport, Share
from .side import LoadedSide, experts_in, load_side
from .sorting import BesideUpdate
from .triggers import triggers_of

__all__ = ["BesideUpdate", "LoadReport", "LoadedSide", "Share", "WeightOf", "experts_in", "load_side", "plain", "triggers_of", "weights_of"]
