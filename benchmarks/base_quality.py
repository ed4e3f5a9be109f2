"""How well the embedded base draws captions it never saw: identity and motion, exactly scored.

python benchmarks/base_quality.py --videos 200
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import torch
from tqdm import tqdm

from dualreal_core.bases import load_base
from dualreal_core.sampling import default_sampling, sample
from dualreal_core.toyworld import world
from dualreal_core.toyworld.paths import BASE_MOTIONS
from dualreal_core.toyworld.scores import score_identity, score_motion

BATCH = 20


def unseen_scenes(count: int, seed: int) -> list[tuple[int, str, str]]:
    """(look index, motion, background) of captions that were kept from training."""
    generator = torch.Generator().manual_seed(seed)
    looks, backgrounds, scenes = world.all_looks(), list(world.BACKGROUNDS), []
    sizes = (len(looks), len(BASE_MOTIONS), len(backgrounds))
    while len(scenes) < count:
        look, motion, background = (int(torch.randint(size, (), generator=generator)) for size in sizes)
        if world.is_held_out(looks[look], BASE_MOTIONS[motion], backgrounds[background]):
            scenes.append((look, BASE_MOTIONS[motion], backgrounds[background]))
    return scenes


def main() -> None:
    """Samples, scores, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    base, looks = load_base("toyworld"), world.all_looks()
    settings = default_sampling(base)
    settings = replace(
        settings, guidance_scale=arguments.guidance_scale or settings.guidance_scale, num_steps=arguments.steps or settings.num_steps
    )
    scenes = unseen_scenes(arguments.videos, arguments.seed)
    identity, motion = [], []
    with base.encoders(), torch.no_grad():
        for begin in tqdm(range(0, len(scenes), BATCH)):
            batch = scenes[begin : begin + BATCH]
            texts = [base.encode_text(world.caption(looks[look].phrase, path, background)) for look, path, background in batch]
            latents = sample(base, texts, base.encode_text(""), replace(settings, seed=arguments.seed + begin))
            for video, (look, path, _) in zip(latents, batch, strict=True):
                frames = base.decode_latents(video)
                identity.append((score_identity(frames, look), look))
                motion.append((score_motion(frames, path), path))
    count = len(scenes)
    result = {
        "videos": count,
        "guidance_scale": settings.guidance_scale,
        "steps": settings.num_steps,
        "identity": sum(score.score for score, _ in identity) / count,
        "identity_top1": sum(score.best == look for score, look in identity) / count,
        "motion": sum(score.score for score, _ in motion) / count,
        "motion_top1": sum(score.best == path for score, path in motion) / count,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
