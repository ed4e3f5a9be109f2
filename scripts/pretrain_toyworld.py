"""Trains the embedded base from nothing: the codec, then the video DiT. Resumable; about 90 minutes on 2 CPU cores.

python scripts/pretrain_toyworld.py codec --out build/toyworld
python scripts/pretrain_toyworld.py transformer --out build/toyworld --minutes 60
python scripts/pretrain_toyworld.py export --out build/toyworld
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from dualreal_core.toyworld import world
from dualreal_core.toyworld.codec import ToyCodec
from dualreal_core.toyworld.config import TRANSFORMER_CONFIG
from dualreal_core.toyworld.figures import random_figure
from dualreal_core.toyworld.model import position_planes
from dualreal_core.toyworld.paths import BASE_MOTIONS
from dualreal_core.toyworld.text import MIN_TOKENS, embed_text

CODEC_STEPS = 3000
CODEC_BATCH = 64
CODEC_NOISE = 0.1
NUM_CLIPS = 24_000
FIGURE_SHARE = 0.3
BATCH = 16
STILL_BATCH = 64
STILL_EVERY = 3
CAPTION_DROP = 0.1
SHIFT = 3.0
SIGMA_SPREAD = 1.2
LEARNING_RATE = 2e-3
MATRIX_RATE = 3e-3
DECAY_SHARE = 0.55
WARMUP = 100
EMA = 0.999
SEED = 0


def to_signed(frames: torch.Tensor) -> torch.Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1


def random_scene(looks: list[world.Look], generator: torch.Generator) -> tuple[world.Look | object, str, str, str]:
    """A subject, its phrase, a base motion and a background which are not a held-out caption."""

    def pick(options: list) -> object:
        return options[int(torch.randint(len(options), (), generator=generator))]

    while True:
        motion, background = pick(BASE_MOTIONS), pick(list(world.BACKGROUNDS))
        if torch.rand((), generator=generator) < FIGURE_SHARE:
            return random_figure(generator), "a figure", motion, background
        look = pick(looks)
        if not world.is_held_out(look, motion, background):
            return look, look.phrase, motion, background


def random_texture(generator: torch.Generator) -> torch.Tensor:
    """Smooth colours with boxes, so that the codec carries pictures of other things too: (1, 32, 32, 3) uint8."""
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    frame = functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    for _ in range(3):
        x, y, w, h = torch.randint(2, 20, (4,), generator=generator).tolist()
        frame[:, :, y : y + h, x : x + w] = torch.rand(1, 3, 1, 1, generator=generator)
    return (frame * 255).permute(0, 2, 3, 1).to(torch.uint8)


def train_codec(out: Path) -> None:
    """Autoencoder on single frames, with noise on its latents so that the decoder forgives a sampler's errors."""
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    looks = world.all_looks()
    frames = []
    for _ in range(12_000):
        look, _, _, background = random_scene(looks, generator)
        frames.append(world.draw_still(look, background, generator))
    frames = to_signed(torch.cat(frames))
    textures = to_signed(torch.cat([random_texture(generator) for _ in range(2000)]))
    codec = ToyCodec()
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=CODEC_STEPS, pct_start=0.05)
    start = time.time()
    for step in range(CODEC_STEPS):
        batch = torch.cat(
            [
                frames[torch.randint(len(frames), (CODEC_BATCH * 7 // 8,), generator=generator)],
                textures[torch.randint(len(textures), (CODEC_BATCH // 8,), generator=generator)],
            ]
        )
        with torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode(batch)
            noisy = latents + CODEC_NOISE * torch.randn(latents.shape, generator=generator)
            decoded = codec.decode(noisy).float()
        error = decoded - batch
        foreground = 1 + 2 * (batch != batch[:, :, :1, :1]).any(1, keepdim=True)
        loss = (foreground * (error.abs() + error.square())).mean() + 1e-3 * latents.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == CODEC_STEPS - 1:
            print(f"codec {step} loss {loss.item():.4f} latent std {latents.float().std():.2f} {time.time() - start:.0f}s", flush=True)
    with torch.no_grad():
        latents = torch.cat([codec.encode(chunk) for chunk in frames.split(500)])
        codec.latents_mean.copy_(latents.mean((0, 2, 3)))
        codec.latents_std.copy_(latents.std((0, 2, 3)))
        decoded = torch.cat([codec.decode(codec.encode(chunk)) for chunk in frames[:2000].split(500)])
        error = (decoded.clamp(-1, 1) - frames[:2000]).square().mean()
    print(f"codec psnr {10 * math.log10(4 / error.item()):.1f} dB, latent std {latents.std((0, 2, 3))}")
    save_file({name: tensor.contiguous() for name, tensor in codec.state_dict().items()}, out / "codec.safetensors")


@torch.no_grad()
def make_clips(codec: ToyCodec, out: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Latents (N, F, 16, 8, 8) fp16, caption index of each clip as (with motion, still), and the captions."""
    path = out / "clips.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    generator = torch.Generator().manual_seed(SEED + 1)
    looks, captions, latents, index = world.all_looks(), {}, [], []
    for begin in range(0, NUM_CLIPS, 100):
        frames = []
        for _ in range(100):
            look, phrase, motion, background = random_scene(looks, generator)
            frames.append(world.draw_clip(look, motion, background, generator))
            moving, still = world.caption(phrase, motion, background), world.caption(phrase, None, background)
            index.append([captions.setdefault(moving, len(captions)), captions.setdefault(still, len(captions))])
        with torch.autocast("cpu", torch.bfloat16):
            encoded = codec.encode(to_signed(torch.stack(frames)).flatten(0, 1))
        latents.append(encoded.half().unflatten(0, (100, world.NUM_FRAMES)))
        if begin % 4000 == 0:
            print(f"clips {begin}", flush=True)
    made = (torch.cat(latents), torch.tensor(index), list(captions))
    torch.save(made, path)
    return made


def learning_rate(progress: float, step: int, decay_share: float) -> float:
    """Warm-up, constant, then linear to zero over the last part. `progress` runs from 0 to 1."""
    return min(1.0, (step + 1) / WARMUP) * min(1.0, max(0.0, (1 - progress) / decay_share))


def train_transformer(out: Path, minutes: float, total_steps: int | None, is_annealed: bool) -> None:
    """Flow matching on the clips' latents; every third batch is stills.

    is_annealed: a second round from the state of a finished first one, at half the rates, decaying throughout.
    """
    codec = ToyCodec()
    codec.load_state_dict(load_file(out / "codec.safetensors"))
    latents, index, captions = make_clips(codec, out)
    embedded = torch.stack([embed_text(text)[:MIN_TOKENS] for text in captions])
    torch.manual_seed(SEED)
    transformer = WanTransformer3DModel(**TRANSFORMER_CONFIG)
    matrices = [p for name, p in transformer.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    others = [p for name, p in transformer.named_parameters() if not (name.startswith("blocks.") and p.ndim == 2)]
    optimizers = [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    average = {name: p.detach().clone() for name, p in transformer.named_parameters()}
    generator = torch.Generator().manual_seed(SEED + 2)
    step, spent = 0, 0.0
    state_path = out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        transformer.load_state_dict(state["transformer"])
        average, step, spent = state["average"], state["step"], state["spent"]
        generator.set_state(state["generator"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if is_annealed and not state.get("is_annealed", False):
            spent = 0.0
        print(f"resumed at step {step}, {spent / 60:.1f} minutes spent")
    planes = {length: position_planes(length, 8, 8) for length in (1, world.NUM_FRAMES)}
    peaks = (MATRIX_RATE / 2, LEARNING_RATE / 2) if is_annealed else (MATRIX_RATE, LEARNING_RATE)
    decay_share = 1.0 if is_annealed else DECAY_SHARE
    clock, running = time.time(), {True: 0.0, False: 0.0}
    budget = minutes * 60

    def save() -> None:
        state = {
            "transformer": transformer.state_dict(),
            "average": average,
            "step": step,
            "spent": spent,
            "is_annealed": is_annealed,
            "generator": generator.get_state(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        torch.save(state, state_path.with_suffix(".new"))
        state_path.with_suffix(".new").replace(state_path)

    with sdpa_kernel(SDPBackend.MATH):
        while True:
            now = time.time()
            spent, clock = spent + now - clock, now
            progress = step / total_steps if total_steps else spent / budget
            if progress >= 1:
                break
            is_still = step % STILL_EVERY == STILL_EVERY - 1
            rows = torch.randint(len(latents), (STILL_BATCH if is_still else BATCH,), generator=generator)
            clean = latents[rows].float().transpose(1, 2)  # (B, 16, F, 8, 8)
            if is_still:
                clean = clean[:, :, int(torch.randint(clean.shape[2], (), generator=generator))][:, :, None]
            text = embedded[index[rows, int(is_still)]].clone()
            text[torch.rand(len(rows), generator=generator) < CAPTION_DROP] = 0
            sigma = torch.sigmoid(SIGMA_SPREAD * torch.randn(len(rows), generator=generator))
            sigma = SHIFT * sigma / (1 + (SHIFT - 1) * sigma)
            noise = torch.randn(clean.shape, generator=generator)
            noisy = torch.lerp(clean, noise, sigma[:, None, None, None, None])
            inputs = torch.cat([noisy, planes[clean.shape[2]].expand(len(rows), -1, -1, -1, -1)], dim=1)
            with torch.autocast("cpu", torch.bfloat16):
                predicted = transformer(inputs, sigma * 1000, text, return_dict=False)[0].float()
            loss = functional.mse_loss(predicted, noise - clean)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
            for optimizer, peak in zip(optimizers, peaks, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = peak * learning_rate(progress, step, decay_share)
                optimizer.step()
                optimizer.zero_grad()
            decay = min(EMA, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), [p.detach() for p in transformer.parameters()], 1 - decay)
            running[is_still] = 0.98 * running[is_still] + 0.02 * loss.item() if running[is_still] else loss.item()
            step += 1
            if step % 50 == 0:
                print(f"{step} clip {running[False]:.4f} still {running[True]:.4f} {spent / 60:.1f} min {progress:.3f}", flush=True)
            if step % 250 == 0:
                save()
    save()


def export(out: Path) -> None:
    """Writes the averaged weights in half precision, with the settings that made them, into the package."""
    state = torch.load(out / "state.pt", weights_only=True)
    target = Path(__file__).resolve().parents[1] / "dualreal_core" / "toyworld" / "weights"
    target.mkdir(exist_ok=True)
    settings = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int | float)}
    made = {"steps": state["step"], "minutes": round(state["spent"] / 60, 1), "torch": torch.__version__, **settings}
    metadata = {"made_by": "scripts/pretrain_toyworld.py", "settings": json.dumps(made)}
    save_file({name: tensor.half().contiguous() for name, tensor in state["average"].items()}, target / "transformer.safetensors", metadata)
    codec = load_file(out / "codec.safetensors")
    save_file(
        {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in codec.items()}, target / "codec.safetensors", metadata
    )


def main() -> None:
    """Runs one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["codec", "transformer", "export"])
    parser.add_argument("--out", type=Path, required=True, help="folder for states and caches")
    parser.add_argument("--minutes", type=float, default=60, help="wall time over which the schedule runs")
    parser.add_argument("--total-steps", type=int, help="run the schedule over so many steps instead")
    parser.add_argument("--anneal", action="store_true", help="second round: from the finished state, at half the rates")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "codec":
        train_codec(arguments.out)
    elif arguments.stage == "transformer":
        train_transformer(arguments.out, arguments.minutes, arguments.total_steps, arguments.anneal)
    else:
        export(arguments.out)


if __name__ == "__main__":
    main()
