"""One small random CogVideoX-5b-I2V as ComfyUI's MODEL and as diffusers' transformer, and runs on both."""

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.cogvideox import guided_velocity
from flash_pack.flash_modules.flexiact.sampling import draw_start, draw_step_noise, sample_latents
from flash_pack.tests.backends.flexiact_oracle import Inputs
from flash_pack.tests.backends.small_cogvideox import HEIGHT, LATENT_FRAMES, TEXT, TEXT_WIDTH, WIDTH_LATENT

SEED, CFG = 11, 6.0
SHAPE_FCHW = (LATENT_FRAMES, 16, HEIGHT, WIDTH_LATENT)
SCALE = 0.7
"""Of CogVideoX-5b's latents."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PICTURE = draw(1, 16, 1, HEIGHT, WIDTH_LATENT, seed=1)
"""An unscaled latent, (1, C, 1, H, W)."""


def comfyui_model(twin: CogVideoXTransformer3DModel, dtype: torch.dtype = torch.float32):
    """ComfyUI's MODEL with the same weights, kept in `dtype`, as its own loader would give it."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    from flash_pack.flash_modules.backends.comfy.cogvideox.names import core_names

    kept = ("num_attention_heads", "attention_head_dim", "in_channels", "time_embed_dim", "text_embed_dim")
    kept += ("num_layers", "sample_width", "sample_height", "sample_frames", "max_text_seq_length")
    settings = {name: twin.config[name] for name in kept}
    settings |= {
        "image_model": "cogvideox",
        "use_learned_positional_embeddings": True,
        "dtype": dtype,
    }
    config = comfy.supported_models.CogVideoX_I2V(settings)
    config.latent_format = comfy.latent_formats.CogVideoX1_5()  # ComfyUI tells it by 48 heads
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    base = comfy.model_base.CogVideoX(config, image_to_video=True)
    weights = {name: weight.clone() for name, weight in core_names(twin.state_dict()).items()}
    base.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.ModelPatcher(base.eval(), torch.device("cpu"), torch.device("cpu"))


def comfyui_velocity(m, inputs: Inputs, timestep: int) -> Tensor:
    """Velocity as the sampler's way to the model gives it: with the MODEL's patches, options and wrappers."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([m])
    m.pre_run()
    options = dict(m.model_options["transformer_options"])
    options["wrappers"] = {kind: dict(by_key) for kind, by_key in m.wrappers.items()}
    x_BCFHW = torch.cat([inputs.latents_BFCHW, inputs.picture_BFCHW], dim=2).transpose(1, 2)
    timestep_B = torch.full((len(x_BCFHW),), float(timestep))
    out_BCFHW = m.model.diffusion_model(
        x_BCFHW, timestep_B, context=inputs.text_embeds_BMC, transformer_options=options
    )
    m.cleanup()
    return out_BCFHW.transpose(1, 2)


def prompt(seed: int, picture: Tensor | None = PICTURE, length: int = TEXT, width: int = TEXT_WIDTH) -> list:
    return [[draw(1, length, width, seed=seed), {} if picture is None else {"concat_latent_image": picture}]]


def empty_latents(batch: int = 1) -> Tensor:
    return torch.zeros(batch, 16, LATENT_FRAMES, HEIGHT, WIDTH_LATENT)


def comfyui_run(m, sampler, steps: int, **changes) -> Tensor:
    """Scaled latents (B, C, F, H, W) after a run of a custom sampler on the scheduler "simple"."""
    import comfy.sample
    import comfy.samplers

    latents = changes.get("latents", empty_latents())
    simple = comfy.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "simple", steps)
    noise = comfy.sample.prepare_noise(latents, SEED)
    out = comfy.sample.sample_custom(
        m, changes.get("noise", noise), CFG, sampler, changes.get("sigmas", simple),
        changes.get("positive", prompt(2)), changes.get("negative", prompt(3)), latents,
        seed=SEED, disable_pbar=True,
    )  # fmt: skip
    return out * SCALE


def command_line_run(transformer: CogVideoXTransformer3DModel, steps: int) -> Tensor:
    """The same (F, C, H, W) as `python -m flash_modules transfer` samples it."""
    picture_1CHW = SCALE * PICTURE[:, :, 0]
    predict = guided_velocity(transformer, picture_1CHW, prompt(2)[0][0], prompt(3)[0][0], CFG)
    start_FCHW, noises = draw_start(*SHAPE_FCHW, seed=SEED), draw_step_noise(*SHAPE_FCHW, seed=SEED)
    return sample_latents(predict, start_FCHW, noises, steps)


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())
