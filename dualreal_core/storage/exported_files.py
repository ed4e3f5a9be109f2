"""The files of an export, and what to say of them: what was written, what is lost, and strengths for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..method.pair import AdapterPair, Role
from .export_plan import ExportPlan
from .lora_export import WrittenLora, export_lora, marked
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
    header: Mapping[str, object],
) -> Exported:  # fmt: skip
    """Writes the files of a plan.

    Args:
        path: of the file; where there are several, each adds the name of its side.
        files: the sides that go into each.

    Raises:
        InputError: see `export_lora`.
    """
    written, strengths = {}, {}
    for roles in files:
        own = {role: plan.weights[role] for role in roles if role in plan.weights} or dict.fromkeys(roles, 1.0)
        name = path if len(files) == 1 else marked(path, roles[0])
        written[roles] = export_lora(name, pair, own, request.form, header, plan.blend, request.dtype, request.overwrites)
        if len(roles) == 1 and plan.by_expert and roles[0] in plan.weights:
            factors, phases = plan.step_factors(roles[0]), list(plan.by_expert)
            strengths[roles[0]] = [
                FileStrengths(one.path.name, factors[one.expert], phases.index(one.expert), len(phases)) for one in written[roles]
            ]
    losses = plan.losses([role for roles in files for role in roles if role in plan.weights])
    return Exported(written, FORMS[request.form].readers, losses, strengths)


def _said(one: WrittenLora, readers: str) -> str:
    ranks = f"rank {one.ranks[0]}" if one.ranks[0] == one.ranks[1] else f"ranks {one.ranks[0]} to {one.ranks[1]}"
    layers = f"{one.num_layers} layers" + (f" of the {one.expert} expert" if one.expert else "")
    return f"Wrote {one.path.name} for {readers}: {layers}, {ranks}."
