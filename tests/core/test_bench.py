"""The benchmark trains every method, trains nothing twice, and leaves the base as it was."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import weights_hash

from dualreal_core.bases import load_base
from dualreal_core.bench import prior
from dualreal_core.bench.benchmark import Benchmark
from dualreal_core.bench.experiment import TOY_RECIPE, load_trial
from dualreal_core.bench.fitting import debiased_loss, fit, relative_to_frame
from dualreal_core.bench.jobs import run_jobs
from dualreal_core.bench.measures import MEASURES
from dualreal_core.bench.methods import Method
from dualreal_core.bench.registry import METHODS, QUICK_METHODS, REFERENCES, find_method
from dualreal_core.bench.results import Case, Protocol, sample_candidate
from dualreal_core.bench.runs import Run, with_needs
from dualreal_core.bench.trainers import TRAINERS
from dualreal_core.bench.two_loras import TWO_LORA_METHODS
from dualreal_core.cli import main
from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_core.objective import FlowMatching
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import Recipe, with_train

TRIAL = Trial("tam", "box")
RECIPE = with_train(TOY_RECIPE, steps=4, identity_batch=1, motion_batch=1, warmup_steps=0, evaluate_every=0)
PROTOCOL = Protocol(RECIPE, sampling_steps=1)


@pytest.fixture(scope="module")
def base():
    return load_base("toyworld")


@pytest.fixture(autouse=True)
def few_of_the_base_s_own(monkeypatch):
    monkeypatch.setattr(prior, "PRIOR_STEPS", 1)
    monkeypatch.setattr(prior, "NUM_OWN", 4)


@pytest.fixture(scope="module")
def references(base, tmp_path_factory):
    return load_trial(base, Trial("tam", "box"), RECIPE, tmp_path_factory.mktemp("trial"))
SLOW = ("ours-previewed", "gate-by-loss")
"""Methods that sample many videos to choose by, or train for long; `test_bench_gated` has a shorter one of the latter."""


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Of the references and the sum, done."""
    benchmark = Benchmark(tmp_path_factory.mktemp("bench"))
    benchmark.begin(PROTOCOL)
    benchmark.run([Case(method, TRIAL) for method in (*REFERENCES, "sum")], PROTOCOL, 1)
    return benchmark


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.thorough) if name in SLOW else name for name in METHODS])
def test_every_method_trains_and_gives_finite_videos(name, base, benchmark):
    before = weights_hash(base.transformer)
    method = find_method(name)
    runs = method.runs(TRIAL, RECIPE)
    for run in with_needs(runs):
        benchmark.runs.train(run)
    candidate = method.assemble([benchmark.runs.load(run) for run in runs], base, TRIAL)
    (video,) = sample_candidate(base, candidate, Trial("tam", "box"), ["a figure * walks a box on mint"], PROTOCOL)
    assert video.shape == (9, 3, 32, 32)
    assert video.isfinite().all()
    assert weights_hash(base.transformer) == before
    assert (candidate.pair is None) == (name in ("base", "full-finetune"))
    assert candidate.adapts_negative == (name == "paper")


def test_a_trained_method_differs_from_the_base(base, benchmark):
    method = find_method("full-finetune")
    runs = method.runs(TRIAL, RECIPE)
    benchmark.runs.train(runs[0])
    candidate = method.assemble([benchmark.runs.load(run) for run in runs])
    trial, prompts = Trial("tam", "box"), ["a figure * on mint"]
    tuned = sample_candidate(base, candidate, trial, prompts, PROTOCOL)
    plain = sample_candidate(base, find_method("base").assemble([]), trial, prompts, PROTOCOL)
    assert not torch.equal(tuned[0], plain[0])


def test_results_hold_every_measure_as_a_finite_number(benchmark):
    results = benchmark.results.read()
    assert {result["method"] for result in results} == {*REFERENCES, "sum"}
    for result in results:
        assert set(result["scores"]) == set(MEASURES)
        assert all(math.isfinite(value) for value in result["scores"].values())
    assert benchmark.results.videos(Case("sum", TRIAL)).shape == (33, 9, 3, 32, 32)


def test_what_is_done_is_not_done_again(benchmark):
    cases, jobs = [Case(method, TRIAL) for method in (*REFERENCES, "sum")], []
    benchmark.run(cases, PROTOCOL, 1, lambda name, done, total: jobs.append(name))
    assert jobs == []
    benchmark.results.file(cases[-1]).unlink()
    benchmark.run(cases, PROTOCOL, 1, lambda name, done, total: jobs.append(name))
    assert jobs == ["measure sum on tam-box-0"]


def test_a_result_of_other_settings_is_not_taken_for_done(benchmark):
    case = Case("sum", TRIAL)
    assert benchmark.results.is_done(case, PROTOCOL)
    assert not benchmark.results.is_done(case, Protocol(with_train(RECIPE, steps=6), 1))
    assert not benchmark.results.is_done(case, Protocol(RECIPE, 2))
    for protocol in (Protocol(with_train(RECIPE, steps=6), 1), Protocol(RECIPE, 1, algorithm_version=PROTOCOL.algorithm_version - 1)):
        with pytest.raises(InputError, match="other settings"):
            benchmark.begin(protocol)


def test_a_folder_of_an_older_version_is_refused_in_one_sentence(tmp_path):
    """It called the algorithm's version 'method', and its methods 'rows'."""
    note = json.loads(json.dumps(asdict(PROTOCOL)))
    note["method"] = note.pop("algorithm_version")
    (tmp_path / "benchmark.json").write_text(json.dumps(note))
    for use in (lambda: Benchmark(tmp_path).protocol, lambda: Benchmark(tmp_path).begin(PROTOCOL)):
        with pytest.raises(InputError, match="of an older version: choose another --out"):
            use()


def test_sides_are_shared_between_results():
    first, second = (find_method("sum").runs(Trial(identity, "box", 0), RECIPE) for identity in ("tam", "zol"))
    assert first[1].key == second[1].key
    assert first[0].key != second[0].key
    assert find_method("sum").runs(Trial("tam", "box", 1), RECIPE)[1].key != first[1].key
    assert find_method("identity-only").runs(TRIAL, RECIPE)[0].key == first[0].key


def test_trainers_do_the_steps_they_are_given(base, references, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("dualreal_core.bench.trainers.fit", lambda base, parameters, items, settings, *rest: done.append(settings.steps))
    TRAINERS["motiondirector"].train(base, references, with_train(RECIPE, steps=800), tmp_path, [])
    assert done == [100, 300]
    TRAINERS["mixed-lora"].train(base, references, with_train(RECIPE, steps=800), tmp_path, [])
    assert done[2:] == [800]


def test_the_plain_loop_tells_the_pair_each_samples_stage(base, references):
    """Or a controller with a share schedule would learn in the middle of it and be used along it."""
    stages = []

    class Watched:
        def scheduled(self, stage, noise_level):
            stages.extend([] if stage is None else [stage])
            return torch.zeros(1, 0)

        def weights(self, embedding, tokens, scheduled):
            return torch.zeros(1, 1, 2)

    pair = new_pair(base.transformer, **RECIPE.pair)
    with Attachment(base.transformer, pair, Watched()) as attachment:
        settings = replace(RECIPE.train, steps=2, motion_ratio=1.0, motion_batch=2)
        fit(base, pair.role_parameters("motion"), {"motion": references["motion"].items}, settings, attachment)
    assert [stage.shape for stage in stages] == [(2,), (2,)] and len(torch.cat(stages).unique()) == 4


def test_groups_differ_between_the_methods():
    groups = {
        name: find_method(name).runs(TRIAL, RECIPE)[0].recipe.pair.get("num_groups", 5) for name in ("one-group", "two-groups", "per-block")
    }
    assert groups == {"one-group": 1, "two-groups": 2, "per-block": 5}
    assert not find_method("fixed").runs(TRIAL, RECIPE)[0].recipe.pair["has_controller"]


def test_the_papers_sides_are_summed_at_the_weights_they_were_trained_at(benchmark):
    method = find_method("paper-separate")
    runs = method.runs(TRIAL, RECIPE)
    for run in runs:
        benchmark.runs.train(run)
    candidate = method.assemble([benchmark.runs.load(run) for run in runs])
    assert candidate.blend == FixedBlend(0.1, 0.1) and candidate.pair.config.identity_kind == "bottleneck-skip"


def test_ours_keeps_to_its_share_schedule(base, references, tmp_path):
    run, gated = with_needs(find_method("ours").runs(TRIAL, RECIPE))
    assert (run.trainer, gated.trainer) == ("joint", "gated")
    pair = TRAINERS[run.trainer].train(base, references, run.recipe, tmp_path, [])
    assert pair.controller is None and pair.config.share_schedule == tuple(RECIPE.pair["share_schedule"])
    assert replace(run.recipe, pair=RECIPE.pair) == with_train(RECIPE, seed=TRIAL.seed)  # nothing else differs from ours


def test_settings_of_the_joint_run_alone_leave_the_other_methods_runs_valid():
    joint = with_train(RECIPE, frozen_adapter_dropout=0.25, preservation_ratio=0.125, timestep_bias=0.5, identity_learning_rate=1e-4)
    changed = replace(joint, pair={**RECIPE.pair, "share_schedule": (0.25, 0.75), "has_controller": True})

    def keys(method: Method, recipe: Recipe) -> list[str]:
        return [run.key for run in method.runs(TRIAL, recipe)]

    kept = {name for name, method in METHODS.items() if keys(method, RECIPE) == keys(method, changed)}
    joint_methods = {"ours", "fixed", "no-preservation", "no-timestep-bias", "no-schedule", "bounded-network"}
    joint_methods |= {"ours-before", "ours-previewed", "no-gate", "gate-by-loss", "prior-preservation", "prior-preservation-clips"}
    joint_methods |= {"unmasked", "one-group", "two-groups", "per-block"}
    assert kept == set(METHODS) - joint_methods
    assert keys(find_method("sum"), RECIPE) != keys(find_method("sum"), with_train(RECIPE, learning_rate=1e-5))


def test_full_fine_tune_gives_other_weights_and_puts_the_base_back_bit_for_bit(base, references, tmp_path):
    before = {name: tensor.clone() for name, tensor in base.transformer.state_dict().items()}
    trained = TRAINERS["full-finetune"].train(base, references, RECIPE, tmp_path, [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.transformer.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.transformer.parameters())
    changed = [name for name, tensor in trained.items() if not torch.equal(tensor, before[name])]
    assert len(changed) > 0.9 * len(before)


def test_the_second_side_learns_beside_a_frozen_first_one(base, references, tmp_path):
    first = TRAINERS["identity"].train(base, references, RECIPE, tmp_path / "first", [])
    pair = TRAINERS["second-motion"].train(base, references, RECIPE, tmp_path / "second", [first])
    kept, before = pair.sides["identity"].state_dict(), first.sides["identity"].state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())
    assert any(adapter.up.weight.abs().max() > 0 for adapter in pair.sides["motion"].values())
    assert pair.controller is None


def test_without_masking_both_sides_learn_from_photos_alone(base, references, tmp_path):
    pair = TRAINERS["unmasked"].train(base, references, with_train(RECIPE, motion_ratio=0.0), tmp_path, [])
    for side in pair.sides.values():
        assert any(adapter.up.weight.abs().max() > 0 for adapter in side.values())


def test_motion_path_is_kept_without_the_spatial_one(base, references, tmp_path):
    pair = TRAINERS["motiondirector"].train(base, references, RECIPE, tmp_path, [])
    assert isinstance(pair, AdapterPair)
    assert list(pair.sides) == ["motion"]
    assert any(adapter.up.weight.abs().max() > 0 for adapter in pair.sides["motion"].values())


def test_relative_to_frame_by_hand():
    frames = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1, 1)
    root = math.sqrt(2)
    expected = torch.tensor([root - 2, 2 * root - 2, 4 * root - 2])
    assert torch.allclose(relative_to_frame(frames, 1).flatten(), expected)
    assert torch.allclose(relative_to_frame(frames, 0, b=0.0), frames)


def test_debiased_loss_by_hand():
    generator = torch.Generator().manual_seed(3)
    output, latents, noise = (torch.randn(2, 2, 3, 1, 2, generator=generator) for _ in range(3))
    anchor = int(torch.randint(3, (), generator=torch.Generator().manual_seed(7)))
    target = noise - latents
    debiased = [0.0, 0.0]
    for sample in range(2):
        for frame in range(3):
            wrong = output[sample, :, frame] - target[sample, :, frame]
            wrong_anchor = output[sample, :, anchor] - target[sample, :, anchor]
            debiased[sample] += float((math.sqrt(2) * wrong - wrong_anchor).square().sum()) / output[sample].numel()
    loss = debiased_loss(FlowMatching(3.0), output, latents, noise, torch.tensor([100.0, 900.0]), torch.Generator().manual_seed(7))
    assert loss.tolist() == pytest.approx(debiased, rel=1e-5)


def test_debiased_loss_forgives_what_all_frames_share_less_than_what_they_do_not():
    latents = torch.zeros(1, 1, 3, 2, 2)
    shared = torch.ones(1, 1, 3, 2, 2)
    moving = torch.tensor([0.0, 1.5, 0.0]).reshape(1, 1, 3, 1, 1).expand_as(latents)
    timestep = torch.tensor([500.0])

    def added(output: torch.Tensor) -> float:
        loss = debiased_loss(FlowMatching(3.0), output, latents, latents, timestep, torch.Generator().manual_seed(0))
        return float(loss.mean()) / float(output.square().mean())

    assert added(shared) < 0.2 < added(moving)


def test_phases_wait_for_one_another_over_processes(tmp_path):
    phases = [{"outer": partial(Path.mkdir, tmp_path / "a")}, {"inner": partial(Path.mkdir, tmp_path / "a" / "b")}]
    order = []
    run_jobs(phases, 2, lambda name, problem: order.append((name, problem)))
    assert order == [("outer", None), ("inner", None)]
    assert (tmp_path / "a" / "b").is_dir()


def test_a_failed_run_stops_only_what_waits_for_it(tmp_path, monkeypatch):
    benchmark, done = Benchmark(tmp_path), []

    def train(run: Run) -> None:
        if run.trainer == "identity":
            raise InputError("The loss is nan.")
        (tmp_path / "runs" / run.key).mkdir(parents=True)
        (tmp_path / "runs" / run.key / "done.json").touch()

    monkeypatch.setattr(benchmark.runs, "train", train)
    monkeypatch.setattr(benchmark.results, "make", lambda case, runs, protocol: done.append(case.method))
    methods = ("base", "identity-only", "motion-only", "sum", "identity-first", "motion-first")
    with pytest.raises(InputError, match=r"1 of 10 jobs failed, and 4 jobs wait.*train identity-tam.*: The loss is nan"):
        benchmark.run([Case(method, TRIAL) for method in methods], PROTOCOL, 1)
    assert done == ["base", "motion-only", "motion-first"]


def test_variants_change_the_tuned_settings_alone():
    method = find_method("full-finetune")
    variants = method.variants()
    assert [variant.name for variant in variants][:2] == ["full-finetune[learning_rate=0.0001]", "full-finetune[learning_rate=0.0003]"]
    assert find_method(variants[0].name).runs(TRIAL, RECIPE)[0].recipe.train.learning_rate == 1e-4
    assert method.settings not in [variant.settings for variant in variants]
    shares = find_method("fixed").variants()
    assert {share.runs(TRIAL, RECIPE)[0].key for share in shares} == {find_method("fixed").runs(TRIAL, RECIPE)[0].key}
    assert find_method("motiondirector").variants()[0].settings == {"learning_rate": 7e-4, "identity_share": 0.5}


def test_a_method_takes_settings_of_its_own():
    method = find_method("mixed-lora[learning_rate=5e-4]")
    assert method.name == "mixed-lora[learning_rate=0.0005]"
    assert method.runs(TRIAL, RECIPE)[0].recipe.train.learning_rate == 5e-4
    for name, reason in (
        ("mixed-lora[rank=4]", "no setting 'rank'"),
        ("base[learning_rate=1e-3]", "it has: none"),
        ("fixed[identity_share]", "cannot be read"),
        ("fixed[identity_share=much]", "cannot be read"),
        ("fixed[identity_share=1.2]", "out of range"),
        ("mixed-lora[learning_rate=-1]", "out of range"),
    ):
        with pytest.raises(InputError, match=reason):
            find_method(name)


def test_command_writes_the_report(tmp_path, benchmark, capsys):
    out = tmp_path / "out"
    shutil.copytree(benchmark.path, out)
    config = tmp_path / "tiny.toml"
    config.write_text("[train]\nidentity_batch = 1\nmotion_batch = 1\nwarmup_steps = 0\nevaluate_every = 0\n")
    options = ["--identities", "tam", "--motions", "box", "--seed", "0", "--steps", "4", "--sampling-steps", "1", "--workers", "1"]
    assert main(["bench", "fusion", "--out", str(out), "--methods", "sum", "--config", str(config), *options]) == 0
    assert "| separate, summed |" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["methods"]["sum"]["identity"]["count"] == 1


@pytest.mark.thorough
def test_killed_benchmark_is_continued(tmp_path):
    config = tmp_path / "tiny.toml"
    config.write_text("[train]\nidentity_batch = 1\nmotion_batch = 1\nevaluate_every = 0\n")
    options = ["--methods", "base", "--identities", "tam", "--motions", "box", "--seed", "0", "--steps", "4", "--sampling-steps", "1"]
    command = ["bench", "fusion", "--out", str(tmp_path / "out"), "--config", str(config), *options]
    process = subprocess.Popen([sys.executable, "-m", "dualreal_core.cli", *command, "--workers", "2"], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (first := list(tmp_path.glob("out/runs/*/done.json"))):
        time.sleep(0.05)
    process.kill()
    process.wait()
    written = first[0].stat().st_mtime_ns
    time.sleep(2)  # for its workers to notice
    assert main([*command, "--workers", "1"]) == 0
    assert first[0].stat().st_mtime_ns == written
    assert len(list(tmp_path.glob("out/results/*/*.json"))) == len(REFERENCES)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--methods", "magic"], "There is no method 'magic'"),
        (["--identities", "bob"], "no figure 'bob'"),
        (["--seeds", "0"], "at least 1"),
        (["--steps", "2"], "at least 4"),
        (["--report-only"], "holds no benchmark"),
    ],
)
def test_command_refuses_what_it_cannot_do(options, reason, tmp_path, capsys):
    assert main(["bench", "fusion", "--out", str(tmp_path / "out"), *options]) == 2
    assert reason in capsys.readouterr().err


def test_without_matplotlib_nothing_is_trained_in_vain(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["bench", "fusion", "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "dualreal[plots]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_documentation_explains_every_method_and_measure():
    text = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert [name for name in (*METHODS, *TWO_LORA_METHODS, *MEASURES) if f"`{name}`" not in text] == []


def test_quick_methods_are_methods_with_their_references():
    assert set(REFERENCES) <= set(QUICK_METHODS) <= set(METHODS)


def test_the_base_s_own_frames_are_what_others_are_held_against(benchmark):
    """Bit for bit: a byte would hide what is smaller than its steps."""
    by_method = {result["method"]: result["scores"] for result in benchmark.results.read()}
    for name in ("neither_difference", "untriggered_difference"):
        assert by_method["base"][name] == 0 < by_method["sum"][name]


def test_guidance_is_part_of_the_protocol(base, benchmark):
    candidate, prompts = find_method("base").assemble([]), ["a figure * on mint"]
    unguided, guided = (sample_candidate(base, candidate, TRIAL, prompts, replace(PROTOCOL, guidance=scale))[0] for scale in (1.0, None))
    assert not torch.equal(unguided, guided)
    assert not benchmark.results.is_done(Case("sum", TRIAL), replace(PROTOCOL, guidance=1.0))
    with pytest.raises(InputError, match="other settings"):
        benchmark.begin(replace(PROTOCOL, guidance=1.0))


def test_strengths_of_sides_are_settings_of_any_method_with_a_pair(base, benchmark):
    trained = [benchmark.runs.load(run) for run in find_method("sum").runs(TRIAL, RECIPE)]
    names = ("sum", "sum[identity_strength=1,motion_strength=1]", "sum[identity_strength=1.2,motion_strength=1.3]")
    videos = [sample_candidate(base, find_method(name).assemble(trained), TRIAL, TRIAL.prompts[:1], PROTOCOL)[0] for name in names]
    assert torch.equal(videos[0], videos[1]) and not torch.equal(videos[0], videos[2])
    strong = find_method("sum[motion_strength=1.3]")
    assert [run.key for run in strong.runs(TRIAL, RECIPE)] == [run.key for run in find_method("sum").runs(TRIAL, RECIPE)]
    assert Case(strong.name, TRIAL).made_from(PROTOCOL) != Case("sum", TRIAL).made_from(PROTOCOL)
    for name in ("k-lora[motion_strength=1.3]", "base[motion_strength=1.3]"):
        with pytest.raises(InputError, match="has no setting 'motion_strength'"):
            find_method(name)
