"""Official templates on a server, three times each: as they are, with an untrained pair behind their loaders, and with a pair of noise."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from canvas_page import CanvasPage
from comfy_run import Run, RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from official_page import open_official, prompt_of, put_pair
from official_templates import CLIP, PHOTO, TEMPLATES, latents_alone, samplers, saving, with_maps
from PIL import Image
from workflow_bench import make_files, save_noise_pair

from dualreal_core.video import write_mp4

CLIP_FRAMES, CLIP_FPS = 17, 8
ABSENT = "this ComfyUI brings no template {}: pip install comfyui-workflow-templates"
UNTRAINED, NOISE = 0.0, 0.1
PAIR = "pair.safetensors"

Latents = list[dict[str, torch.Tensor]]
"""What each sampler of a graph made: the parts of its latent by path."""


@dataclass(frozen=True)
class Converted:
    """A template as the page sends it: as it is, and with Load Pair and Apply StageBlender behind its loaders."""

    plain: Graph
    paired: Graph


@dataclass(frozen=True)
class TemplateRun:
    """What a template made. `weights`: of each Apply StageBlender, as Blend Map gives them; `videos`: names of the saved ones."""

    plain: Latents
    untrained: Latents
    trained: Latents
    weights: list[dict[str, list]]
    videos: list[str]

    @property
    def is_neutral(self) -> bool:
        """Whether the untrained pair changed no bit of any latent."""
        pairs = zip(self.plain, self.untrained, strict=True)
        return all(one.keys() == two.keys() and all(torch.equal(one[path], two[path]) for path in one) for one, two in pairs)

    @property
    def acts(self) -> bool:
        """Whether the trained pair changed what every sampler made, and was weighed at every Apply StageBlender."""
        pairs = zip(self.plain, self.trained, strict=True)
        changed = all(any(not torch.equal(one[path], two[path]) for path in one) for one, two in pairs)
        return changed and bool(self.weights) and all(any(map(any, one["identity"])) for one in self.weights)


def furnish(server: ComfyServer) -> None:
    """Puts under the server's folder what the templates load."""
    make_files(server.host, server.base, dict.fromkeys(["wan", *(template.variant for template in TEMPLATES.values())]))
    generator = torch.Generator().manual_seed(0)
    photo = (torch.rand(96, 128, 3, generator=generator) * 255).byte()
    Image.fromarray(photo.numpy()).save(server.base / "input" / PHOTO)
    write_mp4(server.base / "input" / CLIP, torch.rand(CLIP_FRAMES, 3, 64, 64, generator=generator) * 2 - 1, CLIP_FPS)


def convert(canvas: CanvasPage, name: str) -> Converted | None:
    """Opens a template in the page, reads it, puts the nodes in, reads it again; None where ComfyUI brings no such template."""
    template = TEMPLATES[name]
    if not open_official(canvas, name):
        return None
    plain = prompt_of(canvas)
    if not put_pair(canvas, list(template.models), PAIR, template.is_joined):
        raise AssertionError(f"{name} has no loader of {', '.join(template.models)}")
    return Converted(template.in_small(plain), template.in_small(prompt_of(canvas)))


def pair_file(server: ComfyServer, variant: str, spread: float) -> str:
    """A pair in models/dualreal for a tiny model; for one that no pair fits, a pair of another model."""
    name = f"{variant} of {'noise' if spread else 'zeros'}"
    file = f"{name}_00001_.safetensors"
    if (server.base / "models" / "dualreal" / file).exists():
        return file
    try:
        save_noise_pair(server, variant, name, spread)
    except RunFailed:
        return pair_file(server, "wan", spread)
    return file


def run_template(server: ComfyServer, name: str, converted: Converted) -> TemplateRun:
    """Runs a template in small.

    Raises:
        RunFailed: a node failed; where ours refuses the model, its sentence is the error's message.
    """
    variant = TEMPLATES[name].variant
    plain = server.run(latents_alone(converted.plain))
    untrained = server.run(latents_alone(_with_pair(converted.paired, pair_file(server, variant, UNTRAINED))))
    whole = with_maps(_with_pair(converted.paired, pair_file(server, variant, NOISE))) | saving(samplers(converted.paired))
    trained = server.run(whole)
    count = len(samplers(converted.plain))
    return TemplateRun(
        *(_latents(server, run, count) for run in (plain, untrained, trained)),
        [json.loads(trained.text(key)) for key in whole if key.startswith("weights of ")],
        [file["filename"] for file in trained.files() if file["filename"].endswith(".mp4")],
    )


def _with_pair(graph: Graph, file: str) -> Graph:
    return {
        key: node(part["class_type"], **{name: file if value == PAIR else value for name, value in part["inputs"].items()})
        for key, part in graph.items()
    }


def _latents(server: ComfyServer, run: Run, count: int) -> Latents:
    return [server.tensors(run, f"save {index}") for index in range(count)]
