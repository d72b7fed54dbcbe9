"""The Detail Enhancement Decoder on ComfyUI's VAE: the same pixels as on diffusers', and clear refusals."""

from types import SimpleNamespace

import pytest
import torch

from flash_pack import nodes as our_nodes
from flash_pack.flash_modules.backends.comfy.sd15 import detail as comfy
from flash_pack.flash_modules.backends.diffusers.sd15 import detail as diffusers
from flash_pack.flash_modules.flash import decoder_file, detail_decoder

WIDTHS = (32, 32, 64, 64)
FRAMES, SIZE = 3, 6


def randomise(module: torch.nn.Module, seed: int, size: float = 1.2) -> torch.nn.Module:
    """`size` is small where layers add to each other, or rounding would grow until nothing is comparable."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        scale = size / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.2 * size
        weight.data = noise * scale + float(weight.ndim == 1 and name.endswith("weight"))
    return module.eval().requires_grad_(False)


@pytest.fixture
def parts():
    """Our modules."""
    return SimpleNamespace(comfy=comfy, diffusers=diffusers, file=decoder_file, core=detail_decoder)


@pytest.fixture
def diffusers_vae():
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=1.0,
    )
    return randomise(vae, seed=1)


@pytest.fixture
def vae(diffusers_vae):
    """The same weights as ComfyUI's VAE."""
    from comfy.sd import VAE

    layout = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": WIDTHS[0],
        "ch_mult": [width // WIDTHS[0] for width in WIDTHS],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    state = {name: weight.clone() for name, weight in diffusers_vae.state_dict().items()}
    config = {"params": {"ddconfig": layout, "embed_dim": 4}}
    return VAE(sd=state, config=config, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def weights(parts, diffusers_vae):
    """A decoder of that VAE, as if it were trained."""
    config = parts.core.DetailDecoderConfig(channels=WIDTHS, width=8)
    state = diffusers_vae.state_dict()
    return parts.file.DetailWeights(
        name="small",
        config=config,
        tensors=randomise(parts.core.DetailDecoder(config), seed=2, size=0.5).state_dict(),
        signature={name: state[name] for name in parts.file.SIGNATURE},
        vae_name="small VAE",
    )


@pytest.fixture
def detail(parts, weights, tmp_path):
    parts.file.write_detail_decoder(tmp_path / "small.safetensors", weights)
    return parts.comfy.load_detail_decoder(tmp_path / "small.safetensors")


@pytest.fixture
def latents():
    return torch.randn(FRAMES, 4, SIZE, SIZE + 2, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def image():
    return torch.rand(1, 8 * SIZE, 8 * (SIZE + 2), 3, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def decode(parts, vae, detail, latents, image):
    def run(strength=1.0, keep_first=False, **changes):
        given = {"vae": vae, "detail": detail, "latents_FCHW": latents, "image": image, **changes}
        return parts.comfy.detail_decode(**given, strength=strength, keep_first=keep_first)

    return run


def test_both_hosts_give_the_same_pixels(parts, decode, diffusers_vae, weights, latents, image):
    net = parts.core.DetailDecoder(weights.config)
    net.load_state_dict(weights.tensors)
    references = parts.diffusers.reference_features(diffusers_vae, image)
    wanted = parts.diffusers.decode_with_details(diffusers_vae, net, latents, references, 0.8)
    plain = diffusers_vae.decode(latents).sample
    assert (wanted - plain).abs().max() > 0.05
    found = decode(strength=0.8)
    torch.testing.assert_close(found, (wanted / 2 + 0.5).clamp(0, 1).movedim(1, -1), rtol=0, atol=1e-5)


def test_the_nodes_load_a_file_and_decode(decode, vae, weights, parts, latents, image, tmp_path, monkeypatch):
    import folder_paths

    parts.file.write_detail_decoder(tmp_path / "small.safetensors", weights)
    folders = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "flash_decoders", folders)
    nodes = {node.GET_SCHEMA().node_id: node for node in our_nodes.NODES}
    assert nodes["FLASH_LoadDetailDecoder"].validate_inputs("small.safetensors") is True
    detail, found = nodes["FLASH_LoadDetailDecoder"].execute("small.safetensors").args
    assert found == "small: 4 levels, warping and attention, for small VAE"
    given = {"latents": {"samples": latents}, "vae": vae, "decoder": detail, "reference": image}
    (video,) = nodes["FLASH_DetailDecode"].execute(**given, strength=0.7, keep_first_frame=True).args
    assert torch.equal(video, decode(strength=0.7, keep_first=True))


def test_strength_0_is_vae_decode_bit_for_bit(decode, vae, latents):
    assert torch.equal(decode(strength=0.0), vae.decode(latents))


def test_frame_0_can_be_the_picture_itself(decode, image):
    kept, decoded = decode(keep_first=True), decode()
    assert torch.equal(kept[:1], image)
    assert torch.equal(kept[1:], decoded[1:])
    assert not torch.equal(decoded[:1], image)


def test_frames_in_slices_are_the_frames_at_once(decode, vae, monkeypatch):
    at_once = decode()
    seen = []
    whole = vae.patcher.get_free_memory
    monkeypatch.setattr(vae.patcher, "get_free_memory", lambda device: seen.append(1) or 1)
    torch.testing.assert_close(decode(), at_once, rtol=0, atol=1e-5)
    assert seen
    assert whole(torch.device("cpu")) > 1


def test_the_vae_is_unchanged(decode, vae, latents):
    before, hooks = vae.decode(latents), sum(len(m._forward_hooks) for m in vae.first_stage_model.modules())
    decode()
    assert torch.equal(vae.decode(latents), before)
    assert sum(len(m._forward_hooks) for m in vae.first_stage_model.modules()) == hooks


def test_cancel_leaves_between_frames(decode, vae, monkeypatch):
    import comfy.model_management

    monkeypatch.setattr(vae.patcher, "get_free_memory", lambda device: 1)
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        decode()
    assert decode().shape[0] == FRAMES


def test_one_frame_and_one_latent_pixel(decode, latents):
    assert decode(latents_FCHW=latents[:1]).shape[0] == 1
    tiny = decode(latents_FCHW=latents[..., :1, :1], image=torch.rand(1, 8, 8, 3))
    assert tiny.shape == (FRAMES, 8, 8, 3)


def test_pictures_are_cut_as_vae_encode_cuts_them(decode, image):
    wider = torch.nn.functional.pad(image, (0, 0, 2, 3, 1, 1))
    assert torch.equal(decode(image=wider), decode())


def test_alpha_is_left_aside_and_another_size_is_scaled(decode, image):
    assert torch.equal(decode(image=torch.cat([image, torch.rand_like(image[..., :1])], dim=-1)), decode())
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 3, 4), scale_factor=32, mode="bicubic")
    larger = smooth.clamp(0, 1).movedim(1, -1)
    found, other = decode(image=larger), decode(image=1 - larger)
    wanted = decode(image=larger[:, ::2, ::2])
    assert (found - wanted).abs().mean() < 0.2 * (other - wanted).abs().mean()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": torch.rand(2, 48, 64, 3)}, "takes one reference picture, but there are 2"),
        ({"image": torch.rand(1, 64, 64, 3)}, "is 64x64, and the video 64x48, which is another shape"),
        ({"image": torch.rand(1, 4, 64, 3)}, "is 64x4, and the video 64x48, which is another shape"),
        ({"latents_FCHW": torch.rand(3, 16, 6, 8)}, r"\(frames, 4, height, width\), but these are \(3, 16"),
        ({"latents_FCHW": torch.rand(1, 4, 3, 6, 8)}, r"but these are \(1, 4, 3, 6, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(decode, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        decode(**changes)


def test_other_vaes_are_refused(decode, vae, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(vae, "latent_channels", 16)
        with pytest.raises(ValueError, match="this is AutoencoderKL with 16 channels: connect"):
            decode()
    with monkeypatch.context() as patch:
        patch.setattr(vae, "first_stage_model", torch.nn.Identity())
        with pytest.raises(ValueError, match="this is Identity with 4 channels"):
            decode()
    vae.first_stage_model.decoder.conv_out.weight.data *= 1.1
    with pytest.raises(ValueError, match="'small' was trained with another VAE, small VAE"):
        decode()
