"""DualReal for ComfyUI. Without ComfyUI, as when tests collect this folder, there is nothing here; use `dualreal_core`."""

from importlib.util import find_spec

WEB_DIRECTORY = "./web"

if find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
