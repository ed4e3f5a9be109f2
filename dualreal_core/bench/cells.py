"""Scores of results as `docs/` keeps them: a JSON file of parts, a result a line, so that each figure can be followed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files.atomic import atomic_path

SECONDS = ("training", "joining")


def read_cells(file: Path, part: str) -> list[dict]:
    """The results of a part.

    Raises:
        KeyError: the file has no such part.
    """
    return json.loads(file.read_text(encoding="utf-8"))[part]


def write_cells(file: Path, part: str, results: Sequence[Mapping], measures: Sequence[str]) -> None:
    """Puts these scores of the results into a part of the file, in place of what it held; other parts stay."""
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    stored[part] = [_cell(result, measures) for result in results]
    parts = (f'"{name}": [\n' + ",\n".join(json.dumps(one) for one in cells) + "\n]" for name, cells in stored.items())
    with atomic_path(file) as temporary:
        temporary.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def read_results(folder: Path) -> list[dict]:
    """All results below a benchmark's folder of results."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*/*.json"))]


def _cell(result: Mapping, measures: Sequence[str]) -> dict:
    kept = {name: result[name] for name in ("method", "identity", "motion", "seed")}
    scores = {name: round(result["scores"][name], 4) for name in measures if name in result["scores"]}
    seconds = {name: result["seconds"][name] for name in SECONDS}
    return {**kept, "scores": scores, "seconds": seconds, **({"note": result["note"]} if "note" in result else {})}
