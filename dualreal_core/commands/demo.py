"""`dualreal demo`: the whole method on the embedded base, in minutes, with exact scores."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from ..api import read_reference_image
from ..bases import load_base
from ..bench.experiment import TOY_RECIPE, Side, evaluate, known_motions_kept, load_trial, retentions, train_joint, train_side
from ..bench.gated import gate_words
from ..errors import InputError
from ..files.atomic import atomic_path
from ..method.blend import BlendRecord
from ..method.combine import combine
from ..method.pair import ROLES, AdapterPair
from ..plots import blend_map, contact_sheet, loss_curves, save
from ..toyworld.trial import FPS, Trial
from ..training.loop import StepResult
from ..training.recipes import with_train
from ..training.run import RunDirectory
from ..video import read_video, write_gif, write_mp4

ROWS = {
    "base": "base, same prompt",
    "identity": "identity only",
    "motion": "motion only",
    "sum": "naive sum",
    "fused": "DualReal, fused",
}


def run(arguments: argparse.Namespace) -> None:
    """Trains, samples, scores, draws."""
    if arguments.steps < 2:
        raise InputError(f"--steps is {arguments.steps}; it must be at least 2.")
    trial, out = Trial(arguments.identity, arguments.motion, arguments.seed), arguments.out
    recipe = with_train(TOY_RECIPE, steps=arguments.steps, seed=arguments.seed)
    base = load_base("toyworld")
    data = load_trial(base, trial, recipe, out / "references")
    runs = out / "runs" / f"{trial.identity} {trial.motion} {trial.seed} {arguments.steps}"
    with tqdm(total=2 * arguments.steps, unit="step") as bar:

        def stepped(done: StepResult, total: int) -> None:
            bar.update()
            bar.set_postfix_str(f"{done.role} loss {done.loss:.3f}")

        bar.set_description("identity alone")
        identity = train_side(base, data, recipe, "identity", runs / "identity", stepped)
        bar.set_description("motion alone")
        motion = train_side(base, data, recipe, "motion", runs / "motion", stepped)
        bar.set_description("both jointly")
        fused = train_joint(base, data, recipe, runs / "joint", stepped, out / "pair.safetensors", gate_words(trial))
    pairs: dict[str, AdapterPair | None] = {
        "base": None,
        "identity": identity,
        "motion": motion,
        "sum": combine(identity, motion),
        "fused": fused,
    }
    record, sides = BlendRecord(), {}
    for name, pair in tqdm(pairs.items(), desc="sampling", unit="video set"):
        sides[name] = evaluate(base, trial, pair, record if name == "fused" else None)
    _write_pictures(out, runs, trial, sides, record, fused)
    kept = retentions(sides, "fused")
    board = {
        "identity": trial.identity,
        "motion": trial.motion,
        "seed": trial.seed,
        "steps": arguments.steps,
        **kept,
        "known_motions_kept": known_motions_kept(sides, "fused"),
        "sum": {**retentions(sides, "sum"), "known_motions_kept": known_motions_kept(sides, "sum")},
        "scores": {name: {**side.scores, "known_motion": side.known_motion} for name, side in sides.items()},
    }
    with atomic_path(out / "scores.json") as temporary:
        temporary.write_text(json.dumps(board, indent=1) + "\n", encoding="utf-8")
    print(f"{'':20}{'identity':>10}{'motion':>10}{'known motions':>15}")
    for name, side in sides.items():
        print(f"{ROWS[name]:20}{side.scores['identity']:>10.3f}{side.scores['motion']:>10.3f}{side.known_motion:>15.3f}")
    shown = {name: "nothing to keep" if board[name] is None else f"{board[name]:.2f}" for name in (*kept, "known_motions_kept")}
    print(f"kept of the identity {shown['retention_identity']}, of the motion {shown['retention_motion']} (0 lost, 1 as good as alone)")
    print(f"known motions kept {shown['known_motions_kept']} (1 as good as the base)")
    print(f"look at {out / 'contact_sheet.png'} and {out / 'fused.mp4'}")


def _write_pictures(out: Path, runs: Path, trial: Trial, sides: dict[str, Side], record: BlendRecord, fused: AdapterPair) -> None:
    """The fused video, the contact sheet, the loss curves and the blend map."""
    scores = [trial.score([video]) for video in sides["fused"].videos]
    best = max(range(len(scores)), key=lambda index: min(scores[index][role] for role in ROLES))
    video = sides["fused"].videos[best]
    write_mp4(out / "fused.mp4", video, FPS)
    write_gif(out / "fused.gif", video, FPS)
    photos = [read_reference_image(path, (48, 48)) for path in sorted((out / "references" / "identity").glob("*.png"))]
    clip = read_video(out / "references" / "motion" / "0.gif").frames.float() / 127.5 - 1
    rows = [
        (f"identity: {trial.identity}", "photos", torch.stack(photos)),
        (f"motion: {trial.motion}", "one of the clips", clip),
    ]
    for name, side in sides.items():
        scored = f"identity {side.scores['identity']:.2f}  motion {side.scores['motion']:.2f}"
        rows.append((ROWS[name], scored, side.videos[best]))
    save(out / "contact_sheet.png", contact_sheet(rows))
    save(out / "loss.png", loss_curves(RunDirectory(runs / "joint").metrics(), "Joint training"))
    save(out / "blend.png", blend_map(record.table(), fused.config.scale, "Share of the identity side", record.positions()))
