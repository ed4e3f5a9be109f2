"""pytest plugin: one ComfyUI server per session, for tests/comfyui and tests/canvas; says loudly when there is none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from canvas_page import browser_absence_reason
from comfy_host import PACK_NAME, PACK_ROOT, ComfyHost, absence_reason, find_host
from variants import VARIANTS

if TYPE_CHECKING:
    from comfy_server import ComfyServer

HERE = Path(__file__).parent
LOG_BEGIN = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def comfy_host() -> ComfyHost:
    return find_host()


@pytest.fixture(scope="session")
def comfy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's own folder: its input, output, user and models lie here."""
    return tmp_path_factory.mktemp("comfyui")


def make_checkpoints(host: ComfyHost, folder: Path, names: Iterable[str] = ()) -> None:
    """Writes the tiny checkpoints of some names in `variants`, without any those of `architectures` and a Wan VAE."""
    command = [host.python, HERE / "tiny_checkpoints.py", host.path, folder, *names]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"the tiny checkpoints could not be made:\n{made.stderr}")


@pytest.fixture(scope="session")
def models(comfy_host: ComfyHost, comfy_base: Path) -> Path:
    """The models folder, with a tiny checkpoint of every architecture and a tiny Wan VAE."""
    folder = comfy_base / "models"
    make_checkpoints(comfy_host, folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(comfy_host: ComfyHost, models: Path) -> Callable[..., list[str]]:
    """Gives the file names of tiny checkpoints by names of `variants`, and makes those that are not there yet."""

    def names_of(*names: str) -> list[str]:
        files = {name: VARIANTS[name].checkpoint for name in names}
        missing = [name for name, file in files.items() if not (models / "diffusion_models" / file).exists()]
        if missing:
            make_checkpoints(comfy_host, models, missing)
        return list(files.values())

    return names_of


@pytest.fixture(scope="session")
def server(comfy_host: ComfyHost, comfy_base: Path, models: Path, pytestconfig: pytest.Config) -> Iterator[ComfyServer]:
    """A running server with the pack and the private bench nodes."""
    # Imported here, so that the core's tests need no websocket client.
    from comfy_server import ComfyServer

    packs = {PACK_NAME: PACK_ROOT, "Bench": HERE / "bench_nodes"}
    with ComfyServer(comfy_host, comfy_base, packs, pytestconfig.cache.mkdir("comfyui-bytecode")) as running:
        yield running


def _absences() -> dict[Path, str]:
    """Why the tests of a folder cannot run, where they cannot."""
    comfyui_reason = absence_reason()
    reasons = {HERE: comfyui_reason, HERE.parent / "canvas": comfyui_reason or browser_absence_reason()}
    return {folder: reason for folder, reason in reasons.items() if reason}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for folder, reason in _absences().items():
        for item in items:
            if item.path.is_relative_to(folder):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Generator[None, None, None]:
    """Says it after everything else, where it is read."""
    yield
    skipped = [config.rootpath / report.fspath for report in terminalreporter.stats.get("skipped", [])]
    for folder, reason in _absences().items():
        if number := sum(path.is_relative_to(folder) for path in skipped):
            terminalreporter.write_line(f"tests/{folder.name} WAS NOT RUN, {number} tests skipped: {reason}", red=True, bold=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    if running := getattr(item, "funcargs", {}).get("server"):
        item.stash[LOG_BEGIN] = len(running.log())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows what the server wrote during a test, where that test failed."""
    report = yield
    running = getattr(item, "funcargs", {}).get("server")
    if report.failed and running:
        report.sections.append(("ComfyUI log of this test", running.log_tail(item.stash.get(LOG_BEGIN, 0))))
    return report
