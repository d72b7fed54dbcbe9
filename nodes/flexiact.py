"""Nodes with which any picture performs the action of one clip, on CogVideoX."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.cogvideox import (
    NONE,
    PRECISIONS,
    adapter_files,
    check_adapter_file,
    check_cogvideox_file,
    cogvideox_files,
    condition,
    exact_sampler,
    load_adapter_file,
    load_cogvideox_file,
    transfer_action,
)
from ..flash_modules.backends.comfy.notes import show_notes
from ..flash_modules.flexiact.performance import Performance
from ..flash_modules.flexiact.ref_adapter_file import STRENGTH
from ..flash_modules.flexiact.reweighting import PAPER, EarlyBoost
from .sockets import Action


class LoadCogVideoX(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LoadCogVideoX",
            display_name="Load CogVideoX I2V (FLASH)",
            category="FLASH/loaders",
            description="Loads CogVideoX-5b-I2V from models/diffusion_models, and puts right what ComfyUI "
            "gets wrong about it. Works with every sampler and LoRA of ComfyUI.",
            search_aliases=["cogvideo", "CogVideoX-5b-I2V", "image to video", "unet loader", "flexiact"],
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=cogvideox_files(),
                    display_name="model",
                    tooltip="CogVideoX-5b-I2V: one file, or the first part of a diffusers folder, from "
                    "models/diffusion_models. Not CogVideoX 1.5.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="default",
                    tooltip="default keeps the file's numbers; fp8 takes half of the memory, less exactly.",
                    advanced=True,
                ),
            ],
            outputs=[io.Model.Output(tooltip="Connect it to Transfer Action.")],
        )

    @classmethod
    def validate_inputs(cls, file_name: str) -> bool | str:
        return check_cogvideox_file(file_name)

    @classmethod
    def execute(cls, file_name: str, precision: str) -> io.NodeOutput:
        return io.NodeOutput(load_cogvideox_file(file_name, precision))


class TransferAction(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_TransferAction",
            display_name="Transfer Action (FLASH)",
            category="FLASH/FlexiAct",
            description="Makes CogVideoX perform an action that was learned once from one reference clip, on "
            "any picture: other people, animals, viewpoints. Two of these in a row perform both actions.",
            search_aliases=["flexiact", "motion transfer", "action transfer", "animate", "RefAdapter"],
            inputs=[
                io.Model.Input("model", tooltip="From Load CogVideoX I2V. LoRAs may come before or after."),
                Action.Input("action", tooltip="From Load Action: one of FlexiAct's, learned from one clip."),
                io.Combo.Input(
                    "ref_adapter",
                    options=adapter_files(),
                    default=NONE,
                    display_name="RefAdapter",
                    tooltip="Lets the action fit pictures whose layout differs from the clip's: "
                    "refnetlora_step40000_model.pt, from models/loras. Of two nodes in a row, one takes it.",
                ),
                io.Float.Input(
                    "adapter_strength",
                    default=STRENGTH,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of the RefAdapter. 0.7 is what its authors use.",
                ),
                io.Float.Input(
                    "strength",
                    default=Performance.strength,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How much attention the action gets: 0 = none of it, 1 = as learned.",
                ),
                io.Float.Input(
                    "early_boost",
                    default=PAPER.strength,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="More attention to the action in the early steps, which settle how things move. "
                    "1 = as in the paper; 0 = as in the released code.",
                ),
                io.Int.Input(
                    "boost_full",
                    default=PAPER.full,
                    min=0,
                    max=1000,
                    tooltip="All of the early boost from this timestep up; a run goes from 999 down to 0.",
                    advanced=True,
                ),
                io.Int.Input(
                    "boost_none",
                    default=PAPER.none,
                    min=0,
                    max=1000,
                    tooltip="None of the early boost from this timestep down. Higher keeps more of the "
                    "picture, lower more of the motion.",
                    advanced=True,
                ),
            ],
            outputs=[io.Model.Output(tooltip="For KSampler: dpmpp_2m_sde, simple, 50 steps, cfg 6.")],
        )

    @classmethod
    def validate_inputs(cls, ref_adapter: str) -> bool | str:
        return check_adapter_file(ref_adapter)

    @classmethod
    def execute(
        cls, model, action, ref_adapter, adapter_strength, strength, early_boost, boost_full, boost_none
    ) -> io.NodeOutput:
        boost = EarlyBoost(strength=early_boost, full=boost_full, none=boost_none)
        performance = Performance(action=action, strength=strength, boost=boost)
        adapter = load_adapter_file(ref_adapter)
        return io.NodeOutput(transfer_action(model, performance, adapter, adapter_strength))


class CogVideoXImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_CogVideoXImageToVideo",
            display_name="CogVideoX Image To Video (FLASH)",
            category="FLASH/FlexiAct",
            description="Gives your picture to both prompts, cut to 720 x 480, the only size that "
            "CogVideoX-5b-I2V knows, and makes empty latents for 49 frames.",
            search_aliases=["image to video", "img2vid", "i2v", "cogvideo", "video", "start frame"],
            inputs=[
                io.Conditioning.Input(
                    "positive", tooltip="What happens. From Load CLIP with T5-XXL and type cogvideox."
                ),
                io.Conditioning.Input("negative", tooltip="What to avoid. May be an empty prompt."),
                io.Vae.Input("vae", tooltip="CogVideoX's own, from Load VAE."),
                io.Image.Input("image", tooltip="Any picture: it is scaled, and cut at the sides if needed."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(tooltip="Empty latents of 49 frames, for the sampler at denoise 1."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, positive, negative, vae, image) -> io.NodeOutput:
        made = condition(positive, negative, vae, image)
        show_notes(made.notes, cls.hidden)
        return io.NodeOutput(made.positive, made.negative, made.latent)


class CogVideoXSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_CogVideoXSampler",
            display_name="CogVideoX Sampler (FLASH)",
            category="FLASH/FlexiAct",
            description="CogVideoX's own sampler, exactly, for SamplerCustom: equal seeds give the video of "
            "the command line. KSampler with dpmpp_2m_sde is nearly the same.",
            search_aliases=["cogvideo", "dpm", "dpmpp_2m_sde", "sampler select"],
            inputs=[],
            outputs=[io.Sampler.Output(tooltip="For SamplerCustom, with sigmas of the scheduler simple.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(exact_sampler())
