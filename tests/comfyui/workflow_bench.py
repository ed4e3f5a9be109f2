"""What the shipped templates ask of a server, made small: model files, folders, LoRAs; and the graphs cut down to seconds."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import graphs
import torch
from architectures import ARCHITECTURES, WAN_VAE
from comfy_host import PACK_ROOT, ComfyHost
from comfy_server import ComfyServer
from official_templates import H3, I2V_EXPERTS, LTX23, SMALL, stand_in
from PIL import Image
from safetensors.torch import save_file
from variants import VARIANTS

from dualreal_core.toyworld.trial import FPS, Trial
from dualreal_core.video import write_mp4

WORKFLOWS = PACK_ROOT / "workflows"
NAMES = sorted(file.stem for file in WORKFLOWS.glob("*.json"))
MAKER = Path(__file__).parent / "tiny_template_files.py"
MADE = ("wan22_i2v", "ltx23", "h3")
MODEL_FILES = {
    "diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors": f"diffusion_models/{ARCHITECTURES['wan'].checkpoint}",
    "vae/wan_2.1_vae.safetensors": f"vae/{WAN_VAE}",
    "vae/minimax_h3_video_vae_fp16.safetensors": "vae/tiny_h3_vae.safetensors",
    "latent_upscale_models/ltx-2.3-spatial-upscaler-x2-1.1.safetensors": "latent_upscale_models/tiny_upsampler.safetensors",
    **{f"diffusion_models/{name}": f"diffusion_models/{tiny}" for name, tiny in I2V_EXPERTS.items()},
    # Not in INT8: the device of test_other_device draws no random numbers, by which the host rounds a LoRA into such weights.
    **{f"diffusion_models/{name}": f"diffusion_models/{VARIANTS['h3'].checkpoint}" for name in H3},
    **{f"checkpoints/{name}": f"checkpoints/{tiny}" for name, tiny in LTX23.items()},
    **{
        f"loras/{name}.safetensors": f"loras/tiny_{variant}_lora.safetensors"
        for variant, names in {
            "wan22_i2v": [
                f"{name}_{noise}_noise"
                for name in ("wan2.2_i2v_lightx2v_4steps_lora_v1", "wan22_identity", "wan22_motion")
                for noise in ("high", "low")
            ],
            "ltx23": ["ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16", "ltx_identity_lora", "ltx_motion_lora"],
            "h3": ["minimax_h3_fl2v_turbo_8step_v1.0_comfyui_bf16", "h3_identity_lora", "h3_motion_lora"],
        }.items()
        for name in names
    },
}
LORAS = ("identity_lora.safetensors", "motion_lora.safetensors")
# Never read: the tests replace the loaders, and the page asks for the files' names only.
UNREAD = (
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors", "text_encoders/gemma_3_12B_it_fp4_mixed.safetensors",
    "text_encoders/qwen3vl_32b_minimax_h3_nvfp4_awq.safetensors", "vae/minimax_h3_audio_vae_fp32.safetensors",
)  # fmt: skip
PHOTO = "example.png"
NUM_BLOCKS, DIM, RANK = 3, 256, 4
SIDE_LIMIT = 64
SHORT = {
    "DualRealTrainingSettings": {"steps": 6, "preview_every": 3},
    "DualRealTrainingOptions": {"warmup_steps": 1, "identity_batch": 1, "motion_batch": 1},
    "KSampler": {"steps": 2},
    "DualRealMotionDataset": {"frames": 9, "max_segments": 1},
    **SMALL,
    "EmptyHunyuanLatentVideo": {"length": 9},
}
SIZED = ("DualRealIdentityDataset", "DualRealMotionDataset", "EmptyHunyuanLatentVideo")


def make_files(host: ComfyHost, base: Path, variants: Iterable[str]) -> None:
    """Tiny models, and what templates load beside them, under a server's folder."""
    made = subprocess.run([host.python, MAKER, host.path, base / "models", *variants], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"the tiny files could not be made:\n{made.stderr}")


def furnish(server: ComfyServer) -> None:
    """Puts under a server's folder everything the templates name: tiny models, photos, clips, LoRAs of noise."""
    base = server.base
    make_files(server.host, base, MADE)
    for name, tiny in MODEL_FILES.items():
        shutil.copyfile(base / "models" / tiny, base / "models" / name)
    for name in UNREAD:
        (base / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({"none": torch.zeros(1)}, base / "models" / name)
    Image.new("RGB", (96, 64), "teal").save(base / "input" / PHOTO)
    for seed, name in enumerate(LORAS):
        save_file(_lora(seed), base / "models" / "loras" / name)
    write_dataset(base / "input", "my_identity", "my_motion", Trial("vex", "figure-eight"))


def save_noise_pair(server: ComfyServer, variant: str, prefix: str, spread: float = 0.1) -> None:
    """Saves a pair of noise that fits a tiny model; at spread 0 it is as an untrained one."""
    server.run(
        {
            "model": graphs.node("UNETLoader", unet_name=VARIANTS[variant].checkpoint, weight_dtype="default"),
            "pair": graphs.node("BenchPair", model=["model", 0], kind="lora", spread=spread, seed=0, has_controller=True),
            "save": graphs.node("DualRealSavePair", pair=["pair", 0], filename_prefix=prefix, consent=""),
        }
    )


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
        short[key] = {**node, "class_type": stand_in(kind, node["inputs"]), "inputs": _short(kind, node["inputs"])}
    return short


def shortened_canvas(canvas: dict) -> dict:
    """The same for a canvas file."""
    canvas = copy.deepcopy(canvas)
    subgraphs = {subgraph["id"]: subgraph for subgraph in canvas.get("definitions", {}).get("subgraphs", [])}
    for node in canvas["nodes"]:
        _shorten_node(node, subgraphs.get(node["type"]))
    for subgraph in subgraphs.values():
        for node in subgraph["nodes"]:
            _shorten_node(node)
    return canvas


def _shorten_node(node: dict, subgraph: dict | None = None) -> None:
    """subgraph: what the node stands for, if anything; what it shows is then what nodes inside do."""
    names = _widget_names(node)
    values = dict(zip(names, node["widgets_values"], strict=True))
    if subgraph is None:
        values |= {name: value for name, value in _short(node["type"], values).items() if name in values}
        node["type"] = stand_in(node["type"], values)
    else:
        inside = {one["id"]: one for one in subgraph["nodes"]}
        for link in subgraph["links"]:
            name = subgraph["inputs"][link["origin_slot"]]["name"] if link["origin_id"] < 0 else None
            if name in values:
                target = inside[link["target_id"]]
                inner = target["inputs"][link["target_slot"]]["name"]
                values[name] = _short(target["type"], {inner: values[name]})[inner]
    node["widgets_values"] = [values[name] for name in names]


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
