"""The command line reads the same files as ComfyUI and makes the same video of them."""

import comfy.sample
import comfy.sd
import pytest
import torch

from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.backends.comfy import sd15 as backend
from flash_pack.flash_modules.backends.diffusers import sd15 as headless
from flash_pack.flash_modules.flash.adain import AdaINConfig
from flash_pack.flash_modules.flash.sampling import SamplerConfig, sample_video

PROMPT, NEGATIVE = "a person is shooting a soccer ball", "blurry, worst quality"
FRAMES, STEPS, SEED = 4, 5, 7


@pytest.fixture(scope="module")
def hosts(base, comfyui):
    """MODEL, CLIP and VAE of ComfyUI, and the base model of our own loader."""
    checkpoint = base / "models/checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
    base_model = headless.load_base(headless.find_base(checkpoint, comfyui / "comfy/sd1_tokenizer"))
    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
    return model, clip, vae, base_model


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


@torch.inference_mode()
def test_prompts_and_pictures_are_encoded_alike_and_equal_seeds_give_equal_videos(hosts, base):
    model, clip, vae, base_model = hosts
    prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, NEGATIVE)]
    embeds = [headless.encode_prompt(base_model, text) for text in (PROMPT, NEGATIVE)]
    for ours, theirs in zip(embeds, prompts, strict=True):
        assert difference(ours, theirs[0][0]) <= 1e-3

    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    reference = vae.encode(image)
    z0 = headless.encode_picture(base_model.vae, image)
    assert difference(z0, reference * 0.18215) <= 1e-2  # ComfyUI may run the VAE in bf16

    motion_path = base / "models/animatediff_models/v3_sd15_mm.ckpt"
    m = backend.add_action(model, backend.load_motion(motion_path), None)
    latents = torch.zeros(FRAMES, *reference.shape[1:])
    comfyui_video = comfy.sample.sample(
        backend.add_first_frame(m, reference),
        comfy.sample.prepare_noise(latents, SEED),
        STEPS,
        7.5,
        "ddim",
        "ddim_uniform",
        *prompts,
        latents,
        seed=SEED,
        disable_pbar=True,
    )
    motion = read_motion(motion_path)
    headless_video = sample_video(
        headless.add_action(base_model.unet, motion, None).predict,
        reference * 0.18215,
        *(theirs[0][0] for theirs in prompts),
        prediction="epsilon",
        seed=SEED,
        config=SamplerConfig(num_frames=FRAMES, steps=STEPS),
        style=AdaINConfig(strength=0.0),
    )
    assert difference(headless_video / 0.18215, comfyui_video) <= 1e-4
