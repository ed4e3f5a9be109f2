"""The results of the check as Markdown: for the screen and for docs/gpu.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

MOST_TEXT = 300


def markdown(state: Mapping[str, dict]) -> str:
    """The machine, a line for each part, what did not hold or was not tried, and all figures."""
    machine, parts = state["machine"], state["parts"]
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()) + ".", ""]
    lines += table([summary(name, part) for name, part in parts.items()])
    for name, part in parts.items():
        lines += [f"- {name}: **{one['name']}** does not hold: {brief(one['found'])}" for one in part["checks"] if one["held"] is False]
    for name, part in parts.items():
        reasons = sorted({brief(one["found"]) for one in part["checks"] if one["held"] is None})
        lines += [f"- {name}, not tried: {reason}" for reason in reasons]
    for part in parts.values():
        for columns, rows in groupby(part["rows"], key=tuple):
            lines += ["", *table([{column: row[column] for column in columns} for row in rows])]
    return "\n".join(lines) + "\n"


def summary(name: str, part: Mapping[str, object]) -> dict[str, object]:
    """A part in a line: what came of it, and how many of its assertions held."""
    held = [one["held"] for one in part["checks"]]
    counts = {"held": held.count(True), "did not": held.count(False), "not tried": held.count(None)}
    return {"part": name, "result": part["result"], "s": round(part["seconds"]), **counts}


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Rows of the same columns."""
    columns = list(rows[0]) if rows else []
    cells = [columns, ["---"] * len(columns), *([("" if row[column] is None else str(row[column])) for column in columns] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in cells] if columns else []


def brief(text: str) -> str:
    """The line that says most: the error of a traceback, pytest's or Python's, else the last one."""
    lines = [line.removeprefix("E ").strip() for line in text.splitlines() if line.strip()] or ["no reason was given"]
    errors = [line for line in lines if "Error: " in line]
    return (errors or lines)[-1][:MOST_TEXT].replace("|", "\\|")
