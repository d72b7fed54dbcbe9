"""The rows of diffusers' U-Net: bare, ours, and diffusers' own AnimateDiff."""

from collections.abc import Callable

import diffusers
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor

from flash_modules.animatediff.motion_layout import animatediff_names
from flash_modules.animatediff.motion_module import MotionModel, sinusoidal_positions
from flash_modules.backends.diffusers.sd15 import (
    AnimatedUNet,
    add_cross_frame_attention,
    add_motion,
)
from flash_modules.flash.adain import AdaINConfig
from flash_modules.flash.sampling import SamplerConfig, sample_video

from .measure import (
    LOADS,
    NUM_PROMPTS,
    TEXT_WIDTH,
    Load,
    hollow_motion,
    motion_config,
    randomise,
    serve,
)
from .steps import Rows, Step, timed

TIMESTEP = 481
OURS = "ours: motion and cross-frame attention"


class Models:
    """The rows' models. Their U-Nets share one set of weights."""

    def __init__(self, load: Load) -> None:
        self.load = load
        hollow = self._hollow_unet().to(load.dtype).to_empty(device=load.device)
        self.weights = randomise(hollow, seed=0).state_dict()

    def _hollow_unet(self) -> UNet2DConditionModel:
        attentions = len(self.load.widths) - 1
        with torch.device("meta"):
            return UNet2DConditionModel(
                block_out_channels=self.load.widths,
                down_block_types=("CrossAttnDownBlock2D",) * attentions + ("DownBlock2D",),
                up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attentions,
                cross_attention_dim=TEXT_WIDTH,
                attention_head_dim=8,
            )

    def unet(self) -> UNet2DConditionModel:
        unet = self._hollow_unet()
        unet.load_state_dict(self.weights, assign=True)
        return unet.eval()

    def animated(self) -> AnimatedUNet:
        model = add_motion(self.unet(), hollow_motion(self.load, self.load.device))
        randomise(model.motion, seed=1)
        return model

    def unet_motion_model(self) -> UNetMotionModel:
        with torch.device("meta"):
            adapter = MotionAdapter(block_out_channels=self.load.widths, motion_num_attention_heads=8)
            model = UNetMotionModel.from_unet2d(self._hollow_unet(), adapter)
            motion = MotionModel(motion_config(self.load.widths), dtype=self.load.dtype)
        motion = randomise(motion.to_empty(device=self.load.device), seed=1)
        ours, names = motion.state_dict(), animatediff_names({n: n for n in adapter.state_dict()}, "adapter")
        weights = {theirs: ours[name] for name, theirs in names.items() if name in ours}
        positions = {
            name: sinusoidal_positions(*buffer.shape[1:])[None].to(self.load.device, self.load.dtype)
            for name, buffer in model.named_buffers()
        }
        model.load_state_dict(self.weights | weights | positions, assign=True)
        return model.eval()


class Inputs:
    """What a step of guidance shows to a U-Net: two prompts on noise."""

    def __init__(self, load: Load) -> None:
        generator = torch.Generator().manual_seed(2)
        shape = (NUM_PROMPTS, load.num_frames, 4, load.size, load.size)
        self.latents_BFCHW = torch.randn(shape, generator=generator).to(load.device, load.dtype)
        text_BMC = torch.randn(NUM_PROMPTS, load.text_tokens, TEXT_WIDTH, generator=generator)
        self.text_BMC = text_BMC.to(load.device, load.dtype)
        self.timestep_B = torch.full((NUM_PROMPTS,), TIMESTEP, device=load.device)


def rows(load: Load) -> Rows:
    models, inputs = Models(load), Inputs(load)
    text_XMC = inputs.text_BMC.repeat_interleave(load.num_frames, dim=0)

    def bare() -> Step:
        unet = models.unet()
        return timed(lambda: unet(inputs.latents_BFCHW.flatten(0, 1), TIMESTEP, text_XMC))

    def unet_motion_model() -> Step:
        model, latents_BCFHW = models.unet_motion_model(), inputs.latents_BFCHW.transpose(1, 2)
        return timed(lambda: model(latents_BCFHW, inputs.timestep_B, text_XMC))

    return {
        "bare": bare,
        "ours: motion modules": lambda: timed(our_call(models.animated(), inputs)),
        OURS: lambda: timed(our_call(add_cross_frame_attention(models.animated()), inputs)),
        "diffusers' UNetMotionModel (its own motion norm, over all frames)": unet_motion_model,
    }


def our_call(model: AnimatedUNet, inputs: Inputs) -> Callable[[], Tensor]:
    return lambda: model.predict(inputs.latents_BFCHW, inputs.timestep_B, inputs.text_BMC)


def whole_run(load: Load, steps: int) -> Step:
    """A video from noise, by our sampler: a call of the U-Net for each prompt in every step."""
    model, inputs = add_cross_frame_attention(Models(load).animated()), Inputs(load)
    prompt_1MC, negative_1MC = inputs.text_BMC.split(1)
    return timed(
        lambda: sample_video(
            model.predict,
            inputs.latents_BFCHW[:1, 0],
            prompt_1MC,
            negative_1MC,
            prediction="epsilon",
            seed=0,
            config=SamplerConfig(num_frames=load.num_frames, steps=steps),
            style=AdaINConfig(),
        )
    )


if __name__ == "__main__":
    with torch.inference_mode():
        serve(f"diffusers {diffusers.__version__}", rows, LOADS)
