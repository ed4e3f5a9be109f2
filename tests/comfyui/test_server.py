"""The pack installs into a stock ComfyUI, and the bench itself works: tiny models run, errors and interrupts arrive."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import graphs
import pytest
from architectures import ARCHITECTURES, Architecture
from comfy_host import PACK_NAME, PACK_ROOT, ComfyHost
from comfy_run import PromptRejected, RunFailed
from comfy_server import ComfyServer

IMPORT_SECONDS = 3.0  # a third of one on a quiet machine; diffusers alone takes several

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=list(ARCHITECTURES))


@pytest.fixture(scope="module")
def pack_nodes(server: ComfyServer) -> dict[str, dict]:
    """Node id to its object_info, for every node of the pack."""
    return {name: node for name, node in server.object_info().items() if node["python_module"] == f"custom_nodes.{PACK_NAME}"}


def inputs_of(node: dict) -> Iterator[tuple[str, dict]]:
    """Name and options of every input of a node, the ones behind a dynamic combo included."""
    for group in ("required", "optional"):
        for name, spec in node.get("input", {}).get(group, {}).items():
            options = spec[1] if len(spec) > 1 else {}
            yield name, options
            for choice in options.get("options", []):
                if isinstance(choice, dict) and "inputs" in choice:
                    yield from ((f"{name}.{inner}", found) for inner, found in inputs_of({"input": choice["inputs"]}))


def test_pack_loads_without_import_errors(server: ComfyServer) -> None:
    failed = [name for name, (_, has_failed) in server.import_times().items() if has_failed]
    assert "IMPORT FAILED" not in server.log(), f"failed to import: {failed}\n{server.log_tail()}"
    assert {PACK_NAME, "Bench"} <= set(server.import_times())


def test_pack_import_time(server: ComfyServer) -> None:
    seconds, _ = server.import_times()[PACK_NAME]
    assert seconds < IMPORT_SECONDS, f"importing the pack took {seconds} s of ComfyUI's start; import what is heavy where it is used"


def test_pack_has_nodes_under_its_own_prefix(pack_nodes: dict[str, dict]) -> None:
    assert pack_nodes, f"{PACK_NAME} registered no node"
    assert not [name for name in pack_nodes if not name.startswith(PACK_NAME)]


def test_every_input_and_output_has_a_tooltip(pack_nodes: dict[str, dict]) -> None:
    assert pack_nodes, f"{PACK_NAME} registered no node"
    silent = []
    for node_id, node in pack_nodes.items():
        silent += [f"{node_id}.{name}" for name, options in inputs_of(node) if not options.get("tooltip")]
        tooltips = node.get("output_tooltips") or [None] * len(node["output"])
        silent += [f"{node_id} -> {name}" for name, tooltip in zip(node["output_name"], tooltips, strict=True) if not tooltip]
    assert not silent


def test_dependencies_of_comfyui_are_intact(comfy_host: ComfyHost) -> None:
    checked = run_pip(comfy_host, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pack_requires_nothing_that_comfyui_lacks(comfy_host: ComfyHost) -> None:
    requirements = PACK_ROOT / "requirements.txt"
    if not requirements.exists():
        return
    # Without an index pip can only be satisfied by what is installed.
    planned = run_pip(comfy_host, "install", "--dry-run", "--no-index", "-r", str(requirements))
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "Would install" not in planned.stdout


def run_pip(host: ComfyHost, *args: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([host.python, "-m", "pip", *args], capture_output=True, text=True)
    if "No module named pip" in result.stderr:
        pytest.skip(f"{host.python} has no pip")
    return result


@every_architecture
def test_tiny_model_samples(server: ComfyServer, architecture: Architecture) -> None:
    graph = graphs.text_to_latent(architecture.name)
    graph = graphs.through(graph, "probe", graphs.node("BenchProbe"))
    graph["report"] = graphs.report(["probe", 0], after=["sample", 0])
    run = server.run(graph)
    sample = server.tensors(run)["0.samples"]
    assert sample.shape == (1, *architecture.latent_shape)
    assert sample.isfinite().all()
    assert 0.05 < sample.std() < 50
    report = run.report("report")
    assert report["dit"] == architecture.dit
    assert report["num_hooks"] == 0
    assert len(report["calls"]) == 2
    # One batch a step, the unconditional row first; the input keeps a unit spread in each model's own parameterisation.
    assert all(call["cond_or_uncond"] == [1, 0] and 0.3 < call["std"] < 3 for call in report["calls"])


@every_architecture
def test_same_graph_gives_the_same_latent(server: ComfyServer, architecture: Architecture) -> None:
    graph = graphs.text_to_latent(architecture.name, seed=5)
    first = server.tensors(server.run(graph))["0.samples"]
    assert server.run(graph).executed_nodes() == []
    again = server.run(graphs.afresh(graph, "sample"))
    assert again.executed_nodes() == ["sample", "save"]
    assert server.tensors(again)["0.samples"].equal(first)


def test_free_forgets_what_was_computed(server: ComfyServer) -> None:
    graph = graphs.text_to_latent("wan", seed=6)
    first = server.tensors(server.run(graph))["0.samples"]
    server.free()
    again = server.run(graph)
    assert {"model", "sample"} <= set(again.executed_nodes())
    assert server.tensors(again)["0.samples"].equal(first)


def test_tiny_vae_decodes(server: ComfyServer) -> None:
    run = server.run(graphs.decoded(graphs.text_to_latent("wan"), ["sample", 0]))
    frames = run.files("images")
    assert len(frames) == 9
    assert server.fetch(frames[0]).startswith(b"\x89PNG")


def test_lists_of_noise_are_kept_exactly(server: ComfyServer) -> None:
    graph = {
        "cond": graphs.conditioning("hunyuan", seed=3, tokens=5, count=2),
        "latents": graphs.latents("hunyuan", seed=3, count=3),
        "broken": graphs.latents("hunyuan", seed=3, fill="nan"),
        "save_cond": graphs.save(["cond", 0]),
        "save": graphs.save(["latents", 0]),
        "save_broken": graphs.save(["broken", 0]),
    }
    run = server.run(graph)
    shapes = {path: tuple(tensor.shape) for path, tensor in server.tensors(run, "save_cond").items()}
    assert shapes == {f"{i}.0.{leaf}": shape for i in range(2) for leaf, shape in (("0", (1, 5, 4096)), ("1.pooled_output", (1, 768)))}
    assert set(server.tensors(run)) == {"0.samples", "1.samples", "2.samples"}
    assert server.tensors(run, "save_broken")["0.samples"].isnan().all()


def test_raw_sampler_predicts_at_each_sigma(server: ComfyServer) -> None:
    graph = graphs.text_to_latent("wan") | graphs.raw_predictions(["model", 0], sigmas=[0.9, 0.5, 0.1])
    predictions = server.tensors(server.run(graph))["0.samples"]
    assert predictions.shape == (3, *ARCHITECTURES["wan"].latent_shape)
    assert not predictions[0].equal(predictions[1])


def test_rejected_graph_names_the_node(server: ComfyServer) -> None:
    with pytest.raises(PromptRejected) as rejected:
        server.run({"lone": graphs.node("KSampler"), "save": graphs.save(["lone", 0])})
    assert "lone" in rejected.value.node_errors


def test_failing_node_is_named_with_its_message(server: ComfyServer) -> None:
    graph = graphs.text_to_latent("wan")
    graph["pos"] = graphs.conditioning("ltxv", seed=1, tokens=4)
    graph["pos"]["inputs"]["text_dim"] = 8
    with pytest.raises(RunFailed) as failed:
        server.run(graph)
    assert failed.value.node_id == "sample"
    assert failed.value.message
    assert server.queue_length() == 0


def test_interrupt_stops_a_run_and_the_queue_goes_on(server: ComfyServer) -> None:
    prompt_id = server.queue(graphs.text_to_latent("wan", seed=9, steps=1000))
    server.wait_for_progress(prompt_id, "sample", 2)
    server.interrupt()
    with pytest.raises(RunFailed) as stopped:
        server.wait(prompt_id)
    assert stopped.value.is_interrupt
    run = server.run(graphs.text_to_latent("wan", seed=10))
    assert run.progress("sample")[-1] == (2, 2)
