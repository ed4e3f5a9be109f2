"""Fills a folder that git ignores with all that benchmarks/gpu_check.py needs on a machine without network.

python scripts/pack_for_gpu.py [--python 3.12] [--folder .gpu]

The machine is to have PyTorch with CUDA, torchvision, torchaudio, and transformers with what that needs, as ComfyUI's own
installation has. Wheels of the rest lie in .gpu/wheels then, one version of each, and the parts of the ComfyUI in
COMFYUI_PATH (else ~/ComfyUI) in .gpu/ComfyUI. Copy the repository's files and this folder there, and run what it prints.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_WHEELS_MIB, MOST_ALL_MIB = 60, 64
WHEELS = (
    "diffusers==0.42.1", "importlib_metadata==8.7.0", "zipp==3.23.0", "peft==0.21.2", "accelerate==1.15.0", "imageio-ffmpeg==0.6.0",
    "einops==0.8.2", "torchsde==0.2.6", "trampoline==0.1.2", "comfy-aimdo==0.4.13", "pytest==9.2.0", "pluggy==1.6.0", "iniconfig==2.3.0",
    "pygments==2.19.2", "requests==2.34.2", "urllib3==2.6.3", "idna==3.11", "certifi",
)  # fmt: skip
"""For the machine's Python. imageio-ffmpeg is the last one with a small ffmpeg."""
PURE_WHEELS = ("comfy-kitchen==0.2.31", "charset-normalizer==3.4.4")
"""Those of which there is a small form without compiled code."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
PARTS_OF_COMFYUI = ("comfy", "comfy_api", "comfy_execution", "*.py")
SUFFIXES = (".py", ".json")
LARGEST_FILE = 200_000
"""Beyond it are tokenizers, which nothing here uses."""
COMMAND = """python3 -m pip install -q --no-index --no-deps --no-compile --target ~/dualreal-gpu/site {folder}/wheels/*.whl && \\
PYTHONPATH=~/dualreal-gpu/site python3 benchmarks/gpu_check.py --out ~/dualreal-gpu/check --markdown ~/dualreal-gpu/check/gpu.md"""


def main() -> int:
    """Fills the folder and prints its sizes and the command; fails where it is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="version of the machine's Python (default: 3.12)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".gpu")
    arguments = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH") or "~/ComfyUI").expanduser()
    if not (comfyui / "main.py").is_file():
        sys.exit(f"There is no ComfyUI at {comfyui}: set COMFYUI_PATH to a checkout.")
    shutil.rmtree(arguments.folder, ignore_errors=True)
    download(arguments.folder / "wheels", arguments.python, PLATFORMS, WHEELS)
    download(arguments.folder / "wheels", arguments.python, ("any",), PURE_WHEELS)
    copy_comfyui(comfyui, arguments.folder / "ComfyUI")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True).stdout
    (arguments.folder / "commit").write_text(commit, encoding="utf-8")
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    for wheel in sorted((arguments.folder / "wheels").iterdir()):
        print(f"{mebibytes([wheel]):6.2f} MiB {wheel.name}")
    wheels = mebibytes((arguments.folder / "wheels").iterdir())
    whole = mebibytes([*arguments.folder.rglob("*"), *(ROOT / name for name in tracked if name)])
    print(f"{wheels:6.2f} MiB of wheels (at most {MOST_WHEELS_MIB})")
    print(f"{whole:6.2f} MiB with ComfyUI and the repository (at most {MOST_ALL_MIB})")
    if wheels > MOST_WHEELS_MIB or whole > MOST_ALL_MIB:
        print("That is too much: leave out a wheel, or take a smaller version.", file=sys.stderr)
        return 1
    print(f"\nThere, in the repository's folder:\n\n{COMMAND.format(folder=arguments.folder.name)}")
    return 0


def download(folder: Path, python: str, platforms: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Wheels of these packages, and of nothing that they need."""
    options = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp", "--quiet", "--dest", folder]
    options += [option for platform in platforms for option in ("--platform", platform)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, *names], check=True)


def copy_comfyui(source: Path, target: Path) -> None:
    """Source files of the parts that models and samplers are made of."""
    parts = [found for part in PARTS_OF_COMFYUI for found in source.glob(part)]
    for path in (path for part in parts for path in ([part] if part.is_file() else part.rglob("*"))):
        if path.suffix in SUFFIXES and path.stat().st_size < LARGEST_FILE and "__pycache__" not in path.parts:
            copied = target / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)


def mebibytes(files: Iterable[Path]) -> float:
    """Size of files together."""
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20


if __name__ == "__main__":
    sys.exit(main())
