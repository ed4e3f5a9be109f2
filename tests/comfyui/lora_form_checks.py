"""What a LoRA file does to a tiny model by the stock loader and by ours, against its definition; see `lora_forms`.

The effect of either is read off as weights: a linear layer's by the identity matrix sent through it while the model runs, so it does not
matter whether a layer is hooked or its weight is patched.
"""

from __future__ import annotations

import copy
import importlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from dualreal_pack.dualreal_core.errors import InputError
from dualreal_pack.nodes.base_weights import with_beside
from dualreal_pack.nodes.lora_import import import_lora
from dualreal_pack.nodes.patching import Strengths, apply_pair
from tiny_checkpoints import write_checkpoint
from variant_bench import Bench, distance

sys.path.append(str(Path(__file__).resolve().parents[1]))
lora_forms = importlib.import_module("lora_forms")

DIT = "diffusion_model."
WIDEST = 1300
"""Inputs of the layers that are probed by identity; of wider ones, as those for text, only where the file changes them."""
HALF = 0.5
MAKES_SOUND = r"(?:^|[.])audio_(?!to_video)|video_to_audio|audio_out"
Weights = Mapping[str, torch.Tensor]


@dataclass
class Outcome:
    """What came of a form.

    Attributes:
        error: relative to the definition; None where it was refused or nothing was read.
        said: the note on what was left out, or the sentence that refused it.
    """

    error: float | None
    said: str = ""


class FormBench(Bench):
    """A model of `variants` to which files are applied.

    Args:
        dtype: that all of it is cast to by the loader; None: none.
    """

    def __init__(self, name: str, folder: Path, dtype: torch.dtype | None = None) -> None:
        super().__init__(name, folder)
        self.dtype = dtype

    @cached_property
    def model(self) -> ModelPatcher:
        options = {} if self.dtype is None else {"dtype": self.dtype}
        with torch.inference_mode():
            return comfy.sd.load_diffusion_model(str(write_checkpoint(self.variant, self.folder)), model_options=options)

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """Of the model as its file has it, by name."""
        return {name: weight.detach().float().clone() for name, weight in self.transformer.state_dict().items()}

    def written(self, form: lora_forms.Form, folder: Path) -> tuple[lora_forms.Sheet, Path]:
        """The sheet of a form, and its file."""
        sheet = lora_forms.Sheet(self.weights)
        form.write(sheet)
        return sheet, sheet.save(folder)

    def ours(self, form: lora_forms.Form, path: Path, strength: float = 1.0, audio: float = 1.0) -> tuple[ModelPatcher, str]:
        """A clone on which the file acts at an even blend, on every row and on sound, and the note on what was left out."""
        loaded, note = import_lora(self.model, path, "identity", form.expert)
        strengths = Strengths(identity=strength, adapts_negative=True, audio=audio)
        patched = apply_pair(self.model, copy.deepcopy(loaded.pair), strengths)
        return with_beside(patched, loaded.beside, strengths), note

    def stock(self, path: Path) -> ModelPatcher:
        """A clone that the stock loader patched."""
        tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
        patched, _ = comfy.sd.load_lora_for_models(self.model, None, tensors, 1.0, 0.0)
        return patched

    def changed(self, deltas: Weights) -> ModelPatcher:
        """A clone whose weights were changed so."""
        patched = self.model.clone()
        patched.add_patches({DIT + name: ("diff", (delta.float(),)) for name, delta in deltas.items()})
        for name, delta in deltas.items():
            if not name.endswith((".weight", ".bias")):  # which patches do not reach
                value = torch.nn.Parameter(self.weights[name] + delta.float().reshape(self.weights[name].shape), requires_grad=False)
                patched.add_object_patch(DIT + name, value)
        return patched

    def effect(self, patched: ModelPatcher, changed: set[str], looks_at_others: bool = True) -> dict[str, torch.Tensor]:
        """What a clone does to each parameter, in one call of the model.

        Args:
            changed: parameters to look at in any case.
        """
        found: dict[str, torch.Tensor] = {}

        def look(executor: object, latents: torch.Tensor, *args: object, **kwargs: object) -> object:
            output = executor(latents, *args, **kwargs)
            if not found:
                for name, parameter in self.transformer.state_dict().items():
                    found[name] = parameter.detach().double() - self.weights[name].double()
                for path, module in self.transformer.named_modules():
                    if is_linear(module) and (f"{path}.weight" in changed or (looks_at_others and module.in_features <= WIDEST)):
                        self._probe(path, module, found)
            return output

        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "probe", look)
        self.sampled(patched, cfg=1.0, steps=1)
        comfy.model_management.unload_all_models()
        return found

    def _probe(self, path: str, module: torch.nn.Module, found: dict[str, torch.Tensor]) -> None:
        eye = torch.eye(module.in_features, dtype=torch.float32)
        is_packed = self.variant.dit == "MiniMaxH3Model"
        try:
            through, none = (module(one if is_packed else one[None]) for one in (eye, torch.zeros(1, module.in_features)))
        except (RuntimeError, InputError) as error:
            raise AssertionError(f"{path} cannot be probed: {error}") from error
        bias = none.reshape(-1).double()
        found[f"{path}.weight"] = (through.reshape(module.in_features, -1).double() - bias).T - self.weights[f"{path}.weight"].double()
        if f"{path}.bias" in self.weights:
            found[f"{path}.bias"] = bias - self.weights[f"{path}.bias"].double()


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module is a linear layer with a weight of its own."""
    return isinstance(module, torch.nn.Linear) and module.weight.ndim == 2


def error_of(found: Weights, deltas: Weights) -> float:
    """Of all parameters together, relative to the definition's changes."""
    names = set(found) | set(deltas)
    missed = sum(float((found.get(name, 0) - deltas.get(name, 0)).square().sum()) for name in names)
    return (missed / sum(float(delta.square().sum()) for delta in deltas.values())) ** 0.5


def by_parameter(found: Weights, deltas: Weights) -> str:
    """The parameters that differ most, to tell what is wrong."""
    lines = []
    for name in sorted(set(found) | set(deltas)):
        there, wanted = found.get(name, torch.zeros(1)), deltas.get(name, torch.zeros(1))
        missed = float((there - wanted).norm())
        if missed > 1e-5 * max(1.0, float(wanted.norm())) and missed > 1e-4:
            lines.append(f"{name} off by {missed:.3g}, where {float(wanted.norm()):.3g} is wanted and {float(there.norm()):.3g} came")
    return "; ".join(lines[:6])


@contextmanager
def quiet() -> Iterator[None]:
    """Without the host's warnings on keys that it does not know."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)


def by_stock(bench: FormBench, sheet: lora_forms.Sheet, path: Path) -> Outcome:
    """What comes of a file in the stock loader."""
    try:
        with quiet():
            patched = bench.stock(path)
            if not patched.patches:
                return Outcome(None, "reads nothing")
            found = bench.effect(patched, set(sheet.deltas))
    except Exception as error:
        return Outcome(None, f"fails: {type(error).__name__}")
    if not sheet.deltas:
        return Outcome(None, "applies what it knows")
    return Outcome(error_of(found, sheet.deltas))


def by_ours(bench: FormBench, form: lora_forms.Form, sheet: lora_forms.Sheet, path: Path) -> tuple[Outcome, str]:
    """What comes of a file in ours, and by which parameters it is off."""
    try:
        patched, note = bench.ours(form, path)
    except InputError as error:
        return Outcome(None, str(error)), ""
    found = bench.effect(patched, set(sheet.deltas))
    if not sheet.deltas:
        return Outcome(float(sum(one.norm() for one in found.values())), note), "acts, though it is to be refused"
    return Outcome(error_of(found, sheet.deltas), note), by_parameter(found, sheet.deltas)


def error_at_half(bench: FormBench, form: lora_forms.Form, sheet: lora_forms.Sheet, path: Path) -> float:
    """At half of the strength, at which half of each change is to happen."""
    patched, _ = bench.ours(form, path, HALF)
    return error_of(
        bench.effect(patched, set(sheet.deltas), looks_at_others=False), {name: HALF * delta for name, delta in sheet.deltas.items()}
    )


def error_in_float8(form: lora_forms.Form, folder: Path) -> float:
    """On a model whose weights all have 8 bits, of what acts without being rounded to these: in layers of blocks, and modulations."""
    bench = FormBench(form.base, folder, torch.float8_e4m3fn)
    sheet, path = bench.written(form, folder / "float8")
    patched, _ = bench.ours(form, path)
    found = bench.effect(patched, set(sheet.deltas), looks_at_others=False)
    is_kept = {name for name in sheet.deltas if name.endswith("modulation") or (name.startswith("blocks.") and "norm" not in name)}
    return error_of({name: found[name] for name in is_kept}, {name: sheet.deltas[name] for name in is_kept})


def heard_without_audio_strength(bench: FormBench, form: lora_forms.Form, sheet: lora_forms.Sheet, path: Path) -> float:
    """How much of what is to change in the parts that make sound changes although the strength of sound is 0."""
    heard = {name: delta for name, delta in sheet.deltas.items() if re.search(MAKES_SOUND, name)}
    if not heard:
        return 0.0
    patched, _ = bench.ours(form, path, audio=0.0)
    found = bench.effect(patched, set(heard), looks_at_others=False)
    return sum(float(found[name].norm()) for name in heard) / sum(float(delta.norm()) for delta in heard.values())


def sampling_error(bench: FormBench, form: lora_forms.Form, sheet: lora_forms.Sheet, path: Path) -> float:
    """Of a whole sampling, against the model with changed weights."""
    patched, _ = bench.ours(form, path)
    return distance(bench.sampled(patched), bench.sampled(bench.changed(sheet.deltas)))
