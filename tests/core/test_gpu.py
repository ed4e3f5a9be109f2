"""The core on a GPU: as on the CPU within rounding, exact where the CPU is exact, and no more waiting or memory than it needs.

Skipped without one. DUALREAL_TEST_DEVICE=cpu runs them on the CPU, which shows that they work, apart from those that ask for
the GPU's counters.
"""

from __future__ import annotations

import os
import runpy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from test_resume import STEPS, Session
from tiny import CHANNELS, FAMILY_NAMES, KINDS, TEXT_DIM, TinyBase, all_items, condition, fill, is_same, make_pair, model_inputs

from dualreal_core.bases.base import pad_texts
from dualreal_core.cli import main
from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import AdapterPair
from dualreal_core.sampling import default_sampling, sample
from dualreal_core.storage import load_pair
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.checkpointing import checkpointed
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState
from dualreal_core.video import read_video

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable products, where repeatability is asked for
DEVICE = os.environ.get("DUALREAL_TEST_DEVICE", "cuda")
ROOT = Path(__file__).parents[2]
PROPORTIONAL = {"learning_rate": 0.1, "eps": 1.0, "warmup_steps": 0}
"""With so large an eps steps are as long as gradients: AdamW's are all of one size, even where a gradient is rounding alone."""
each_family = pytest.mark.parametrize("family", FAMILY_NAMES)
each_kind = pytest.mark.parametrize("kind", KINDS)
needs_counters = pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="only CUDA counts what this asks for")


def absence_reason() -> str | None:
    """Why these tests cannot run; None where they can."""
    try:
        torch.empty(0, device=DEVICE)
    except (RuntimeError, AssertionError) as error:
        return f"no {DEVICE} here ({str(error).splitlines()[0]}); DUALREAL_TEST_DEVICE=cpu tries these on the CPU"
    return None


ABSENCE = absence_reason()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(ABSENCE is not None, reason=ABSENCE or "")]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def repeatable() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield
    torch.use_deterministic_algorithms(False)


def moved(base: TinyBase, dtype: torch.dtype = torch.float32) -> TinyBase:
    """The base on the device under test."""
    base.transformer.to(DEVICE, dtype)
    base.batch_texts = lambda texts: pad_texts(texts).to(DEVICE)
    return base


def there(*values: torch.Tensor) -> list[torch.Tensor]:
    return [value.to(DEVICE) for value in values]


def steps_of(base: TinyBase, pair: AdapterPair, count: int = 4, **changes: object) -> list[float]:
    """Trains a pair where it is; the losses."""
    settings = TrainSettings(**{"steps": count, "motion_batch": 2, "preservation_ratio": 0.5, **PROPORTIONAL, **changes})
    with Attachment(base.transformer, pair) as attachment:
        return [done.loss for done in train(base, attachment, all_items(), settings, RunState.start(pair, settings))]


@each_kind
@each_family
def test_training_is_that_of_the_cpu(family: str, kind: str) -> None:
    losses, pairs = [], []
    for base in (TinyBase(family, 2), moved(TinyBase(family, 2))):
        pairs.append(make_pair(base, kind, num_groups=2).to(next(base.transformer.parameters()).device))
        losses.append(steps_of(base, pairs[-1]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    learned = pairs[1].state_dict()
    for name, weight in pairs[0].state_dict().items():
        torch.testing.assert_close(learned[name].cpu(), weight, rtol=1e-3, atol=1e-4, msg=name)


class SessionThere(Session):
    """A process that trains on the device."""

    def __init__(self, folder: Path, family: str, **settings: object) -> None:
        super().__init__(folder, family, **settings)
        moved(self.base)
        self.pair.to(DEVICE)


@pytest.mark.parametrize("is_checkpointed", [False, True])
@each_family
def test_resumed_run_equals_uninterrupted_one(tmp_path: Path, repeatable: None, family: str, is_checkpointed: bool) -> None:
    settings = {"gradient_checkpointing": is_checkpointed}
    whole = SessionThere(tmp_path / "whole", family, **settings)
    assert len(list(whole.run())) == STEPS
    assert len(list(SessionThere(tmp_path / "halves", family, **settings).run(stop_after=STEPS // 2))) == STEPS // 2
    rest = SessionThere(tmp_path / "halves", family, **settings)
    list(rest.run(is_resumed=True))
    assert is_same(rest.result(), whole.result())


@pytest.mark.parametrize("is_checkpointed", [False, True])
@each_family
def test_training_on_a_base_in_bfloat16(family: str, is_checkpointed: bool) -> None:
    exact = moved(TinyBase(family, 2))
    expected = steps_of(exact, make_pair(exact, "lora", num_groups=2).to(DEVICE))
    base = moved(TinyBase(family, 2), torch.bfloat16)
    before = {name: weight.clone() for name, weight in base.transformer.state_dict().items()}
    pair = make_pair(base, "lora", num_groups=2).to(DEVICE)
    start = {name: weight.clone() for name, weight in pair.state_dict().items()}
    losses = steps_of(base, pair, gradient_checkpointing=is_checkpointed)
    assert losses == pytest.approx(expected, rel=0.05)
    assert is_same(dict(base.transformer.state_dict()), before)
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in pair.parameters())
    assert not is_same(dict(pair.state_dict()), start)


def gradients(base: TinyBase, pair: AdapterPair, is_checkpointed: bool, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    pair.requires_grad_(True).zero_grad(set_to_none=True)
    with Attachment(base.transformer, pair) as attachment:
        attachment.condition = condition(len(inputs[0])).to(DEVICE)
        with checkpointed(base.transformer, attachment) if is_checkpointed else nullcontext():
            output = base.predict(*inputs)
            output.float().square().mean().backward()
    return [weight.grad for weight in pair.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_kind
@each_family
def test_checkpointing_gives_the_same_gradients(repeatable: None, family: str, kind: str, dtype: torch.dtype) -> None:
    base = moved(TinyBase(family, 3), dtype)
    pair = fill(make_pair(base, kind)).to(DEVICE)
    inputs = there(*model_inputs())
    kept, rerun = (gradients(base, pair, is_checkpointed, inputs) for is_checkpointed in (False, True))
    assert len(kept) > 10 and all(gradient is not None for gradient in kept)
    for before, after in zip(kept, rerun, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-8)


def sampled(base: TinyBase, pair: AdapterPair | None) -> torch.Tensor:
    """A guided video of three steps, with a reference, on the CPU."""
    generator = torch.Generator().manual_seed(7)
    text, negative = torch.randn(2, 5, TEXT_DIM, generator=generator)
    with nullcontext() if pair is None else Attachment(base.transformer, pair) as attachment:
        return sample(base, [text], negative, default_sampling(base), attachment, condition(1)[0]).cpu()


@each_kind
@each_family
def test_sampling_is_that_of_the_cpu(family: str, kind: str) -> None:
    videos = {}
    for where, base in (("here", TinyBase(family, 2)), ("there", moved(TinyBase(family, 2)))):
        pair = fill(make_pair(base, kind, num_groups=2)).requires_grad_(False)
        videos[where] = sampled(base, pair.to(next(base.transformer.parameters()).device))
    torch.testing.assert_close(videos["there"], videos["here"], rtol=1e-3, atol=1e-3)


@each_kind
@each_family
def test_sampling_in_bfloat16(family: str, kind: str) -> None:
    base = moved(TinyBase(family, 2))
    pair = fill(make_pair(base, kind, num_groups=2), spread=0.1).requires_grad_(False).to(DEVICE)
    exact = sampled(base, pair)
    half = sampled(moved(base, torch.bfloat16), pair.to(torch.bfloat16))
    assert half.isfinite().all() and (half - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_kind
@each_family
def test_an_untrained_or_removed_pair_changes_nothing(family: str, kind: str, dtype: torch.dtype) -> None:
    base = moved(TinyBase(family, 2), dtype)
    plain = sampled(base, None)
    if kind != "bottleneck-skip":  # whose skip acts from the start
        assert sampled(base, make_pair(base, kind, num_groups=2).to(DEVICE, dtype)).equal(plain)
    assert not sampled(base, fill(make_pair(base, kind, num_groups=2)).to(DEVICE, dtype)).equal(plain)
    assert sampled(base, None).equal(plain)


def waits(call: Callable[[], object]) -> int:
    """How often a call makes the host wait for the GPU."""
    call()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(one.message) for one in seen)


@needs_counters
@pytest.mark.parametrize("adapts_negative", [False, True])
@each_kind
@each_family
def test_no_site_waits_for_the_gpu(family: str, kind: str, adapts_negative: bool) -> None:
    """What a pair adds to a call's waiting does not grow with the number of its sites."""
    added = []
    for num_blocks in (2, 6):
        base = moved(TinyBase(family, num_blocks))
        pair = fill(make_pair(base, kind, num_groups=2)).requires_grad_(False).to(DEVICE)
        inputs = there(*model_inputs())
        with torch.no_grad():
            plain = waits(lambda base=base, inputs=inputs: base.predict(*inputs))
            with Attachment(base.transformer, pair) as attachment:
                attachment.condition, attachment.stage = condition().to(DEVICE), 0.5
                if not adapts_negative:
                    attachment.row_strengths = (0.0, 1.0)
                added.append(waits(lambda base=base, inputs=inputs: base.predict(*inputs)) - plain)
    assert added[1] == added[0]


WIDTH, TOKENS = 1024, 8 * 32 * 32


def larger_base(num_blocks: int = 4) -> TinyBase:
    """A Wan wide and long enough that its activations are what fills the memory."""
    base = TinyBase("wan", 1)
    base.transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=8, attention_head_dim=WIDTH // 8, in_channels=CHANNELS, out_channels=CHANNELS,
        text_dim=TEXT_DIM, freq_dim=32, ffn_dim=4 * WIDTH, num_layers=num_blocks,
    ).requires_grad_(False).eval()  # fmt: skip
    return moved(base, torch.bfloat16)


def peak(call: Callable[[], object]) -> int:
    """Bytes by which a call exceeds what is allocated before it."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


@needs_counters
@each_kind
def test_sampling_needs_the_memory_of_the_pair_and_of_few_activations(kind: str) -> None:
    base = larger_base()
    latents, timestep, text = there(*model_inputs(1, 8, 64, 64))
    pair = fill(make_pair(base, kind, bottleneck_dim=64, rank=32), spread=0.01).requires_grad_(False).to(DEVICE, torch.bfloat16)
    with torch.no_grad():
        plain = peak(lambda: base.predict(latents, timestep, text))
        with Attachment(base.transformer, pair) as attachment:
            attachment.stage = 0.5
            blended = peak(lambda: base.predict(latents, timestep, text))
    activation = TOKENS * WIDTH * 2
    assert blended - plain <= sum(weight.nbytes for weight in pair.parameters()) + 4 * activation


@needs_counters
def test_checkpointing_needs_less_memory() -> None:
    base = larger_base()
    pair = fill(make_pair(base, "lora", rank=32), spread=0.01).to(DEVICE)
    inputs = there(*model_inputs(1, 8, 64, 64))

    def backward(is_checkpointed: bool) -> None:
        gradients(base, pair, is_checkpointed, inputs)
        pair.zero_grad(set_to_none=True)

    assert peak(lambda: backward(True)) < 0.6 * peak(lambda: backward(False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, clips and random models."""
    made = tmp_path_factory.mktemp("gpu")
    trial = Trial("tam", "box")
    trial.write_photos(made / "photos")
    trial.write_clips(made / "clips")
    runpy.run_path(str(ROOT / "scripts" / "make_tiny_models.py"))["make_tiny_models"](made, seed=0)
    return made


@pytest.mark.parametrize(("family", "dtype"), [("cogvideox", "fp32"), ("wan", "bf16")])
def test_commands_train_resume_and_sample(folder: Path, tmp_path: Path, family: str, dtype: str) -> None:
    place = ["--base", folder / f"{family}-tiny", "--device", DEVICE, "--dtype", dtype, "--size", "64x48", "--num-frames", 9]
    data = ["--identity", folder / "photos", "--motion", folder / "clips", "--fps", 10, "--steps", 4]
    out, video = tmp_path / "pair.safetensors", tmp_path / "video.mp4"
    prompt = ["--prompt", "a figure * walks", "--reference-image", folder / "photos" / "sand.png", "--steps", 2]
    for command in (
        ["train", *place, *data, "--out", out, "--stop-after", 2],
        ["train", *place, *data, "--out", out, "--resume"],
        ["generate", *place, *prompt, "--pair", out, "--out", video],
    ):
        assert main([str(part) for part in command]) == 0
    assert all(weight.isfinite().all() for weight in load_pair(out)[0].parameters())
    assert len(read_video(video).frames) == 9
