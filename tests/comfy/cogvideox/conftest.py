"""A small random CogVideoX for both sides, and short runs through ComfyUI's own samplers.

ComfyUI is imported when a fixture runs: without it this file must still load, so that its tests are skipped.
"""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread_without_gradients():
    """Small tensors are faster on one thread; ComfyUI runs nodes in inference mode."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)
    import comfy.model_management

    comfy.model_management.unload_all_models()


@pytest.fixture
def twin():
    """diffusers' transformer."""
    from flash_pack.tests.backends.small_cogvideox import small_transformer

    return small_transformer()


@pytest.fixture
def model(twin):
    """ComfyUI's MODEL with the same weights, as ComfyUI itself has it: not corrected."""
    from flash_pack.tests.comfy.cogvideox.two_hosts import comfyui_model

    return comfyui_model(twin)
