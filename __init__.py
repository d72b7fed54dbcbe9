"""ComfyUI-FLASH: animate a picture with a motion that was learned from a few clips."""

import importlib.util

WEB_DIRECTORY = "./web"

# Without ComfyUI (tests, command line) there is no node API to import.
if __package__ and importlib.util.find_spec("comfy_api"):
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
else:
    __all__ = ["WEB_DIRECTORY"]
