"""The files of an export, and what to say of them: what was written, what is lost, and strengths for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..method.pair import AdapterPair, Role
from .export_plan import ExportPlan
from .lora_export import SUFFIX, WrittenLora, export_lora
from .lora_forms import FORMS
from .step_strengths import TOOLS, strengths_text


@dataclass(frozen=True)
class ExportRequest:
    """Attributes:
    form, dtype: see `export_lora`.
    overwrites: existing files are replaced.
    """

    form: str = "comfyui"
    dtype: str = "fp32"
    overwrites: bool = False


def write_planned(
    path: Path, pair: AdapterPair, plan: ExportPlan, files: Sequence[Sequence[Role]], request: ExportRequest,
    header: Mapping[str, object], tools: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """Writes the files of a plan, and gives what there is to say, a line or several each.

    Args:
        path: of the file; where there are several, each adds the name of its side.
        files: the sides that go into each.
        tools: names in `TOOLS`, for each of which there are strengths, of files of one side alone.

    Raises:
        InputError: see `export_lora`.
    """
    stem, end = path.name.removesuffix(SUFFIX), SUFFIX if path.name.endswith(SUFFIX) else ""
    names = {tuple(roles): path if len(files) == 1 else path.with_name(f"{stem}_{roles[0]}{end}") for roles in files}
    written = {
        roles: export_lora(
            name, pair, {role: plan.weights[role] for role in roles if role in plan.weights} or dict.fromkeys(roles, 1.0),
            request.form, header, plan.blend, request.dtype, request.overwrites,
        )
        for roles, name in names.items()
    }  # fmt: skip
    lines = [_said(one, FORMS[request.form].readers) for own in written.values() for one in own]
    lines += plan.losses([role for roles in written for role in roles])
    factors = {}
    for roles, own in written.items():
        if len(roles) == 1 and plan.by_expert:
            by_expert, phases = plan.step_factors(roles[0]), list(plan.by_expert)
            factors |= {one.path: (by_expert[one.expert], phases.index(one.expert), len(phases)) for one in own}
    return lines + [strengths_text(tool, factors) for tool in tools if factors]


def strengths_of(lines: Sequence[str]) -> str:
    """Of what `write_planned` says, the strengths for each step."""
    titles = tuple(title for title, _ in TOOLS.values())
    return "\n".join(line for line in lines if line.startswith(titles))


def _said(one: WrittenLora, readers: str) -> str:
    ranks = f"rank {one.ranks[0]}" if one.ranks[0] == one.ranks[1] else f"ranks {one.ranks[0]} to {one.ranks[1]}"
    expert = f" of the {one.expert} expert" if one.expert else ""
    return f"wrote {one.path} for {readers}: {one.num_layers} layers{expert}, {ranks}."

