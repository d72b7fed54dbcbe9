"""The repository's small base in real ComfyUI: the same video as without ComfyUI."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parents[3] / "actors" / "weights" / "base"
MOTION = "motion.safetensors"


@pytest.fixture
def small_base(flash):
    """The small base's U-Net as a MODEL, as a checkpoint loader would give it."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    from comfy.utils import unet_to_diffusers

    theirs = json.loads((FOLDER / "unet" / "config.json").read_text())
    widths, layers = theirs["block_out_channels"], theirs["layers_per_block"]
    attends = [int(kind.startswith("CrossAttn")) for kind in theirs["down_block_types"]]
    attends_up = [int(kind.startswith("CrossAttn")) for kind in reversed(theirs["up_block_types"])]
    config = comfy.supported_models.SD15(
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": widths[0],
            "num_res_blocks": [layers] * len(widths),
            "channel_mult": [width // widths[0] for width in widths],
            "transformer_depth": [depth for depth in attends for _ in range(layers)],
            "transformer_depth_output": [depth for depth in attends_up for _ in range(layers + 1)],
            "transformer_depth_middle": 1,
            "context_dim": theirs["cross_attention_dim"],
            "use_spatial_transformer": True,
            "legacy": False,
            "num_heads": theirs["attention_head_dim"],
            "num_head_channels": -1,
            "use_linear_in_transformer": False,
            "adm_in_channels": None,
            "use_temporal_attention": False,
            "dtype": torch.float32,
        }
    )
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(config)
    names = unet_to_diffusers(config.unet_config)
    weights = load_file(FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    state = {names[name]: weight.float() for name, weight in weights.items()}
    model.diffusion_model.load_state_dict(state)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def test_it_animates_in_comfyui_as_without(pack, flash, small_base, sample, assert_same):
    diffusers = pack.module("flash_modules.backends.diffusers")
    base = diffusers.load_base(diffusers.find_base(FOLDER))
    net = diffusers.add_action(base.unet, flash.motion_file.read_motion(FOLDER / MOTION), None)
    texts = "a person is sprinting, red shirt, beach", ""
    prompt, negative = (diffusers.encode_prompt(base, text).clone() for text in texts)
    z0 = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    wanted = diffusers.sample_video(
        net.predict,
        z0,
        prompt,
        negative,
        seed=7,
        config=flash.noise_schedule.SamplerConfig(num_frames=8, steps=8, cfg=4.0),
        style=flash.adain.AdaINConfig(strength=0.0),
    )

    motion = flash.backend.load_motion(FOLDER / MOTION)
    model = flash.backend.add_first_frame(flash.backend.add_action(small_base, motion, None), z0 / 0.18215)
    found = sample(
        model,
        sampler="ddim",
        scheduler="ddim_uniform",
        steps=8,
        cfg=4.0,
        seed=7,
        latents=torch.zeros(8, 4, 16, 16),
        positive=[[prompt, {}]],
        negative=[[negative, {}]],
    )
    assert_same(found * 0.18215, wanted, 1e-4)
    assert torch.equal(found[:1], z0 / 0.18215)
