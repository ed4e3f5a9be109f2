"""Sums of updates of one layer, each of all of its outputs or of some rows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from .form import FORMS, Layer, LayerForm, State, split_by_names, taken

Rows = tuple[tuple[int, int], ...]
"""Runs (first, number) of a layer's outputs that an update is of, in the order of its own; none: all of them."""
PARTS = "parts."


class FormSum(nn.Module):
    """Several updates of one layer. A part's key in `parts` is its form, its number and its rows, as 'difference-0-16+8'."""

    def __init__(self, parts: Mapping[str, LayerForm]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(parts))
        self.rows: dict[str, Rows] = {key: rows_of_key(key) for key in parts}

    @classmethod
    def of(cls, forms: Iterable[LayerForm | tuple[LayerForm, Rows]]) -> FormSum:
        """The sum of forms, or of forms with the rows that each is of."""
        listed = [one if isinstance(one, tuple) else (one, ()) for one in forms]
        return cls({part_key(form.name, number, rows): form for number, (form, rows) in enumerate(listed)})

    @classmethod
    def of_state(cls, state: State) -> FormSum:
        """The sum with these weights.

        Raises:
            ValueError: they are of no form that is known.
        """
        inner = taken(state, PARTS)
        parts = {}
        for key in split_by_names(list(inner)):
            name = key.partition("-")[0]
            if name not in FORMS:
                raise ValueError(f"it holds an adapter of the form {name!r}")
            parts[key] = FORMS[name].of_state(taken(inner, f"{key}."))
        return cls(parts)

    @property
    def is_empty(self) -> bool:
        """Whether it has no parts."""
        return not len(self.parts)

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        """hidden: (..., C); output: (..., D) of the layer -> (..., D)"""
        total = None
        for key, part in self.parts.items():
            rows = self.rows[key]
            if rows:
                update = torch.zeros_like(output)
                own = part(hidden, taken_rows(output, rows, -1), OfRows(layer, rows))
                update = put_rows(update, own, rows, -1)
            else:
                update = part(hidden, output, layer)
            total = update if total is None else total + update
        return torch.zeros_like(output) if total is None else total

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor | None:
        """The change of the weight (D, C); None where nothing of it changes."""
        return self._summed([(key, part.delta(_rows(weight, self.rows[key]))) for key, part in self.parts.items()], weight)

    def bias_delta(self, bias: torch.Tensor | None) -> torch.Tensor | None:
        """The change of the bias (D,); None where there is none."""
        return self._summed([(key, part.bias_delta(_rows(bias, self.rows[key]))) for key, part in self.parts.items()], bias)

    def squared_norm(self, weight: torch.Tensor | None) -> float | None:
        """The sum of the parts' own; None where one is not known."""
        squares = [part.squared_norm(_rows(weight, self.rows[key])) for key, part in self.parts.items()]
        return None if None in squares else sum(squares)

    @property
    def reads_weight(self) -> bool:
        """Whether its change of the weight depends on it."""
        return any(part.reads_weight for part in self.parts.values())

    def of_outputs(self, rows: slice) -> FormSum:
        """The updates of some of the outputs, for a layer that computes these alone.

        Raises:
            InputError: a part of them cannot be told from its others.
        """
        found: list[tuple[LayerForm, Rows]] = []
        for key, part in self.parts.items():
            begin, kept = 0, []
            for first, number in self.rows[key] or ((0, _num_outputs(rows)),):
                if not self.rows[key]:
                    found.append((part.of_outputs(rows), ()))
                    break
                low, high = max(first, rows.start), min(first + number, rows.stop)
                if low < high:
                    kept.append((low - rows.start, high - low, begin + low - first))
                begin += number
            for first, number, own in kept:
                whole = own == 0 and number == begin
                found.append((part if whole else part.of_outputs(slice(own, own + number)), ((first, number),)))
        return FormSum.of(found)

    def _summed(self, deltas: Sequence[tuple[str, torch.Tensor | None]], whole: torch.Tensor | None) -> torch.Tensor | None:
        total = None
        for key, delta in deltas:
            if delta is None:
                continue
            rows = self.rows[key]
            if rows:
                height = whole.shape[0] if whole is not None else max(first + number for first, number in rows)
                delta = put_rows(delta.new_zeros(height, *delta.shape[1:]), delta, rows, 0)
            total = delta if total is None else total + delta
        return total


class OfRows:
    """Some outputs of a layer."""

    def __init__(self, layer: Layer, rows: Rows) -> None:
        self.layer, self.rows = layer, rows

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return taken_rows(self.layer(hidden), self.rows, -1)


def part_key(form: str, number: int, rows: Rows) -> str:
    """The key of a part."""
    return "-".join([form, str(number), *(f"{first}+{count}" for first, count in rows)])


def rows_of_key(key: str) -> Rows:
    """The rows that the key of a part names.

    Raises:
        ValueError: it is no such key.
    """
    return tuple(tuple(int(number) for number in run.split("+")) for run in key.split("-")[2:])


def taken_rows(values: torch.Tensor, rows: Rows, dim: int) -> torch.Tensor:
    """Runs of rows, one behind the other."""
    runs = [values.narrow(dim, first, number) for first, number in rows]
    return runs[0] if len(runs) == 1 else torch.cat(runs, dim)


def put_rows(whole: torch.Tensor, values: torch.Tensor, rows: Rows, dim: int) -> torch.Tensor:
    """Writes values into these rows of what was made for them, and returns it."""
    begin = 0
    for first, number in rows:
        whole.narrow(dim, first, number).copy_(values.narrow(dim, begin, number))
        begin += number
    return whole


def _rows(whole: torch.Tensor | None, rows: Rows) -> torch.Tensor | None:
    return whole if whole is None or not rows else taken_rows(whole, rows, 0)


def _num_outputs(rows: slice) -> int:
    return rows.stop - rows.start
