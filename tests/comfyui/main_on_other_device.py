"""ComfyUI's main.py on the device of `other_device`: python main_on_other_device.py BYTES plain|paged MAIN_ARGUMENTS...

BYTES is the device's memory. 'paged' stands in for the host's dynamic VRAM, which needs a driver: models that its loaders
make are never loaded in full, whoever asks for it.
"""

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
if sys.argv.pop(1) == "paged":
    importlib.import_module("comfy.options").enable_args_parsing()
    model_patcher = importlib.import_module("comfy.model_patcher")

    class PagedPatcher(model_patcher.ModelPatcher):
        def is_dynamic(self) -> bool:
            return True

        def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False) -> None:
            super().load(device_to, lowvram_model_memory=1, force_patch_weights=force_patch_weights)

        def loaded_ram_size(self) -> int:
            return self.model_size()

        def set_in_use_by_current_prompt(self, in_use: bool) -> None:
            pass

    model_patcher.CoreModelPatcher = PagedPatcher
runpy.run_path("main.py", run_name="__main__")
