"""ComfyUI's main.py on the device of `other_device`, with so many bytes of it: python main_on_other_device.py BYTES MAIN_ARGUMENTS..."""

import importlib
import importlib.machinery
import runpy
import sys
import types
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1] / "core"), str(Path.cwd())]
other_device = importlib.import_module("other_device")
other_device.register(other_device.Backend(int(sys.argv.pop(1))))

module = types.ModuleType("torch_npu")  # the host imports it to see whether there is such a device
module.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None)
sys.modules["torch_npu"] = module
torch.version.cuda = None  # a build for CUDA would be taken for one of its devices
sys.argv[0] = "main.py"
runpy.run_path("main.py", run_name="__main__")
