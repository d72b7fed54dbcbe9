"""A small random Wan 2.2 in ComfyUI, as a node that learns sees it.

ComfyUI is imported when a fixture runs: without it this file must still load, so that its tests are skipped.
"""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors are faster on one thread; models are made in inference mode, as ComfyUI does."""
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
    from flash_pack.tests.comfy.wan.small_wan import small_twin

    with torch.inference_mode(False):
        return small_twin()


@pytest.fixture
def model(twin):
    """ComfyUI's MODEL with the same weights."""
    from flash_pack.tests.comfy.wan.small_wan import comfyui_model

    return comfyui_model(twin)


@pytest.fixture(scope="module")
def vae():
    from flash_pack.tests.comfy.server.stand_ins.wan import small_vae

    return small_vae()


@pytest.fixture(scope="module")
def clip():
    from flash_pack.tests.comfy.server.stand_ins.wan import small_clip

    return small_clip()


@pytest.fixture
def learning():
    """Outside of inference mode, and ComfyUI knows that something trains."""
    from flash_pack.flash_modules.backends.comfy.learning.alone import training_alone

    with torch.inference_mode(False), torch.enable_grad(), training_alone():
        yield
