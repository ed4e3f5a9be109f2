"""The shipped templates where ComfyUI has an accelerator, played by the CPU: weights move, and tensors of two devices never meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_host import PACK_NAME, PACK_ROOT, ComfyHost
from comfy_server import ComfyServer
from workflow_bench import NAMES, furnish, read_twin, shortened

PLENTY, SCARCE = (str(2**34), "plain"), (str(2**30), "plain")
PAGED = (PLENTY[0], "paged")
BRIEF = ("1_quick_start", "6_wan22_4_steps")
"""Templates that train, and that sample on two models; the others are tried at length."""


@pytest.fixture(
    scope="module",
    params=[PLENTY, pytest.param(SCARCE, marks=pytest.mark.thorough), pytest.param(PAGED, marks=pytest.mark.thorough)],
    ids=["plenty", "scarce", "paged"],
)
def accelerated(
    request: pytest.FixtureRequest, comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[ComfyServer]:
    """A server of its own. With a gigabyte, or paging, ComfyUI keeps weights in main memory and copies them over as they are needed."""
    base = tmp_path_factory.mktemp("accelerated")
    (base / "models").symlink_to(models, target_is_directory=True)
    packs = {PACK_NAME: PACK_ROOT, "Bench": Path(__file__).parent / "bench_nodes"}
    bytecode = request.config.cache.mkdir("comfyui-bytecode")
    with ComfyServer(comfy_host, base, packs, bytecode, device=request.param) as running:
        furnish(running)
        yield running


@pytest.mark.parametrize("name", [name if name in BRIEF else pytest.param(name, marks=pytest.mark.thorough) for name in NAMES])
def test_template_runs_on_an_accelerator(accelerated: ComfyServer, name: str) -> None:
    assert accelerated.get("/system_stats")["devices"][0]["type"] != "cpu"
    graph = shortened(read_twin(name))
    for part in graph.values():
        if part["class_type"] == "KSamplerSelect":
            part["inputs"]["sampler_name"] = "euler"  # the device draws no random numbers, which some samplers want
    accelerated.run(graph)
    assert "loaded partially" in accelerated.log() or (*accelerated.main[1:],) == PLENTY
