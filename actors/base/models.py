"""The four networks of the small base, untrained: Stable Diffusion 1.5 and AnimateDiff v3, made small."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from flash_modules.animatediff.motion_module import MotionConfig, MotionModel

from .sizes import IMAGE_SIZE, LATENT_SIZE, NUM_FRAMES

PROMPT_TOKENS = 32

_WIDTHS = (64, 128, 192)
"""Multiples of the first, as ComfyUI's U-Nets have them."""
_LAYERS = 1
_TEXT_WIDTH = 64


def new_vae(seed: int) -> AutoencoderKL:
    """A VAE with factor 4, so that an arm is wider than a latent pixel.

    Groups of one channel would lose absolute colour, so there are 8 and not 32.
    """
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=0.18215,
    )


def new_text_encoder(tokenizer: CLIPTokenizer, seed: int) -> CLIPTextModel:
    """A CLIP text encoder for the tokenizer's vocabulary."""
    torch.manual_seed(seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_WIDTH,
            intermediate_size=2 * _TEXT_WIDTH,
            projection_dim=_TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet(seed: int) -> UNet2DConditionModel:
    """A U-Net of three levels with attention of 8 heads, as in SD 1.5, at 12 x 12 and 6 x 6.

    On the way down at 6 x 6 there is none, as in SD 1.5 at its smallest: the middle has it next.
    """
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        block_out_channels=_WIDTHS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=_LAYERS,
        attention_head_dim=8,  # diffusers' name for the number of heads; ComfyUI knows no other for SD 1.5
        cross_attention_dim=_TEXT_WIDTH,
    )


def new_motion(seed: int) -> MotionModel:
    """Motion modules for the U-Net, in AnimateDiff v3's layout, that change nothing yet."""
    torch.manual_seed(seed)
    motion = MotionModel(
        MotionConfig(
            down=tuple((width,) * _LAYERS for width in _WIDTHS),
            up=tuple((width,) * (_LAYERS + 1) for width in reversed(_WIDTHS)),
            max_frames=NUM_FRAMES,
        )
    )
    for name, weight in motion.named_parameters():
        if ".proj_out." in name:
            nn.init.zeros_(weight)
    return motion
