"""What frame 0 is as pixels, and Detail Decode without a decoder."""

import pytest
import torch
from comfy.sd import VAE

from flash_pack import nodes as pack_nodes
from flash_pack.flash_modules.backends.comfy import sd15 as backend

FRAMES, SIZE = 3, 4


@pytest.fixture
def vae():
    """ComfyUI's VAE of SD 1.5, narrow, with random weights."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    net = AutoencoderKL(ddconfig=config, embed_dim=4)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(w.shape, generator=generator) / w[0].numel() ** 0.5
        if w.ndim > 1
        else torch.full(w.shape, float(name.endswith("weight")))
        for name, w in net.state_dict().items()
    }
    return VAE(sd=weights, config={"params": {"ddconfig": config, "embed_dim": 4}})


@pytest.fixture
def given(vae):
    generator = torch.Generator().manual_seed(2)
    return {
        "latents": {"samples": torch.randn(FRAMES, 4, SIZE, SIZE + 1, generator=generator)},
        "vae": vae,
        "reference": torch.rand(1, 8 * SIZE, 8 * (SIZE + 1), 3, generator=generator),
        "strength": 1.0,
    }


@pytest.fixture
def node():
    (found,) = (node for node in pack_nodes.NODES if node.GET_SCHEMA().node_id == "FLASH_DetailDecode")
    return found


def test_without_a_decoder_it_is_vae_decode_and_says_so(node, given, vae, caplog):
    (video,) = node.execute(**given, keep_first_frame=False).args
    assert torch.equal(video, vae.decode(given["latents"]["samples"]))
    assert backend.PLAIN_DECODE in caplog.text


def test_without_a_decoder_the_switch_keeps_the_picture(node, given, vae):
    (video,) = node.execute(**given, keep_first_frame=True).args
    assert torch.equal(video[:1], given["reference"])
    assert torch.equal(video[1:], vae.decode(given["latents"]["samples"])[1:])


def test_a_new_node_decodes_frame_0(node):
    (switch,) = (one for one in node.GET_SCHEMA().inputs if one.id == "keep_first_frame")
    assert switch.default is False
