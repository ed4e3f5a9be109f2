"""What the shipped templates ask of a server, made small: model files, folders, LoRAs; and the graphs cut down to seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from architectures import ARCHITECTURES, WAN_VAE
from comfy_host import PACK_ROOT
from safetensors.torch import save_file

from dualreal_core.toyworld.trial import FPS, Trial
from dualreal_core.video import write_mp4

WORKFLOWS = PACK_ROOT / "workflows"
NAMES = sorted(file.stem for file in WORKFLOWS.glob("*.json"))
MODEL_FILES = {
    "diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors": f"diffusion_models/{ARCHITECTURES['wan'].checkpoint}",
    "vae/wan_2.1_vae.safetensors": f"vae/{WAN_VAE}",
}
LORAS = ("identity_lora.safetensors", "motion_lora.safetensors")
TEXT_ENCODER = "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors"
NUM_BLOCKS, DIM, RANK = 3, 256, 4
SIDE_LIMIT = 64
SHORT = {
    "DualRealTrainingSettings": {"steps": 6, "preview_every": 3},
    "DualRealTrainingOptions": {"warmup_steps": 1, "identity_batch": 1, "motion_batch": 1},
    "KSampler": {"steps": 2},
    "DualRealMotionDataset": {"frames": 9, "max_segments": 1},
    "EmptyHunyuanLatentVideo": {"length": 9},
}
STAND_INS = {"CLIPLoader": "BenchTextEncoder"}
SIZED = ("DualRealIdentityDataset", "DualRealMotionDataset", "EmptyHunyuanLatentVideo")


def furnish(base: Path) -> None:
    """Puts under a server's folder everything the templates name: tiny models, photos, clips, LoRAs of noise."""
    for name, tiny in MODEL_FILES.items():
        shutil.copyfile(base / "models" / tiny, base / "models" / name)
    # Never read: the tests replace the loader, and the page asks for the file's name only.
    (base / "models" / TEXT_ENCODER).parent.mkdir(parents=True, exist_ok=True)
    save_file({"none": torch.zeros(1)}, base / "models" / TEXT_ENCODER)
    (base / "models" / "loras").mkdir(exist_ok=True)
    for seed, name in enumerate(LORAS):
        save_file(_lora(seed), base / "models" / "loras" / name)
    write_dataset(base / "input", "my_identity", "my_motion", Trial("vex", "figure-eight"))


def write_dataset(inputs: Path, identity: str, motion: str, trial: Trial) -> None:
    """Two folders with captions, as the stock folder loaders read them."""
    (inputs / identity).mkdir(parents=True, exist_ok=True)
    trial.write_photos(inputs / identity)
    (inputs / motion).mkdir(parents=True, exist_ok=True)
    for clip in trial.clips():
        frames = clip.frames.movedim(-1, 1).float() / 127.5 - 1
        write_mp4(inputs / motion / f"{clip.name}.mp4", frames, FPS)
        (inputs / motion / f"{clip.name}.txt").write_text(clip.caption, encoding="utf-8")


def read_twin(name: str) -> dict[str, dict]:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def shortened(graph: dict[str, dict]) -> dict[str, dict]:
    """An API graph with the same wires, few steps and small pictures; noise stands in for the text encoder nobody can load here."""
    short = {}
    for key, node in graph.items():
        kind = node["class_type"]
        short[key] = {**node, "class_type": STAND_INS.get(kind, kind), "inputs": _short(kind, node["inputs"])}
    return short


def shortened_canvas(canvas: dict) -> dict:
    """The same for a canvas file."""
    nodes = []
    for node in canvas["nodes"]:
        names = _widget_names(node)
        values = dict(zip(names, node["widgets_values"], strict=True))
        values |= {name: value for name, value in _short(node["type"], values).items() if name in values}
        nodes.append({**node, "type": STAND_INS.get(node["type"], node["type"]), "widgets_values": [values[name] for name in names]})
    return {**canvas, "nodes": nodes}


def _short(kind: str, inputs: dict) -> dict:
    smaller = {side: min(inputs[side], SIDE_LIMIT) for side in ("width", "height") if kind in SIZED}
    return {**inputs, **SHORT.get(kind, {}), **smaller}


def _widget_names(node: dict) -> list[str]:
    """A name for each of a node's values; the page keeps what becomes of a seed right behind it, without a name."""
    names: list[str] = []
    for entry in node["inputs"]:
        if "widget" in entry:
            names.append(entry["name"])
            if entry["type"] == "INT" and node["widgets_values"][len(names) :][:1] in (["fixed"], ["randomize"]):
                names.append(f"{entry['name']} afterwards")
    return names or [f"value {index}" for index in range(len(node["widgets_values"]))]


def _lora(seed: int) -> dict[str, torch.Tensor]:
    """Rank 4 on the attention of the tiny Wan, in the naming that trainers write for ComfyUI."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for block in range(NUM_BLOCKS):
        for layer in ("q", "k", "v", "o"):
            key = f"diffusion_model.blocks.{block}.self_attn.{layer}"
            weights[f"{key}.lora_A.weight"] = torch.randn(RANK, DIM, generator=generator) / 16
            weights[f"{key}.lora_B.weight"] = torch.randn(DIM, RANK, generator=generator) / 16
    return weights
