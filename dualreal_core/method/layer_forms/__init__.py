"""Forms of updates of one linear layer that other programs train, beside the plain low-rank one."""

from .adapter import FormAdapter
from .form import FORMS, LayerForm
from .products import Difference, Hadamard, Kronecker, LowRank, Offset, khatri_rao, low_rank_square
from .scaled import ScaledInput, ScaledOutput
from .sums import FormSum, Rows
from .turned import ButterflyOutput, ChangedInput, TurnedInput, TurnedOutput

__all__ = [
    "FORMS", "ButterflyOutput", "ChangedInput", "Difference", "FormAdapter", "FormSum", "Hadamard", "Kronecker", "LayerForm", "LowRank",
    "Offset", "Rows", "ScaledInput", "ScaledOutput", "TurnedInput", "TurnedOutput", "khatri_rao", "low_rank_square",
]  # fmt: skip
