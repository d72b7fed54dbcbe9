"""The choice of weights that learn, in diffusers' U-Net."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from flash_pack.flash_modules.animatediff.motion_module import MotionConfig, MotionModel
from flash_pack.flash_modules.backends.diffusers.sd15 import AnimatedUNet
from flash_pack.flash_modules.backends.diffusers.sd15.load.single_file import SD15
from flash_pack.flash_modules.backends.diffusers.sd15.train.trainable import select_trainable
from flash_pack.tests.backends.aligned_models import BOTH, aligned, animated, learn, pair_call

KV = {f"{block}_transformer_blocks_0_attn{i}_to_{x}" for block in (
    "down_blocks_0_attentions_0", "down_blocks_0_attentions_1", "mid_block_attentions_0",
    "up_blocks_1_attentions_0", "up_blocks_1_attentions_1", "up_blocks_1_attentions_2",
) for i in (1, 2) for x in "kv"}  # fmt: skip


@pytest.mark.parametrize("trainable", ["attention", "motion_module"])
def test_only_the_named_weights_have_gradients(trainable: str) -> None:
    model = aligned(BOTH)
    gradients = learn(model, pair_call(), trainable)
    expected = {f"lora_unet_{name}" for name in KV}
    for name, _ in model.model.motion.named_parameters():
        if trainable == "motion_module" or ".attention_blocks." in name:
            expected.add(name)
    assert set(gradients) == expected
    assert all(gradient.any() for gradient in gradients.values())
    assert sum(weight.grad is not None for weight in model.parameters()) == len(expected)
    assert sum(weight.requires_grad for weight in model.parameters()) == len(expected)


def test_weights_are_found_by_their_names_in_action_files() -> None:
    model = animated()
    weights = select_trainable(model)
    down = model.unet.down_blocks[0].attentions[1].transformer_blocks[0]
    key = "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0"
    assert weights[f"{key}_attn1_to_k"] is down.attn1.to_k.weight
    assert weights[f"{key}_attn2_to_v"] is down.attn2.to_v.weight
    part = "up_blocks.1.motion_modules.2.temporal_transformer.transformer_blocks.0.attention_blocks.1"
    assert weights[f"{part}.to_q.weight"] is model.motion.get_submodule(part).to_q.weight


def test_counts_for_stable_diffusion_15() -> None:
    with torch.device("meta"):
        config = UNet2DConditionModel.load_config(SD15 / "unet")
        unet = UNet2DConditionModel.from_config(config)
        widths = (320, 640, 1280, 1280)
        motion = MotionModel(
            MotionConfig(down=tuple((w,) * 2 for w in widths), up=tuple((w,) * 3 for w in widths[::-1]))
        )
        model = AnimatedUNet(unet, motion)
    counts = []
    for trainable in ("attention", "motion_module"):
        weights = select_trainable(model, trainable)
        spatial = [name for name in weights if name.startswith("lora_unet_")]
        counts.append(round(sum(weight.numel() for weight in weights.values()) / 1e6, 1))
        assert len(spatial) == 64
    assert len(select_trainable(model)) == 64 + 200
    assert counts == [195.5, 461.1]
