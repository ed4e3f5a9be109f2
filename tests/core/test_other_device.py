"""Every command on a second device that refuses what a GPU would refuse (`other_device`); no GPU is needed, and none is tested."""

from __future__ import annotations

import json
import multiprocessing
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import other_device
import pytest
import tiny_encoders
import torch
from other_device import NAME
from PIL import Image
from two_expert_folders import two_experts

from dualreal_core.cli import main
from dualreal_core.storage import load_pair
from dualreal_core.toyworld.trial import Trial
from dualreal_core.video import read_video

HERE = Path(__file__).parent
SIZE = ("--size", "64x48", "--num-frames", 9)
CONFIG = """
[train]
gradient_checkpointing = true
accumulation = 2
preservation_ratio = 0.5
"""


@pytest.fixture(scope="module")
def there() -> Iterator[Callable[..., str]]:
    """Runs `dualreal` with arguments in a process that has the device."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), other_device.register) as process:

        def run(*arguments: object, names_device: bool = True) -> str:
            given = [*map(str, arguments), *(["--device", NAME] if names_device else [])]
            code, text = process.submit(other_device.run, given).result()
            assert code == 0, text
            return text

        yield run


def here(*arguments: object) -> None:
    assert main([str(part) for part in arguments]) == 0


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, of which one has a subject mask, clips, and random models."""
    folder = tmp_path_factory.mktemp("trial")
    made = Trial("tam", "box")
    made.write_photos(folder / "photos")
    made.write_clips(folder / "clips")
    photo = Image.open(folder / "photos" / "mint.png").convert("RGBA")
    photo.putalpha(Image.radial_gradient("L").resize(photo.size))
    photo.save(folder / "photos" / "mint.png")
    runpy.run_path(str(HERE.parents[1] / "scripts" / "make_tiny_models.py"))["make_tiny_models"](folder, seed=0)
    (folder / "run.toml").write_text(CONFIG)
    return folder


def train(run: Callable[..., None], trial: Path, out: Path, *options: object) -> None:
    run("train", "--identity", trial / "photos", "--motion", trial / "clips", "--fps", 10, "--out", out, *options)


def test_the_device_refuses_what_a_gpu_refuses():
    script = """
import torch, other_device
other_device.register()
here, there = torch.ones(2, 2), torch.ones(2, 2, device=other_device.NAME)
assert (there + torch.tensor(1.0)).cpu().equal(here + 1) and there[torch.tensor([1])].cpu().equal(here[:1])
for wrong in (
    lambda: here + there,
    lambda: torch.cat([there, here]),
    lambda: here[there[0].long()],
    lambda: torch.nn.functional.linear(there, here),
    lambda: torch.randn(2, generator=torch.Generator(), device=other_device.NAME),
    lambda: there.normal_(generator=torch.Generator()),
    lambda: there.numpy(),
):
    try:
        wrong()
    except (RuntimeError, TypeError) as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(",")[0].split(" device type")[0] for line in lines] == [
        *["Expected all tensors to be on the same device"] * 4,
        *[f"Expected a '{NAME}'"] * 2,
        f"can't convert {NAME}",
    ]


COPIES = """
import json, sys
sys.path.insert(0, "tests/core")
import other_device
copies, copy = [], other_device._copy_from
def counted(source, target, non_blocking=False):
    copies.append((source.device.type, target.device.type))
    return copy(source, target, non_blocking)
other_device._copy_from = counted
other_device.register()
import torch
from tiny import CONDITION_DIM, TinyBase, condition, fill, make_pair, model_inputs
from torch.utils._python_dispatch import TorchDispatchMode
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import PLANS, BlendRecord, FixedBlend
inputs = [tensor.to(other_device.NAME) for tensor in model_inputs()]
class Seen(TorchDispatchMode):  # of what crosses by an operation; numbers and lists that tensors are made of cross without one
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result, name = operation(*args, **(kwargs or {})), operation.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            copies.append((source.device.type, result.device.type))
        elif name == "_local_scalar_dense":
            copies.append((args[0].device.type, "cpu"))
        return result
def across(base, attachment=None, stage=0.3):
    copies.clear()
    with Seen():
        if attachment is not None:
            attachment.stage = stage
        base.predict(*inputs)
        if attachment is not None:
            attachment.finish_call()
    here = other_device.NAME
    return [sum(one != here == other for one, other in copies), sum(one == here != other for one, other in copies)]
counts = {}
for num_blocks in (2, 4):
    base = TinyBase("wan", num_blocks)
    base.transformer.to(other_device.NAME)
    plain = across(base)
    for kind in ("lora", "bottleneck", "bottleneck-skip"):
        pair = fill(make_pair(base, kind, num_groups=2, identity_condition_dim=CONDITION_DIM, share_schedule=(0.2, 0.8)))
        pair.to(other_device.NAME)
        blends = {"own": None, "fixed": FixedBlend(0.4, 0.6), "plan": PLANS["paper trend"].blend(pair.config)}
        for name, blend in blends.items():
            with Attachment(base.transformer, pair, blend) as attachment:
                attachment.strengths, attachment.stage, attachment.record = {"identity": 0.7, "motion": 1.3}, 0.3, BlendRecord()
                attachment.condition, attachment.row_strengths = condition().to(other_device.NAME), (1.0, 0.5)
                for is_training in (False, True):
                    with torch.set_grad_enabled(is_training):
                        across(base, attachment, 0.2)
                        counted = zip(across(base, attachment), plain)
                        counts.setdefault(f"{kind}, {name}, {is_training}", []).append([one - other for one, other in counted])
print(json.dumps(counts))
"""


def test_no_site_copies_between_host_and_device():
    """Each such copy waits for all that the device has still to do; a deep model has hundreds of sites."""
    done = subprocess.run([sys.executable, "-c", COPIES], capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert len(counts) == 18
    for case, (few_blocks, many_blocks) in counts.items():
        there, back = few_blocks
        assert few_blocks == many_blocks and there <= 1 and back == 0, case  # what the stage and the strengths say, in one tensor


AT_LENGTH = [pytest.param(base, marks=pytest.mark.thorough) for base in ("toyworld", "two experts")]


@pytest.mark.parametrize("base", ["cogvideox-tiny", *AT_LENGTH])
def test_training_is_the_same_there(there, trial, tmp_path, base):
    """Two experts wait in main memory there for their turns, and are read again here."""
    if base == "two experts":
        two_experts(trial / "wan-tiny", trial / base)
    # with so large an eps steps are as long as gradients: AdamW's are all of one size, even where a gradient is rounding alone
    (tmp_path / "proportional.toml").write_text("[train]\nlearning_rate = 0.1\neps = 1.0\nexpert_steps = 1\n[pair]\nprompt_gate = false\n")
    options = ["--steps", 4, "--evaluate-every", 2, "--validation-split", 1, "--config", tmp_path / "proportional.toml"]
    if base != "toyworld":
        options += ["--base", trial / base, "--dtype", "fp32", *SIZE]
    pairs = []
    for run in (here, there):
        offload = ["--offload"] if run is there and base == "two experts" else []
        train(run, trial, tmp_path / f"{len(pairs)}.safetensors", *options, *offload)
        pairs.append(load_pair(tmp_path / f"{len(pairs)}.safetensors")[0].state_dict())
    assert any(weight.abs().max() > 1e-4 for name, weight in pairs[0].items() if name.endswith("up.weight"))
    for name, weight in pairs[0].items():
        torch.testing.assert_close(pairs[1][name], weight, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.thorough
@pytest.mark.parametrize("base", ["wan-tiny"])
def test_published_recipe_stops_resumes_and_samples_there(there, trial, tmp_path, base):
    options = ("--base", trial / base, "--recipe", "paper", "--config", trial / "run.toml", "--steps", 4, *SIZE)
    out = tmp_path / "pair.safetensors"
    train(there, trial, out, *options, "--stop-after", 2, "--sample-every", 2, "--sample-prompt", "a figure *", "--offload")
    assert len(read_video(tmp_path / "pair.safetensors.run" / "sample-000002.mp4").frames) == 9
    train(there, trial, out, *options, "--resume")
    for dtype in ("fp32", "bf16"):
        photo = ("--reference-image", trial / "photos" / "mint.png", "--prompt", "a figure * walks")
        sampling = ("--steps", 2, "--dtype", dtype, *SIZE, "--out", tmp_path / f"{dtype}.mp4")
        there("generate", "--base", trial / base, "--pair", out, *photo, *sampling)
        assert len(read_video(tmp_path / f"{dtype}.mp4").frames) == 9


@pytest.mark.parametrize("base", ["wan-tiny"])
def test_without_options_the_accelerator_computes_in_bf16_and_the_embedded_base_on_the_cpu(there, trial, tmp_path, base):
    sampling = ("--prompt", "a figure", "--steps", 1, "--num-frames", 9)
    said = there("generate", "--base", trial / base, *sampling, "--size", "64x48", "--out", tmp_path / "a.mp4", names_device=False)
    assert f"device {NAME}, weights in bf16" in said
    said = there("generate", *sampling, "--out", tmp_path / "b.mp4", names_device=False)
    assert NAME not in said


@pytest.mark.parametrize("base", ["cogvideox-tiny"])
def test_offloading_changes_no_pixel_there(there, trial, tmp_path, base):
    sampling = ("--base", trial / base, "--dtype", "fp32", *SIZE, "--prompt", "a figure walks", "--steps", 2)
    for name, offload in (("kept", ()), ("offloaded", ("--offload",))):
        there("generate", *sampling, *offload, "--out", tmp_path / f"{name}.mp4")
    assert read_video(tmp_path / "kept.mp4").frames.equal(read_video(tmp_path / "offloaded.mp4").frames)


def test_what_is_offloaded_is_not_on_the_device(trial):
    """Blocks of the DiT that are there: at each call of one, and of the VAE."""
    script = """
import sys, torch, other_device
other_device.register()
from pathlib import Path
from dualreal_core.api import generate
from dualreal_core.bases import load_base
from dualreal_core.sampling import SamplingSettings
for offload in ("none", "model", "blocks"):
    base, seen = load_base(sys.argv[1], device=other_device.NAME, offload=offload), set()
    blocks = [block for block, _ in base.family.blocks(base.architecture)]
    count = lambda: sum(any(weight.device.type == other_device.NAME for weight in block.parameters()) for block in blocks)
    for block in blocks:
        next(block.children()).register_forward_pre_hook(lambda *call: seen.add(count()))
    decode = base.decode_latents
    base.decode_latents = lambda latents: seen.add(("decoding", count())) or decode(latents)
    for _ in range(2):
        generate(base, None, "a figure", settings=SamplingSettings(9, 48, 64, 1, 3.0))
    print(offload, seen, next(base.architecture.parameters()).device)
"""
    done = subprocess.run([sys.executable, "-c", script, str(trial / "wan-tiny")], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: line.partition(" ")[2] for line in done.stdout.splitlines()}
    assert found.keys() == {"none", "model", "blocks"}
    for offload, (computing, where) in {"none": (4, "meta"), "model": (4, "cpu"), "blocks": (1, "cpu")}.items():
        assert found[offload] in (f"{{{computing}, ('decoding', 0)}} {where}", f"{{('decoding', 0), {computing}}} {where}")


def test_scores_are_the_same_there(there, trial, tmp_path):
    models = ("--clip", tiny_encoders.make_clip(tmp_path / "clip"), "--dino", tiny_encoders.make_dinov2(tmp_path / "dino"))
    data = (trial / "clips" / "0.gif", "--identity", trial / "photos", "--motion", trial / "clips", "--prompt", "a figure")
    boards = []
    for run in (here, there):
        out = tmp_path / str(len(boards))
        run("evaluate", *data, *models, "--out", out)
        boards.append(json.loads((out / "scores.json").read_text())["videos"][0]["scores"])
    assert len(boards[0]) > 5
    assert boards[1] == pytest.approx(boards[0], abs=1e-5)


def test_a_pair_follows_a_pipeline_to_its_device():
    script = """
import other_device
other_device.register()
from tiny import fill
from tiny_pipelines import PIPELINES, both_prompts, quiet, run
from dualreal_core.method.pair import new_pair
from dualreal_core.pipelines import applied
pipe = quiet(PIPELINES["wan"].make())
pair = fill(new_pair(pipe.transformer, identity_kind="lora", motion_kind="bottleneck", rank=2, bottleneck_dim=4))
plain = run(pipe, "wan")
with applied(pipe, pair):
    here = run(pipe, "wan")
    pipe.to(other_device.NAME)
    prompts = {name: value.to(other_device.NAME) for name, value in both_prompts().items() if name != "output_type"}
    there = run(pipe, "wan", **prompts)
assert there.device.type == other_device.NAME
assert (there.cpu() - here).abs().max() < 1e-4 < (plain - here).abs().max()
assert {weight.device.type for weight in pair.parameters()} == {"cpu"}
pipe.to("cpu")
assert run(pipe, "wan").equal(plain)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr
