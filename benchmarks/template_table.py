"""Which of ComfyUI's own video templates run with a pair behind their model loaders, and the share of their users' runs that is.

    python benchmarks/template_table.py [--pack FOLDER]     about 3 minutes on 2 CPU cores

The graphs are those of the ComfyUI at COMFYUI_PATH, opened in its page by Chromium, on tiny models of noise; --pack tries another copy
of this pack. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / folder) for folder in ("comfyui", "canvas"))]

from canvas_page import CanvasPage, browser_absence_reason, opened_page  # noqa: E402
from comfy_host import PACK_NAME, find_host  # noqa: E402
from comfy_run import PromptRejected, RunFailed  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402
from official_templates import TEMPLATES  # noqa: E402
from template_runs import ABSENT, convert, furnish, run_template  # noqa: E402

RUN_SHARES = {"MiniMax-H3": 46, "LTX-2.3": 24, "Wan 2.2 A14B": 14, "LTX-2.5": 8, "Wan Animate 2": 2, "SCAIL-2": 2, "Wan 2.1": 1}
"""Percent of the runs of ComfyUI's video templates in October 2026; every other family has less than 1."""
ACTS = "runs"


def outcome(server: ComfyServer, canvas: CanvasPage, name: str) -> str:
    """What happened to a template, in a sentence; it begins with ACTS where the pair acted."""
    try:
        converted = convert(canvas, name)
        if converted is None:
            return f"not tried: {ABSENT.format(name)}"
        run = run_template(server, name, converted)
    except RunFailed as failed:
        is_ours = failed.node_type.startswith("DualReal")
        return f"refused: {failed.message}" if is_ours else f"not tried: {failed.node_type}: {failed.message}"
    except PromptRejected as rejected:
        return f"not tried: {rejected}"
    samplings = f"{len(run.trained)} sampling{'s' * (len(run.trained) > 1)}"
    if not run.acts:
        return f"without effect: the pair did nothing in one of {samplings}"
    if not run.is_neutral:
        return f"not neutral: an untrained pair changed one of {samplings}"
    return f"{ACTS}: the pair acts in {samplings}, an untrained one changes no bit"


def table(outcomes: dict[str, str]) -> str:
    """Rows of Markdown, a family's share in its first one; and the share of runs on which a pair acts: of families that ran whole."""
    lines, told = ["| Template | Family | The family's share of runs | With a pair |", "| --- | --- | --- | --- |"], set()
    for name, said in outcomes.items():
        family = TEMPLATES[name].family
        share = f"{RUN_SHARES[family]} %" if family in RUN_SHARES else "below 1 %"
        lines.append(f"| {name} | {family} | {'' if family in told else share} | {said} |")
        told.add(family)
    failing = {TEMPLATES[name].family for name, said in outcomes.items() if not said.startswith(ACTS)}
    total = sum(RUN_SHARES.get(family, 0) for family in {TEMPLATES[name].family for name in outcomes} - failing)
    return "\n".join([*lines, "", f"A pair acts on {total} % of the runs, families below 1 % not counted."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, default=ROOT, help="the copy of this pack to try (default: this one)")
    pack = parser.parse_args().pack.resolve()
    if reason := browser_absence_reason():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        base.mkdir()
        packs = {PACK_NAME: pack, "Bench": ROOT / "tests" / "comfyui" / "bench_nodes"}
        with ComfyServer(find_host(), base, packs, Path(folder) / "bytecode") as server:
            furnish(server)
            with opened_page(server.url) as canvas:
                print(table({name: outcome(server, canvas, name) for name in TEMPLATES}))


if __name__ == "__main__":
    main()
