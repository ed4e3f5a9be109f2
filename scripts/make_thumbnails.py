"""Draws workflows/*.jpg, 512 pixels wide, from what the quick start really makes on a running ComfyUI with this pack.

    python scripts/make_thumbnails.py http://127.0.0.1:8188     about 8 minutes on 2 CPU cores: it trains four pairs

The templates for large models get pictures of the embedded model too: they show what a template does, not what Wan looks like.
Only the standard library and Pillow are needed.
"""

from __future__ import annotations

import copy
import io
import json
import sys
import time
import urllib.parse
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
sys.path.append(str(WORKFLOWS / "api"))
from batch import Server  # noqa: E402

WIDTH, GAP, LABEL_HEIGHT = 512, 4, 18
IDENTITIES, MOTIONS = ("vex", "nim"), ("figure-eight", "spiral")
SHOWN_FRAMES = (0, 2, 4, 6, 8)
PAPER, INK = "white", "#222"

Pictures = dict[str, list[Image.Image]]


def main(url: str) -> None:
    server, graph = Server(url), json.loads((WORKFLOWS / "api" / "1_quick_start.json").read_text(encoding="utf-8"))
    made = quick_start(server, graph)
    names = ("base", "identity only", "motion only", "fused")
    rows = [(name, [made[name][frame] for frame in SHOWN_FRAMES]) for name in names]
    save("1_quick_start", stack([strip(frames, name) for name, frames in rows]))
    data = [strip(made["photos"], "photos of the identity"), strip(made["clip"], "clips of the motion")]
    save("2_train_on_wan", stack([*data, *made["loss"]]))
    save("3_apply_a_pair", stack([strip(made["fused"][:4]), strip(made["fused"][4:8])]))
    save("4_blend_two_loras", stack([strip([made["scheduled"][frame] for frame in SHOWN_FRAMES]), *made["blend map"]]))
    grid = [
        (f"{identity} x {motion}", trained(server, graph, identity, motion)["fused"]) for identity in IDENTITIES for motion in MOTIONS
    ]
    save("5_batch", stack([strip([frames[frame] for frame in SHOWN_FRAMES], label) for label, frames in grid]))
    large_models(made)


def large_models(made: Pictures) -> None:
    """Wan 2.2's experts under one blend; LTX-2.3's two passes; a video of MiniMax-H3 that goes on from a picture."""
    frames = [made["fused"][frame] for frame in SHOWN_FRAMES]
    halved = [frame.resize((frame.width // 2, frame.height // 2)) for frame in frames]
    save("6_wan22_4_steps", stack([strip(frames, "two experts, one blend"), *made["blend map"]]))
    save("7_ltx23", stack([strip(halved, "first pass"), strip(frames, "second pass")]))
    save("8_minimax_h3", stack([strip(frames[:2], "from this picture"), strip(made["fused"][3:8])]))


def quick_start(server: Server, graph: dict) -> Pictures:
    """The quick start's four videos and its data, and a fifth video under a scheduled blend."""
    graph = copy.deepcopy(graph)
    outputs = {name: find(graph, f"Decode: {name}") for name in ("base", "identity only", "motion only", "fused")}
    sources = {name: [key, 0] for name, key in outputs.items()}
    examples = find(graph, "Example Data")
    sources["photos"] = [examples, 0]
    fused = find(graph, "Fused")
    sampler = graph[outputs["fused"]]["inputs"]["samples"][0]
    graph |= {
        "schedule": {"class_type": "DualRealScheduleBlend", "inputs": {"preset": "movement first"}},
        "apply": with_inputs(graph[fused], blend=["schedule", 0]),
        "sample": with_inputs(graph[sampler], model=["apply", 0]),
        "decode": with_inputs(graph[outputs["fused"]], samples=["sample", 0]),
        "clip": {"class_type": "GetVideoComponents", "inputs": {"video": [examples, 2]}},
        "blend map": {"class_type": "DualRealBlendMap", "inputs": {"model": ["apply", 0], "latent": ["sample", 0]}},
        "loss": {"class_type": "LossGraphNode", "inputs": {"loss": [find(graph, "Joint Trainer"), 1], "filename_prefix": "dualreal/loss"}},
    }
    sources |= {"scheduled": ["decode", 0], "clip": ["clip", 0]}
    pictures = run(server, graph, sources, {"loss": "loss", "blend map": "blend map"})
    # Of the list of clips the first one is enough.
    pictures["clip"] = [pictures["clip"][frame] for frame in SHOWN_FRAMES]
    return pictures


def trained(server: Server, graph: dict, identity: str, motion: str) -> Pictures:
    """The fused video of another pair."""
    graph = copy.deepcopy(graph)
    graph[find(graph, "Example Data")]["inputs"] |= {"identity": identity, "motion": motion}
    return run(server, graph, {"fused": [find(graph, "Decode: fused"), 0]}, {})


def find(graph: dict, title: str) -> str:
    (key,) = [key for key, node in graph.items() if node.get("_meta", {}).get("title") == title]
    return key


def with_inputs(node: dict, **inputs: object) -> dict:
    return {"class_type": node["class_type"], "inputs": node["inputs"] | inputs}


def run(server: Server, graph: dict, sources: dict[str, list], shown: dict[str, str]) -> Pictures:
    """Runs as much of a graph as the pictures need: those of some IMAGE outputs, and those that some nodes show themselves."""
    info = server.get("/object_info")
    kept = {key: node for key, node in graph.items() if not info[node["class_type"]]["output_node"] or key in shown.values()}
    for name, source in sources.items():
        kept[f"preview {name}"] = {"class_type": "PreviewImage", "inputs": {"images": source}}
    prompt_id = server.queue(kept)
    while not (history := server.get(f"/history/{prompt_id}")):
        time.sleep(1)
    record = history[prompt_id]
    if record["status"]["status_str"] != "success":
        sys.exit(json.dumps(record["status"]["messages"][-1], indent=1)[:2000])
    keys = {name: f"preview {name}" for name in sources} | shown
    return {name: [fetch(server, item) for item in record["outputs"][key]["images"]] for name, key in keys.items()}


def fetch(server: Server, item: dict) -> Image.Image:
    query = urllib.parse.urlencode({key: item[key] for key in ("filename", "subfolder", "type")})
    return Image.open(io.BytesIO(server.request(f"/view?{query}"))).convert("RGB")


def strip(frames: list[Image.Image], label: str = "") -> Image.Image:
    """Frames side by side over the whole width, pixels enlarged unsmoothed, under a label."""
    side = (WIDTH - GAP * (len(frames) + 1)) // len(frames)
    top = LABEL_HEIGHT if label else GAP
    row = Image.new("RGB", (WIDTH, top + side), PAPER)
    ImageDraw.Draw(row).text((GAP, 3), label, fill=INK)
    for index, frame in enumerate(frames):
        row.paste(frame.resize((side, side), Image.Resampling.NEAREST), (GAP + index * (side + GAP), top))
    return row


def stack(rows: list[Image.Image]) -> Image.Image:
    """Rows below each other, each as wide as the picture."""
    rows = [row if row.width == WIDTH else row.resize((WIDTH, round(row.height * WIDTH / row.width))) for row in rows]
    sheet = Image.new("RGB", (WIDTH, sum(row.height for row in rows) + GAP), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def save(name: str, picture: Image.Image) -> None:
    picture.save(WORKFLOWS / f"{name}.jpg", quality=90)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
