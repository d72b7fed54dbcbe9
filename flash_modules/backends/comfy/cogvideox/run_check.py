"""What CogVideoX takes in silence and answers with noise is refused before a run's first step."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

PICTURE = "concat_latent_image"
"""In a prompt: the picture's latent, as ComfyUI's model reads it."""
_WIRING = "connect positive, negative and LATENT of CogVideoX Image To Video to the sampler"


def check_run(executor, noise, latent_image, *rest, **kwargs):
    """A wrapper of ComfyUI's sampling, which raises ValueError unless latents and prompts fit the model."""
    guider = executor.class_obj
    embed = guider.model_patcher.model.diffusion_model.patch_embed
    if guider.model_options.get("context_handler") is not None:
        raise ValueError(
            "CogVideoX-5b-I2V cannot be cut into context windows, since it learned where each of its "
            f"{embed.sample_frames} frames stands: remove the context windows node."
        )
    check_latents(latent_image, embed)
    for prompt in _prompts(guider.conds):
        check_prompt(prompt, embed)
    return executor(noise, latent_image, *rest, **kwargs)


def check_latents(latents: Tensor, embed) -> None:
    """Raise ValueError unless the latents have the one size that the model learned positions for."""
    frames = (embed.sample_frames - 1) // embed.temporal_compression_ratio + 1
    wanted = (frames, embed.sample_height, embed.sample_width)
    if latents.ndim != 5 or tuple(latents.shape[2:]) != wanted:
        found = " x ".join(str(size) for size in latents.shape[2:])
        raise ValueError(
            f"The latents are {found} and CogVideoX-5b-I2V knows only {' x '.join(map(str, wanted))} "
            f"({embed.sample_frames} frames of {8 * embed.sample_width} x {8 * embed.sample_height}): "
            f"{_WIRING}."
        )


def check_prompt(prompt: dict[str, Any], embed) -> None:
    """Raise ValueError unless the prompt has a picture, and text that the model can read."""
    text_BNC = prompt["cross_attn"]
    width = embed.text_proj.in_features
    if text_BNC.shape[-1] != width:
        raise ValueError(
            f"The prompt is {text_BNC.shape[-1]} wide and CogVideoX reads {width}: encode it with T5-XXL, "
            "from Load CLIP with the type cogvideox."
        )
    found, wanted = text_BNC.shape[1], embed.max_text_seq_length
    if found != wanted:
        way = "shorten it" if found > wanted else "set the type of Load CLIP to cogvideox, which fills up"
        raise ValueError(f"The prompt has {found} tokens and CogVideoX reads {wanted}: {way}.")
    if PICTURE not in prompt:
        raise ValueError(f"A prompt has no picture: {_WIRING}.")


def _prompts(conds: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for prompts in conds.values():
        yield from prompts
