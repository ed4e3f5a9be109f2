"""What blending costs: stock sampling against blended sampling of the same Wan model, side by side in one process.

Runs in ComfyUI's Python, which needs nothing else:

    COMFYUI_PATH=~/ComfyUI PYTHON_OF_COMFYUI benchmarks/overhead.py [--repeats 5] [--cpu]

Prints the median ratio of blended to stock time per model size and adapter, with the quartiles over the repeats.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "tiny (dim 256, 3 blocks)": {"dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 3},
    "mid-size (dim 1536, 8 blocks)": {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 8},
}
LATENT = (1, 16, 5, 12, 16)
"""Shape of the sampled latent: 17 frames of 128 x 96 pixels."""
STEPS = 2
TEXT = (1, 64, 4096)


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs per row")
    parser.add_argument("--cpu", action="store_true", help="even where there is an accelerator")
    arguments = parser.parse_args()
    comfy_path = Path(os.environ.get("COMFYUI_PATH", "~/ComfyUI")).expanduser()
    if not (comfy_path / "main.py").is_file():
        sys.exit(f"There is no ComfyUI at {comfy_path}: set COMFYUI_PATH to a checkout.")
    sys.argv = [sys.argv[0], *(["--cpu"] if arguments.cpu else [])]
    sys.path.insert(0, str(comfy_path))
    import comfy.options

    comfy.options.enable_args_parsing()
    load_pack()
    import torch

    print("| model | adapter | stock, s | blended / stock | quartiles |")
    print("| --- | --- | --- | --- | --- |")
    with torch.inference_mode():
        for label, sizes in SIZES.items():
            model = make_model(sizes)
            for kind, settings in (("lora", {"rank": 32, "alpha": 32.0}), ("bottleneck", {"bottleneck_dim": 64})):
                stock, ratios = compare(model, blended(model, kind, settings), arguments.repeats)
                low, _, high = statistics.quantiles(ratios, n=4)
                median = statistics.median(ratios)
                name = f"{kind} {next(iter(settings.values()))}"
                print(f"| {label} | {name} | {stock:.2f} | {median:.3f} | {low:.3f} to {high:.3f} |", flush=True)


def load_pack() -> None:
    """The pack's folder as a package, without its nodes, as ComfyUI would name it."""
    spec = importlib.util.spec_from_loader("dualreal_pack", loader=None, is_package=True)
    package = importlib.util.module_from_spec(spec)
    package.__path__ = [str(ROOT)]
    sys.modules["dualreal_pack"] = package
    nodes = importlib.util.module_from_spec(importlib.util.spec_from_loader("dualreal_pack.nodes", loader=None, is_package=True))
    nodes.__path__ = [str(ROOT / "nodes")]
    sys.modules["dualreal_pack.nodes"] = nodes


def make_model(sizes: dict[str, int]):
    """A MODEL of noise, made by ComfyUI's own loader."""
    import comfy.ops
    import comfy.sd
    import torch
    from comfy.ldm.wan.model import WanModel

    common = {"model_type": "t2v", "in_dim": 16, "out_dim": 16, "text_dim": 4096, "freq_dim": 256, "cross_attn_norm": True}
    network = WanModel(**sizes, **common, device="cpu", dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.ones_like(tensor) if tensor.ndim < 2 else torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5
        for name, tensor in network.state_dict().items()
    }
    return comfy.sd.load_diffusion_model_state_dict(weights)


def blended(model, kind: str, settings: dict[str, object]):
    """The MODEL with a pair of noise, both sides on every row."""
    import torch
    from dualreal_pack.dualreal_core.method.pair import new_pair
    from dualreal_pack.nodes.patching import Strengths, apply_pair

    pair = new_pair(model.model.diffusion_model, identity_kind=kind, motion_kind=kind, scale=2.0, **settings)
    for parameter in pair.parameters():
        parameter.data = 0.02 * torch.randn(parameter.shape)
    return apply_pair(model, pair, Strengths(adapts_negative=True))


def compare(model, other, repeats: int) -> tuple[float, list[float]]:
    """Median stock seconds, and other / stock for runs that alternate, after one of each to warm up."""
    seconds = [(sampling_time(model), sampling_time(other)) for _ in range(repeats + 1)][1:]
    return statistics.median(stock for stock, _ in seconds), [with_pair / stock for stock, with_pair in seconds]


def sampling_time(model) -> float:
    import comfy.model_management
    import comfy.sample
    import torch

    generator = torch.Generator().manual_seed(1)
    prompts = [[[torch.randn(TEXT, generator=generator), {}]] for _ in range(2)]
    noise = torch.randn(LATENT, generator=generator)
    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    begun = time.perf_counter()
    comfy.sample.sample(model, noise, STEPS, 4.0, "euler", "simple", *prompts, torch.zeros_like(noise), disable_pbar=True, seed=0)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
