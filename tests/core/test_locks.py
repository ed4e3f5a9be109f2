"""A run, or a benchmark's folder, is worked on by one process at a time; a killed one leaves it free."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dualreal_core.cli import main
from dualreal_core.errors import InputError
from dualreal_core.files.locks import exclusive_lock
from dualreal_core.training.run import RunDirectory

ASKED_FOR = {"training": {"steps": 3}}
HOLD = """
import sys, time
from pathlib import Path
from dualreal_core.training.run import RunDirectory
with RunDirectory(Path(sys.argv[1])).opened({"training": {"steps": 3}}, False):
    print("at work", flush=True)
    time.sleep(600)
"""


@contextmanager
def other_process_at_work(folder: Path) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "at work\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_run_that_another_process_is_at_work_on_is_refused_and_left_as_it_is(tmp_path, is_resumed):
    with other_process_at_work(tmp_path):
        before = files_of(tmp_path)
        with pytest.raises(InputError, match="in use by another process: wait until that one ends"), open_run(tmp_path, is_resumed):
            pass
        assert files_of(tmp_path) == before


def open_run(folder: Path, is_resumed: bool):
    return RunDirectory(folder).opened(ASKED_FOR, is_resumed)


def test_a_killed_process_leaves_its_run_free(tmp_path):
    with other_process_at_work(tmp_path) as process:
        process.kill()
        process.wait()
        with open_run(tmp_path, True):
            pass


def test_an_error_leaves_the_run_free(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, False):
        _ = 1 / 0
    with open_run(tmp_path, True):
        pass


def test_to_resume_what_is_not_there_makes_no_folder(tmp_path):
    with pytest.raises(InputError, match="holds no run to resume"), open_run(tmp_path / "run", True):
        pass
    assert not (tmp_path / "run").exists()


def test_where_no_lock_can_be_written_the_folder_is_complained_about(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="in the way"), open_run(tmp_path / "run", False):
        pass


def test_a_second_command_in_a_benchmark_folder_is_refused(tmp_path, capsys):
    with exclusive_lock(tmp_path):
        assert main(["bench", "fusion", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} is in use by another process" in capsys.readouterr().err
    assert not (tmp_path / "benchmark.json").exists()
