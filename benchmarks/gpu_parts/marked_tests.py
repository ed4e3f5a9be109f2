"""The tests that carry the marker `gpu`: those of the core, or those of the pack on ComfyUI's patchers."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from outcome import Outcome, run_part

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"core": ROOT / "tests" / "core", "patchers": ROOT / "tests" / "comfyui"}
MOST_TEXT = 3000


class Collector:
    """A pytest plugin that writes down what came of each test."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[2]
        if report.failed:
            self.outcome.check(name, False, str(report.longrepr)[-MOST_TEXT:])
        elif report.skipped:
            self.outcome.check(name, None, report.longrepr[2].removeprefix("Skipped: "))
        elif report.when == "call":
            self.outcome.check(name, True)


def main(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Runs the tests of a folder."""
    files = [path for path in sorted(FOLDERS[arguments.name].glob("test_*.py")) if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", f"--confcutdir={ROOT}", "-c", ROOT / "pyproject.toml"]
    status = pytest.main([*map(str, options), *map(str, files)], plugins=[Collector(outcome)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        outcome.check("the tests can be run", False, f"pytest ended with {status!r}")


if __name__ == "__main__":
    run_part(main, __doc__, tuple(FOLDERS))
