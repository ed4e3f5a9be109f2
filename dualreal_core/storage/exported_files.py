"""The files of an export, and what to say of them: what was written, what is lost, and strengths for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..method.layer_updates import Parts, joined
from ..method.pair import AdapterPair, Role
from .beside_export import BesideParts
from .export_plan import ExportPlan
from .lora_export import WrittenLora, marked, prepare_lora
from .lora_forms import FORMS
from .step_strengths import FileStrengths, strengths_text


@dataclass(frozen=True)
class ExportRequest:
    """Attributes:
    form, dtype: see `export_lora`.
    overwrites: existing files are replaced.
    """

    form: str = "comfyui"
    dtype: str = "fp32"
    overwrites: bool = False


@dataclass(frozen=True)
class Exported:
    """Attributes:
    files: by the sides in them.
    losses: sentences on what they lack of the blend.
    """

    files: Mapping[tuple[Role, ...], Sequence[WrittenLora]]
    readers: str
    losses: Sequence[str] = ()
    strengths: Mapping[Role, Sequence[FileStrengths]] = field(default_factory=dict)

    def lines(self, tools: Sequence[str] = ()) -> list[str]:
        """What there is to say, a line or several each; strengths for each step as these tools take them."""
        written = [_said(one, self.readers) for files in self.files.values() for one in files]
        all_strengths = [one for own in self.strengths.values() for one in own]
        return [*written, *self.losses, *(strengths_text(tool, all_strengths) for tool in tools if all_strengths)]


def write_planned(
    path: Path, pair: AdapterPair, plan: ExportPlan, files: Sequence[tuple[Role, ...]], request: ExportRequest,
    header: Mapping[str, object], beside: Mapping[Role, Mapping[str, BesideParts]] | None = None,
) -> Exported:  # fmt: skip
    """Writes the files of a plan.

    Args:
        path: of the file; where there are several, each adds the name of its side.
        files: the sides that go into each.
        beside: by role and expert, what the LoRAs of a side change outside of the pair's reach; written in forms of ComfyUI's names.

    Raises:
        InputError: see `export_lora`.
    """
    prepared, strengths = {}, {}
    for roles in files:
        own = {role: plan.weights[role] for role in roles if role in plan.weights} or dict.fromkeys(roles, 1.0)
        name = path if len(files) == 1 else marked(path, roles[0])
        outside = _outside([(beside or {}).get(role, {}) for role in roles])
        prepared[roles] = prepare_lora(
            name, pair, own, request.form, header, plan.blend, request.dtype, request.overwrites, outside
        )  # fmt: skip
        if len(roles) == 1 and plan.by_expert and roles[0] in plan.weights:
            factors, phases = plan.step_factors(roles[0]), list(plan.by_expert)
            strengths[roles[0]] = [
                FileStrengths(one.path.name, factors[one.expert], phases.index(one.expert), len(phases)) for one in prepared[roles].files
            ]
    losses = plan.losses([role for roles in files for role in roles if role in plan.weights])
    written = {roles: own.write() for roles, own in prepared.items()}  # nothing where one of them is refused
    taken = {role: (beside or {}).get(role, {}) for roles in files for role in roles}
    losses += [*_in_full(written), *_left_out(taken, request.form)]
    return Exported(written, FORMS[request.form].readers, losses, strengths)


def _outside(sides: Sequence[Mapping[str, BesideParts]]) -> dict[str, dict[str, Parts]]:
    """By expert the parts of all sides, summed."""
    found: dict[str, dict[str, list[Parts]]] = {}
    for side in sides:
        for expert, own in side.items():
            for path, parts in own.parts.items():
                found.setdefault(expert, {}).setdefault(path, []).append(parts)
    return {expert: {path: joined(parts) for path, parts in own.items()} for expert, own in found.items()}


def _left_out(beside: Mapping[Role, Mapping[str, BesideParts]], form: str) -> list[str]:
    """A sentence on what of the LoRAs is not in the files."""
    sides = [own for side in beside.values() for own in side.values()]
    names = [name for own in sides for name in own.left]
    if FORMS[form].host != "comfy":
        names += [path for own in sides for path in own.parts]
    names = list(dict.fromkeys(names))
    if not names:
        return []
    counted = f"{len(names)} weight{'s' * (len(names) > 1)}"
    return [f"Left out is what the LoRAs change at {counted} outside of the blocks' layers, such as {names[0]}."]


def _said(one: WrittenLora, readers: str) -> str:
    ranks = f"rank {one.ranks[0]}" if one.ranks[0] == one.ranks[1] else f"ranks {one.ranks[0]} to {one.ranks[1]}"
    kinds = [ranks] * bool(one.ranks[1]) + [f"{kind} ({number} layer{'s' * (number > 1)})" for kind, number in one.kinds.items()]
    layers = f"{one.num_layers} layer{'s' * (one.num_layers > 1)}" + (f" of the {one.expert} expert" if one.expert else "")
    return f"Wrote {one.path.name} for {readers}: {layers}, {', '.join(kinds)}; {one.num_bytes / 1e6:.3g} MB."


def _in_full(files: Mapping[tuple[Role, ...], Sequence[WrittenLora]]) -> list[str]:
    """A sentence on mixes that grow to the size of the model's layers."""
    grown = any(len(roles) > 1 and "full differences" in one.kinds for roles, written in files.items() for one in written)
    said = "In a mix, a LoRA and an update of another kind become one difference as large as the layer: side 'both' keeps files small."
    return [said] * grown
