"""Cross-frame attention in diffusers' U-Net."""

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from flash_pack.flash_modules.backends.diffusers.sd15 import (
    AnimatedUNet,
    add_cross_frame_attention,
    add_motion,
)
from flash_pack.flash_modules.backends.diffusers.sd15.cross_frame import CrossFrameAttention
from flash_pack.flash_modules.flash.motion_alignment import VideoCall
from flash_pack.tests.backends.small_models import SD15_WIDTHS, TEXT_WIDTH, small_motion, small_unet

F, N = 3, 5


@pytest.fixture(scope="module")
def model() -> AnimatedUNet:
    return add_cross_frame_attention(add_motion(small_unet(), small_motion()))


def slow_attention(attn: nn.Module, tokens_FNC: Tensor) -> Tensor:
    """Every frame, head and token one by one, in float64."""
    attn = attn.double()
    q, k, v = (
        rearrange(project(tokens_FNC.double()), "f n (heads d) -> f heads n d", heads=attn.heads)
        for project in (attn.to_q, attn.to_k, attn.to_v)
    )
    out = torch.zeros_like(q)
    for frame in range(q.shape[0]):
        for head in range(attn.heads):
            keys_MD = torch.cat([k[frame, head], k[0, head]])
            values_MD = torch.cat([v[frame, head], v[0, head]])
            for token in range(q.shape[2]):
                scores_M = (keys_MD * q[frame, head, token]).sum(-1) / keys_MD.shape[-1] ** 0.5
                out[frame, head, token] = (scores_M.softmax(-1)[:, None] * values_MD).sum(0)
    return attn.to_out[0](rearrange(out, "f heads n d -> f n (heads d)"))


def test_layer_equals_a_slow_loop_over_current_and_first_frame() -> None:
    model = add_cross_frame_attention(add_motion(small_unet(), small_motion()))
    attn = model.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    tokens_FNC = torch.randn(F, N, 64, generator=torch.Generator().manual_seed(0))
    model.present.call = VideoCall(num_frames=F)
    out = attn(tokens_FNC)
    expected = slow_attention(attn, tokens_FNC)
    assert torch.allclose(out.double(), expected, atol=1e-5)
    assert not torch.allclose(slow_attention(attn, tokens_FNC[1:2]), expected[1:2], atol=1e-2)


def test_every_self_attention_and_no_other_looks_at_the_first_frame() -> None:
    model = add_cross_frame_attention(
        add_motion(small_unet(widths=SD15_WIDTHS), small_motion(widths=SD15_WIDTHS))
    )
    changed = {n for n, p in model.unet.attn_processors.items() if isinstance(p, CrossFrameAttention)}
    assert len(changed) == 16
    assert changed == {name for name in model.unet.attn_processors if ".attn1." in name}


def test_first_frame_alone_equals_plain_self_attention(model: AnimatedUNet) -> None:
    plain = add_motion(small_unet(), small_motion())
    latents_BFCHW, text = torch.randn(1, 1, 4, 8, 8), torch.randn(1, 5, TEXT_WIDTH)
    with torch.inference_mode():
        expected = plain.predict(latents_BFCHW, torch.tensor([41]), text)
        out = model.predict(latents_BFCHW, torch.tensor([41]), text)
    assert torch.allclose(out, expected, atol=1e-5)


def test_it_counts(model: AnimatedUNet) -> None:
    plain = add_motion(small_unet(), small_motion())
    latents_BFCHW, text = torch.randn(1, F, 4, 8, 8), torch.randn(1, 5, TEXT_WIDTH)
    with torch.inference_mode():
        expected = plain.predict(latents_BFCHW, torch.tensor([41]), text)
        out = model.predict(latents_BFCHW, torch.tensor([41]), text)
    assert (out - expected).norm() > 0.1 * expected.norm()
