"""Sorts the layers of a LoRA file: into updates of a DiT's blocks, updates beside them, and what is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...errors import InputError
from ...families import family_of
from ...families.lora_names import NamedRows, Target
from ...method.from_lora import FormUpdate, block_layers
from ...method.layer_forms import FormSum, LayerForm
from ...method.pair import base_sizes
from ..lora_strength import LoraStrength
from .base_weights import WeightOf
from .here import BadLayer, Here, WrongSize
from .keys import FileLayer
from .kinds import forms_of
from .models import recognise
from .reordered import reordered
from .report import LoadReport, Share, some
from .resolve import TEXT_ENCODER, Names, is_foreign, title_of


@dataclass(frozen=True)
class BesideUpdate:
    """An update of a weight on which a pair cannot act by stage and depth.

    Attributes:
        path: in the DiT, of the module, or of a parameter that stands alone.
        parameter: the name of what changes.
        shape: of it.
        total: the update of the weight as a matrix, convolutions flattened; of a bias, `total.bias_delta`.
        is_bias: whether it is one.
        is_audio: whether it is of what makes sound.
    """

    path: str
    parameter: str
    shape: tuple[int, ...]
    total: FormSum
    is_bias: bool = False
    is_audio: bool = False

    def delta(self, weight: torch.Tensor) -> torch.Tensor | None:
        """What is added to the parameter, whose values are given; in its shape, float32."""
        own = weight.float()
        change = self.total.bias_delta(own) if self.is_bias else self.total.delta(as_matrix(own))
        return None if change is None else change.reshape(weight.shape)


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A weight with its inputs in one dimension; vectors and small tensors that stand alone as they are."""
    return weight.flatten(1) if weight.ndim > 1 else weight


class SideReader:
    """What is read of a file for one DiT."""

    def __init__(self, transformer: nn.Module, file: str, strength: LoraStrength, weight_of: WeightOf) -> None:
        self.transformer, self.file, self.strength, self.weight_of = transformer, file, strength, weight_of
        self.names = Names(transformer)
        self.places = block_layers(transformer)
        self.updates: list[FormUpdate] = []
        self.kinds: dict[str, int] = {}
        self.num_layers = 0
        self.block_squares = [0.0] * base_sizes(transformer)["num_blocks"]
        self.besides: dict[str, list[tuple[LayerForm, tuple[tuple[int, int], ...]]]] = {}
        self.beside_squares: dict[str, float | None] = {}
        self.left: dict[str, tuple[float | None, str]] = {}
        self.foreign = 0
        self.empty: list[str] = []
        self.taken: dict[tuple[str, bool], list[tuple[int, int, str]]] = {}
        self.kept_for_error: dict[str, FileLayer] = {}

    def read(self, layers: Mapping[str, FileLayer]) -> None:
        """Sorts the layers and makes updates of them.

        Raises:
            InputError: see `load_side`.
        """
        self.kept_for_error = dict(layers)
        own = {name: layer for name, layer in layers.items() if not is_foreign(name)}
        self.foreign = sum(len(layer.parts) for name, layer in layers.items() if name not in own)
        if layers and not own:
            raise InputError(
                f"{self.file} changes the text encoder alone: give a LoRA of the video model, or apply it with the stock LoRA loader "
                "instead."
            )
        self.empty = [name for name, layer in own.items() if layer.is_empty]
        own = {name: layer for name, layer in own.items() if not layer.is_empty}
        if self.empty and not own:
            raise InputError(f"{self.file} changes nothing: all of its {len(self.empty)} layers have rank 0; use another file.")
        if own and all(layer.is_whole for layer in own.values()):
            raise InputError(f"{self.file} holds whole weights, as of a model or a part of one, and no LoRA: load it as a diffusion model.")
        targets = {name: self._target(layer) for name, layer in own.items()}
        unmatched = [name for name, target in targets.items() if target is None]
        if len(unmatched) == len(own):
            raise InputError(self._of_another_model(unmatched))
        beyond = {name: block for name in unmatched if (block := self.names.block_beyond(name)) is not None}
        if beyond:
            raise InputError(self._too_deep(own, beyond))
        if self.strength.is_dora and not any("dora_scale" in layer.parts for layer in own.values()):
            raise InputError(f"{self.file} is a DoRA by its configuration, but holds no magnitudes: it is incomplete; use another copy.")
        for name, layer in own.items():
            target = targets[name]
            if target is None:
                self._leave_out(layer)
            else:
                self._take(layer, target)
            layer.forget()

    def _target(self, layer: FileLayer) -> Target | None:
        found = self.names.find(layer.name)
        return None if found is None else reordered(self.transformer, layer, found, self.strength.adapter_config)

    def _take(self, layer: FileLayer, target: Target) -> None:
        is_in_block = all(rows.path in self.places for rows in target)
        here = self._here(layer, target)
        try:
            forms, kinds = forms_of(here)
        except WrongSize as error:
            if is_in_block:
                raise InputError(f"{self.file} {error}{self._seems()}.") from error
            self.left[layer.name] = None, "of another size here"
            return
        except BadLayer as error:
            raise InputError(f"{self.file} {error}.") from error
        self._count(target, layer, forms)
        weight = self._weight(target) if any(form.reads_weight for form in forms) else None
        squares = _squares(forms, weight)
        square = None if None in squares else sum(squares)
        for kind in kinds:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if is_in_block:
            of_layers = self._by_layer(target, list(zip(forms, squares, strict=True)), lambda rows: self._layer_of(rows.path))
            self.updates += [FormUpdate(own, form, part) for own, form, part in of_layers]
            self.num_layers += 1
            self.block_squares[self.places[target[0].path].block] += square or 0.0
            return
        self.beside_squares[layer.name] = square
        for own_target, form, _ in self._by_layer(target, list(zip(forms, squares, strict=True)), lambda rows: rows.path):
            path = own_target[0].path
            runs = tuple((rows.first_row, rows.num_rows) for rows in own_target)
            self.besides.setdefault(path, []).append((form, () if runs == ((0, self._height(path)),) else runs))

    def _layer_of(self, path: str) -> tuple[int, str]:
        place = self.places[path]
        return place.block, place.layer

    def _by_layer(
        self, target: Target, forms: Sequence[tuple[LayerForm, float | None]], layer_of: Callable[[NamedRows], object]
    ) -> Iterator[tuple[Target, LayerForm, float | None]]:
        """Updates of a target that is one layer here as they are; of one that is several, the update of the outputs of each."""
        groups = [(layer, tuple(rows)) for layer, rows in itertools.groupby(target, layer_of)]
        for form, square in forms:
            begin = 0
            for _, rows in groups:
                height = sum(run.num_rows for run in rows)
                if len(groups) == 1:
                    yield rows, form, square
                else:
                    own = form.of_outputs(slice(begin, begin + height))
                    weight = self._weight(rows) if own.reads_weight else None
                    yield rows, own, own.squared_norm(weight)
                begin += height

    def _here(self, layer: FileLayer, target: Target) -> Here:
        height = sum(rows.num_rows for rows in target)
        shape = (height, *self._shape(target[0].path)[1:])
        return Here(layer, self.strength, shape, lambda: self._weight(target), lambda: self._bias(target))

    def _weight(self, target: Target) -> torch.Tensor | None:
        runs = [self._values(self._parameter(rows.path)) for rows in target]
        if any(run is None for run in runs):
            return None
        if any(tuple(run.shape) != self._shape(rows.path) for run, rows in zip(runs, target, strict=True)):
            return None
        picked = [as_matrix(run)[rows.first_row : rows.first_row + rows.num_rows] for run, rows in zip(runs, target, strict=True)]
        return picked[0] if len(picked) == 1 else torch.cat(picked)

    def _bias(self, target: Target) -> torch.Tensor | None:
        """The bias of outputs, None where the layers have none.

        Raises:
            BadLayer: there is one that cannot be read.
        """
        runs = []
        for rows in target:
            own = getattr(self._module(rows.path), "bias", None)
            if own is None:
                return None
            values = self._values(f"{rows.path}.bias")
            if values is None:
                raise BadLayer(f"depends on the bias of {rows.path}, which cannot be read: load the model in a form with plain weights")
            runs.append(values[rows.first_row : rows.first_row + rows.num_rows])
        return torch.cat(runs)

    def _values(self, name: str) -> torch.Tensor | None:
        found = self.weight_of(name)
        return None if found is None else found.detach().to("cpu", torch.float32)

    def _module(self, path: str) -> nn.Module | None:
        try:
            return self.transformer.get_submodule(path)
        except AttributeError:
            return None

    def _parameter(self, path: str) -> str:
        return path if self._module(path) is None else f"{path}.weight"

    def _height(self, path: str) -> int:
        return self._shape(path)[0]

    def _shape(self, path: str) -> tuple[int, ...]:
        module = self._module(path)
        if module is not None and hasattr(module, "in_features"):
            return module.out_features, module.in_features
        if module is not None:
            return tuple(module.weight.shape)
        parent, _, name = path.rpartition(".")
        return tuple(getattr(self.transformer.get_submodule(parent), name).shape)

    def _count(self, target: Target, layer: FileLayer, forms: Sequence[LayerForm]) -> None:
        """Raises InputError where the file has two layers that are one; a weight and its bias may have different names."""
        changed = [is_bias for is_bias in (False, True) if any(form.changes_bias if is_bias else form.changes_weight for form in forms)]
        for rows, is_bias in itertools.product(target, changed):
            taken = self.taken.setdefault((rows.path, is_bias), [])
            for first, number, other in taken:
                if other != layer.name and first < rows.first_row + rows.num_rows and rows.first_row < first + number:
                    raise InputError(
                        f"{self.file} holds two updates of the same outputs of {rows.path}, as {other} and as {layer.name}: which is meant "
                        "is not known; use a file with one of them."
                    )
            taken.append((rows.first_row, rows.num_rows, layer.name))

    def _leave_out(self, layer: FileLayer) -> None:
        try:
            forms, _ = forms_of(Here(layer, self.strength, None))
            square = FormSum.of(forms).squared_norm(None)
        except (BadLayer, InputError):
            square = None
        self.left[layer.name] = square, ""

    def beside(self) -> Iterator[BesideUpdate]:
        """What acts with a constant strength alone."""
        for path, forms in self.besides.items():
            total = FormSum.of(forms)
            shape, is_audio = self._shape(path), family_of(self.transformer).is_audio(path)
            if any(part.changes_weight for part in total.parts.values()):
                yield BesideUpdate(path, self._parameter(path), shape, total, is_audio=is_audio)
            if any(part.changes_bias for part in total.parts.values()) and getattr(self._module(path), "bias", None) is not None:
                yield BesideUpdate(path, f"{path}.bias", shape[:1], total, is_bias=True, is_audio=is_audio)

    def report(self, triggers: tuple[str, ...], notes: tuple[str, ...]) -> LoadReport:
        """What became of the file."""
        left = _shares({name: square for name, (square, reason) in self.left.items() if not reason})
        for reason in dict.fromkeys(reason for _, reason in self.left.values() if reason):
            left += _shares({name: square for name, (square, why) in self.left.items() if why == reason}, reason)
        if self.foreign:
            left.append(Share(TEXT_ENCODER, 0, None, self.foreign))
        return LoadReport(
            self.file,
            dict(self.kinds),
            self.num_layers,
            tuple(math.sqrt(square) for square in self.block_squares),
            tuple(_shares(self.beside_squares)),
            tuple(left),
            tuple(self.empty),
            triggers,
            notes,
        )

    def _of_another_model(self, names: list[str]) -> str:
        number = len(names)
        return (
            f"{self.file} is a LoRA of another model{self._seems('')}: none of its {number} layer{'s' * (number > 1)}, such as "
            f"{' and '.join(names[:2])}, belongs to this one ({self._this()})."
        )

    def _too_deep(self, own: Mapping[str, FileLayer], beyond: Mapping[str, int]) -> str:
        return (
            f"{self.file} is a LoRA of a deeper model{self._seems('')}: {len(beyond)} of its {len(own)} layers are of blocks up to "
            f"{max(beyond.values())}, as {some(list(beyond))}, and this one has fewer ({self._this()}). Use the model that the LoRA was "
            "made for."
        )

    def _this(self) -> str:
        sizes = base_sizes(self.transformer)
        return f"{family_of(self.transformer).name}, {sizes['num_blocks']} blocks of width {sizes['dim']}"

    def _seems(self, before: str = "; it") -> str:
        title = recognise(self.kept_for_error.values())
        if title is None:
            return ""
        return f"{before} seems to be of {title}" if before else f" (it seems to be of {title})"


def _squares(forms: list[LayerForm], weight: torch.Tensor | None) -> list[float | None]:
    """Squared norms of updates of one layer, of all that change its weight at once as that of the first."""
    changing = [form for form in forms if form.changes_weight]
    if len(changing) < 2 or (weight is None and any(form.reads_weight for form in changing)):
        return [form.squared_norm(weight) for form in forms]
    delta = FormSum.of(changing).delta(weight)
    whole = 0.0 if delta is None else float(delta.double().square().sum())
    return [whole if form is changing[0] else 0.0 if form.changes_weight else form.squared_norm(weight) for form in forms]


def _shares(squares: Mapping[str, float | None], reason: str = "") -> list[Share]:
    titles: dict[str, dict[str, float | None]] = {}
    for name, square in squares.items():
        titles.setdefault(title_of(name), {})[name] = square
    return [
        Share(title, len(own), None if None in own.values() else math.sqrt(sum(own.values())), reason=reason, example=next(iter(own)))
        for title, own in titles.items()
    ]
