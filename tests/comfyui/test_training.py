"""The Joint Trainer on the real host: train, interrupt, continue, save, load, apply, sample; and gradients."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from architectures import ARCHITECTURES
from comfy_run import RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from test_blending import apply

from dualreal_core.method.stage_blender import share_at
from dualreal_core.training.recipes import DUALREAL

NAMES = list(ARCHITECTURES)
STEPS = 6
SETTINGS = {
    "steps": STEPS, "adapter": "lora", "rank": 4, "learning_rate": 0.01, "seed": 0, "gradient_checkpointing": True, "preview_every": 2,
}  # fmt: skip
OPTIONS = {"warmup_steps": 1, "frozen_adapter_dropout": 0.5, "has_controller": True, "preservation_ratio": 0.0, "timestep_bias": 1.0}


def training_settings(**changes: object) -> Graph:
    """Training Settings as `settings`, and the Training Options wired into them, with some inputs of either node changed."""
    own = {name: changes.pop(name) for name in [*changes] if name in SETTINGS}
    return {
        "options": node("DualRealTrainingOptions", **{**OPTIONS, **changes}),
        "settings": node("DualRealTrainingSettings", options=["options", 0], **{**SETTINGS, **own}),
    }


def training(name: str, run_name: str, **settings: object) -> Graph:
    """Nodes that train on the noise of a model's shapes; the pair comes out of node `train`."""
    return {
        "model": graphs.load_model(name),
        "photos": graphs.latents(name, seed=21, count=2, frames=1),
        "photo_texts": graphs.conditioning(name, seed=22, count=2),
        "clips": graphs.latents(name, seed=23, count=2),
        "clip_texts": graphs.conditioning(name, seed=24, count=1),
        **training_settings(**settings),
        "train": node(
            "DualRealJointTrainer",
            model=["model", 0],
            settings=["settings", 0],
            identity_latents=["photos", 0],
            identity_conditioning=["photo_texts", 0],
            motion_latents=["clips", 0],
            motion_conditioning=["clip_texts", 0],
            name=run_name,
        ),
        "steps": node("PreviewAny", source=["train", 2]),
        "losses": node("PreviewAny", source=["train", 1]),
    }


def trained_file(server: ComfyServer, run_name: str) -> Path:
    """The pair that a run left in its folder; a name has one run here."""
    (path,) = (server.base / "output" / "dualreal" / "runs" / run_name).glob("*/pair.safetensors")
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys() and one
    for key, tensor in one.items():
        assert tensor.equal(two[key]), key


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("name", NAMES)
def test_train_interrupt_continue_save_load_apply_sample(server: ComfyServer, name: str, kind: str) -> None:
    run_name, settings = f"{name} {kind}", {"adapter": kind, "accumulation": 8}
    server.run(training(name, f"{run_name} at once", **settings))
    whole = weights(trained_file(server, f"{run_name} at once"))

    interrupted = training(name, run_name, **settings)
    prompt_id = server.queue(interrupted)
    server.wait_for_progress(prompt_id, "train", 2)
    server.interrupt()
    with pytest.raises(RunFailed) as stopped:
        server.wait(prompt_id)
    assert stopped.value.is_interrupt and stopped.value.node_id == "train"
    assert not list((server.base / "output" / "dualreal" / "runs" / run_name).glob("*/pair.safetensors"))

    saving = {"keep": node("DualRealSavePair", pair=["train", 0], filename_prefix=f"kept {run_name}", consent="noise has no owner")}
    continued = server.run(interrupted | saving)
    assert "Continues the run" in continued.text("train")
    assert continued.text("steps") == str(STEPS)
    assert min(value for value, _ in continued.progress("train") if value > 0) >= 3, "it began afresh"
    assert_equal(weights(trained_file(server, run_name)), whole)

    (kept,) = (server.base / "models" / "dualreal").glob(f"kept {run_name}*.safetensors")
    assert_equal(weights(kept), whole)
    loaded = graphs.text_to_latent(name) | {
        "pair": node("DualRealLoadPair", name=kept.name),
        "blended": node(
            "DualRealApplyStageBlender", model=["model", 0], pair=["pair", 0], identity_strength=1.0, motion_strength=1.0,
            start_percent=0.0, end_percent=1.0, negative="adapted",
        ),
    }  # fmt: skip
    stock = server.tensors(server.run(loaded))["0.samples"]
    blended = server.run(loaded | graphs.sampling(name, ["blended", 0]))
    result = server.tensors(blended)["0.samples"]
    assert result.isfinite().all() and not result.equal(stock)


def test_an_interrupt_whose_checkpoint_cannot_be_written_says_what_is_lost(server: ComfyServer) -> None:
    prompt_id = server.queue(training("wan", "unsaved", steps=100, preview_every=0, save_every=1000, accumulation=8))
    server.wait_for_progress(prompt_id, "train", 2)
    (run,) = (server.base / "output" / "dualreal" / "runs" / "unsaved").iterdir()
    (run / "checkpoint.pt").mkdir()
    server.interrupt()
    with pytest.raises(RunFailed) as failed:
        server.wait(prompt_id)
    assert not failed.value.is_interrupt and failed.value.node_id == "train"
    assert "checkpoint.pt could not be written because a file or folder of that name is in the way" in failed.value.message
    assert "There is no good checkpoint: steps 1 to " in failed.value.message and "Training was interrupted." in failed.value.message


def test_the_same_graph_finds_its_finished_run(server: ComfyServer) -> None:
    graph = training("wan", "finished")
    server.run(graph)
    before = trained_file(server, "finished").read_bytes()
    again = server.run(graphs.afresh(graph, "train"))
    assert f"after step {STEPS}" in again.text("train") and again.text("steps") == str(STEPS)
    after = trained_file(server, "finished").read_bytes()
    assert_equal(safetensors.torch.load(before), safetensors.torch.load(after))


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"seed": 1}, {"frozen_adapter_dropout": 0.4}])
def test_a_setting_that_matters_starts_afresh_and_says_so(server: ComfyServer, change: dict) -> None:
    name = f"changed {next(iter(change))}"
    server.run(training("wan", name))
    assert "Starts afresh" in server.run(training("wan", name, **change)).text("train")


@pytest.mark.parametrize("change", ["shift", "pair"])
def test_another_model_starts_afresh(server: ComfyServer, change: str) -> None:
    nodes = {
        "shift": {"changed": node("ModelSamplingSD3", model=["model", 0], shift=11.0)},
        "pair": {
            "old": node("BenchPair", model=["model", 0], kind="lora", spread=0.1, seed=0, has_controller=False),
            "changed": node(
                "DualRealApplyStageBlender", model=["model", 0], pair=["old", 0], identity_strength=1.0, motion_strength=1.0,
                start_percent=0.0, end_percent=1.0, negative="plain base",
            ),
        },
    }  # fmt: skip
    plain = training("wan", f"changed {change}")
    server.run(plain)
    graph = plain | nodes[change]
    graph["train"] = node("DualRealJointTrainer", **{**plain["train"]["inputs"], "model": ["changed", 0]})
    assert "Starts afresh" in server.run(graph).text("train")


def test_when_it_saves_and_shows_does_not_matter(server: ComfyServer) -> None:
    server.run(training("wan", "shown"))
    assert "Continues" in server.run(training("wan", "shown", save_every=3, preview_every=0)).text("train")


def test_steps_that_also_see_clips_have_a_loss_on_photos(server: ComfyServer) -> None:
    """An untrained pair changes no prediction, so the loss of the first step would be 0 if it were that of the crossing."""
    run = server.run(training("wan", "preserved prior", motion_ratio=0.0, preservation_ratio=1.0))
    losses = json.loads(run.text("losses").replace("'", '"'))["loss"]
    assert run.text("steps") == str(STEPS) == str(len(losses)) and losses[0] > 0


def test_losses_go_to_the_stock_loss_graph(server: ComfyServer) -> None:
    run = server.run(training("wan", "plotted") | {"plot": node("LossGraphNode", loss=["train", 1], filename_prefix="loss")})
    assert run.files("plot") and len(json.loads(run.text("losses").replace("'", '"'))["loss"]) == STEPS


def test_progress_and_previews_arrive(server: ComfyServer) -> None:
    run = server.run(training("wan", "watched"))
    assert run.progress("train")[-1] == (STEPS, STEPS)
    assert len(run.previews) >= 2


def test_preview_samples_from_the_half_trained_pair(server: ComfyServer) -> None:
    """Needs a VAE and a prompt; the picture is then higher than the loss curves alone, and the training unchanged."""
    plain = training("wan", "unsampled")
    server.run(plain)
    sampled = training("wan", "sampled") | {"vae": node("VAELoader", vae_name=graphs.WAN_VAE)}
    sampled["train"]["inputs"] |= {"preview_conditioning": ["clip_texts", 0], "vae": ["vae", 0]}
    run = server.run(sampled)
    assert len(run.previews) >= 2
    assert_equal(weights(trained_file(server, "sampled")), weights(trained_file(server, "unsampled")))


def test_masks_and_references_are_used(server: ComfyServer) -> None:
    """Both change what is learned, and a reference makes the motion side conditioned."""
    server.run(training("wan", "without"))
    graph = training("wan", "with") | {
        "references": node("BenchReferences", embedding_dim=6, seed=1, count=2),
        "mask": node("SolidMask", value=1.0, width=64, height=48),
        "corner": node("SolidMask", value=0.0, width=32, height=48),
        "masked": node("MaskComposite", destination=["mask", 0], source=["corner", 0], x=0, y=0, operation="multiply"),
    }
    graph["photos"]["inputs"]["count"] = 1
    graph["photo_texts"]["inputs"]["count"] = 1
    graph["train"]["inputs"] |= {"identity_masks": ["masked", 0]}
    server.run(graph)
    trained, without = weights(trained_file(server, "with")), weights(trained_file(server, "without"))
    assert any(not weight.equal(without[key]) for key, weight in trained.items() if key.startswith("identity"))

    conditioned = training("wan", "conditioned", adapter="bottleneck") | {"references": graph["references"]}
    conditioned |= {"vae": node("VAELoader", vae_name=graphs.WAN_VAE)}
    conditioned["train"]["inputs"] |= {"motion_references": ["references", 0], "preview_conditioning": ["clip_texts", 0], "vae": ["vae", 0]}
    assert server.run(conditioned).previews
    assert any("condition" in key for key in weights(trained_file(server, "conditioned")))
    conditioned["settings"]["inputs"]["adapter"] = "lora"
    with pytest.raises(RunFailed, match="a LoRA cannot take them"):
        server.run(conditioned)


def test_without_a_stage_blender_the_pair_keeps_to_the_course(server: ComfyServer) -> None:
    graph = training("wan", "schedule alone", has_controller=False)
    server.run(graph)
    trained = weights(trained_file(server, "schedule alone"))
    assert trained and not any(key.startswith("controller") for key in trained)
    graph |= graphs.text_to_latent("wan") | {
        "blended": node(
            "DualRealApplyStageBlender", model=["model", 0], pair=["train", 0], identity_strength=1.0, motion_strength=1.0,
            start_percent=0.0, end_percent=1.0, negative="plain base",
        ),
        "map": node("DualRealBlendMap", model=["blended", 0], latent=["sample", 0]),
        "show": node("PreviewAny", source=["map", 1]),
    }  # fmt: skip
    steps = 6
    blend = json.loads(server.run(graph | graphs.sampling("wan", ["blended", 0], steps=steps)).text("show"))
    assert blend["stages"] == pytest.approx([step / steps for step in range(steps)], abs=2e-3)
    shares = [row[0] / (row[0] + other[0]) for row, other in zip(blend["identity"], blend["motion"], strict=True)]
    expected = torch.cat([share_at(DUALREAL.pair["share_schedule"], stage) for stage in blend["stages"]])
    assert shares == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize(("adapter", "motion_rank", "expected"), [("lora", 2, (4, 2)), ("bottleneck", 7, (4, 7)), ("lora", 0, (4, 4))])
def test_the_motion_may_have_a_rank_of_its_own(server: ComfyServer, adapter, motion_rank, expected) -> None:
    name = f"{adapter} of {motion_rank}"
    server.run(training("wan", name, steps=1, adapter=adapter, motion_rank=motion_rank))
    for role, rank in zip(("identity", "motion"), expected, strict=True):
        down = [tensor for key, tensor in weights(trained_file(server, name)).items() if key.startswith(role) and ".down.weight" in key]
        assert down and {tensor.shape[0] for tensor in down} == {rank}


def test_the_report_says_what_limits_the_result(server: ComfyServer) -> None:
    """Five of each are there, so one is held out; and the best pair is the result."""
    graph = training("wan", "reported", evaluate_every=2, validation_split=0.2, save_best=True, patience=5)
    graph["photos"]["inputs"]["count"] = graph["photo_texts"]["inputs"]["count"] = graph["clips"]["inputs"]["count"] = 5
    run = server.run(graph | {"report": node("PreviewAny", source=["train", 3])})
    report = run.text("report")
    assert "held out: 1 of 5 photos" in report and "held out: 1 of 5 clips" in report
    assert report in run.text("train")
    (folder,) = (server.base / "output" / "dualreal" / "runs" / "reported").iterdir()
    with safetensors.safe_open(folder / "pair.safetensors", "pt") as file:
        header = json.loads(file.metadata()["dualreal"])
    written = json.loads((folder / "report.json").read_text())
    assert header["training"]["kept_step"] == written["best_step"]
    assert written["limits"] and all(limit["sentence"] in report for limit in written["limits"])


def test_evaluations_leave_the_training_as_it_is(server: ComfyServer) -> None:
    server.run(training("wan", "evaluated", evaluate_every=2))
    server.run(training("wan", "not evaluated", evaluate_every=0))
    assert_equal(weights(trained_file(server, "evaluated")), weights(trained_file(server, "not evaluated")))


def test_what_rests_on_evaluations_needs_them(server: ComfyServer) -> None:
    with pytest.raises(RunFailed, match="evaluate_every is 0: raise it") as failed:
        server.run(training("wan", "blind", evaluate_every=0, patience=2))
    assert failed.value.node_id == "options"


def embedded_training(photos: dict[str, object], settings: dict[str, object], name: str, **wires: object) -> dict[str, dict]:
    """One step or more on the embedded model; `photos` are inputs of the Identity Dataset."""
    size = {"width": 32, "height": 32, "vae": ["base", 2], "clip": ["base", 1]}
    return {
        "base": node("DualRealLoadEmbeddedModel"),
        "example": node("DualRealExampleData", identity="vex", motion="figure-eight", seed=0),
        "photos": node(
            "DualRealIdentityDataset", images=["example", 0], texts=["example", 1], num_crops=4, crop_margin=0.5, **photos, **size
        ),
        "clips": node("DualRealMotionDataset", videos=["example", 2], texts=["example", 3], frames=9, fps=10.0, max_segments=1, **size),
        **training_settings(**{"warmup_steps": 0, "gradient_checkpointing": False, **settings}),
        "train": node(
            "DualRealJointTrainer", model=["base", 0], settings=["settings", 0], identity_latents=["photos", 0],
            identity_conditioning=["photos", 1], motion_latents=["clips", 0], motion_conditioning=["clips", 1], name=name, **wires,
        ),
        "report": node("PreviewAny", source=["train", 3]),
    }  # fmt: skip


def test_crops_of_one_photo_are_held_out_together(server: ComfyServer) -> None:
    """Identity Dataset says which photo a crop was cut from: 20 crops of 5 photos are 5 photos."""
    run = server.run(embedded_training({}, {"steps": 1, "evaluate_every": 1, "validation_split": 0.2}, "together"))
    assert "held out: 1 of 5 photos" in run.text("report") and "held out: 1 of 6 clips" in run.text("report")


def test_cogvideox_is_trained_on_variance_preserving_noise(server: ComfyServer) -> None:
    """x_t has the spread of the data at every step; the host's own noise scaling would multiply it by thousands."""
    graph = training("cogvideox", "preserved") | {"probe": node("BenchProbe", model=["model", 0])}
    graph["train"]["inputs"]["model"] = ["probe", 0]
    calls = server.run(graph | {"report": graphs.report(["probe", 0], after=["train", 2])}).report("report")["calls"]
    assert calls and all(0.5 < call["std"] < 2 for call in calls)
    assert any(call["timestep"][0] > 500 for call in calls)


def test_a_pair_can_be_trained_on_a_model_that_has_one(server: ComfyServer) -> None:
    graph = training("wan", "upon") | {
        "first": node("BenchPair", model=["model", 0], kind="lora", spread=0.1, seed=3, has_controller=True),
        "blended": apply(["model", 0], ["first", 0], negative="adapted"),
    }
    graph["train"]["inputs"]["model"] = ["blended", 0]
    upon = server.run(graph).text("losses")
    assert upon != server.run(training("wan", "beneath")).text("losses")


def test_the_copy_of_a_model_that_was_trained_on_is_freed(server: ComfyServer) -> None:
    """Also where the MODEL, which lives on, carries a pair."""

    def graph(run_name: str) -> Graph:
        nodes = training("wan", run_name) | {
            "first": node("BenchPair", model=["model", 0], kind="lora", spread=0.1, seed=4, has_controller=True),
            "blended": apply(["model", 0], ["first", 0]),
        }
        nodes["train"]["inputs"]["model"] = ["blended", 0]
        return nodes | {"report": graphs.report(["blended", 0], after=["train", 2])}

    first = server.run(graph("freed")).report("report")["num_alive"]
    assert server.run(graph("freed again")).report("report")["num_alive"] == first


def test_cancel_acts_within_evaluations_and_previews(server: ComfyServer) -> None:
    """Whatever is predicted while training stops at the next call of the model."""
    graph = {
        "model": graphs.load_model("wan"),
        "latent": graphs.latents("wan", seed=1),
        "text": graphs.conditioning("wan", seed=2),
        "check": node("BenchCancel", model=["model", 0], latent=["latent", 0], conditioning=["text", 0]),
    }
    assert server.run(graph).text("check") == "stopped after 1 calls"


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(server: ComfyServer, name: str, kind: str) -> None:
    """Also where the host's blocks change activations in place. LTX-Video runs wholly in float64; the others round to
    float32 in places, which the differences show and the gradients do not."""
    graph = {
        "model": graphs.load_model(name),
        "latent": graphs.latents(name, seed=1),
        "text": graphs.conditioning(name, seed=2),
        "check": node("BenchGradients", model=["model", 0], latent=["latent", 0], conditioning=["text", 0], kind=kind),
    }
    errors = json.loads(server.run(graph).text("check"))
    assert max(errors.values()) < (1e-8 if name == "ltxv" else 2e-4), errors


@pytest.mark.parametrize("name", NAMES)
def test_training_leaves_the_model_as_it_was(server: ComfyServer, name: str) -> None:
    stock = graphs.text_to_latent(name)
    before = server.tensors(server.run(graphs.afresh(stock, "sample")))["0.samples"]
    first = server.run({"model": stock["model"], "report": graphs.report(["model", 0])}).report("report")
    server.run(graphs.afresh(training(name, f"as it was {name}"), "train"))
    report = server.run({"model": stock["model"], "report": graphs.report(["model", 0])}).report("report")
    assert report["weights_sha256"] == first["weights_sha256"] and report["num_hooks"] == 0 and report["replaced_forwards"] == []
    assert server.tensors(server.run(graphs.afresh(stock, "sample")))["0.samples"].equal(before)
