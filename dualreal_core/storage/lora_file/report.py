"""What of a LoRA file acts where, and how much of its norm that is; in numbers and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NUM_SHOWN = 3


@dataclass(frozen=True)
class Share:
    """A part of a file.

    Attributes:
        title: what kind of weights, for people.
        num_layers: of the file.
        norm: after Frobenius, of the changes of all of their weights; None where that is not known.
        num_tensors: where these are counted instead, as of a text encoder.
        reason: why it is left out, '' for what the model lacks.
        example: name of a layer.
    """

    title: str
    num_layers: int
    norm: float | None
    num_tensors: int = 0
    reason: str = ""
    example: str = ""

    def counted(self) -> str:
        """How much of what."""
        if self.num_tensors:
            return f"{self.title}, {self.num_tensors} tensor{'s' * (self.num_tensors > 1)}"
        return f"{self.title}, {self.num_layers} layer{'s' * (self.num_layers > 1)} as {self.example}"


@dataclass(frozen=True)
class LoadReport:
    """What became of a LoRA file.

    Attributes:
        file: its name.
        kinds: number of layers of each kind of update.
        num_layers: that act by stage and depth.
        norms: of these, after Frobenius, by block of the model; None in it where one is not known.
        beside: what acts with a constant strength.
        left_out: what does not act.
        empty: names of layers of rank 0.
        triggers: words that the file names as those that it was trained on.
        notes: further sentences.
    """

    file: str
    kinds: Mapping[str, int]
    num_layers: int
    norms: tuple[float, ...]
    beside: tuple[Share, ...] = ()
    left_out: tuple[Share, ...] = ()
    empty: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def norm(self) -> float:
        """Of all that acts by stage and depth."""
        return math.sqrt(sum(norm**2 for norm in self.norms))

    @property
    def has_more(self) -> bool:
        """Whether anything of the file does not act by stage and depth."""
        return bool(self.beside or self.left_out or self.empty or self.notes)

    def sentence(self, applies_beside: bool = True) -> str:
        """What acts, how, and what does not, with shares of the file's norm; '' where all of it acts by stage and depth.

        Args:
            applies_beside: whether what acts with a constant strength is applied here.
        """
        if not self.has_more:
            return ""
        squares = [self.norm**2, *((share.norm or 0.0) ** 2 for share in (*self.beside, *self.left_out))]
        whole = sum(squares)

        def percent(square: float) -> str:
            return "" if not whole else f"{100 * square / whole:.2g} %" if square < 0.0995 * whole else f"{100 * square / whole:.1f} %"

        parts = [f"acts by stage and depth: {self.num_layers} layers, {percent(squares[0])} of its squared norm"]
        beside = [f"{share.counted()}{_in_brackets(percent((share.norm or 0.0) ** 2), share)}" for share in self.beside]
        left = [f"{share.counted()}{_in_brackets(percent((share.norm or 0.0) ** 2), share)}{_why(share)}" for share in self.left_out]
        if beside and applies_beside:
            parts.append(f"with constant strength: {', '.join(beside)}")
        elif beside:
            left = [*beside, *left]
        if left:
            parts.append(f"left out: {', '.join(left)}")
        if self.empty:
            number = len(self.empty)
            parts.append(f"left out {number} layer{'s' * (number > 1)} of rank 0, without effect ({some(self.empty)})")
        return f"{self.file}: {'; '.join(parts)}." + "".join(f" {note}" for note in self.notes)


def some(names: Sequence[str]) -> str:
    """The first names, and how many there are beside them."""
    rest = len(names) - NUM_SHOWN
    return ", ".join(names[:NUM_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _in_brackets(percent: str, share: Share) -> str:
    return f" ({percent})" if percent and share.norm is not None else ""


def _why(share: Share) -> str:
    return f" ({share.reason})" if share.reason else ""
