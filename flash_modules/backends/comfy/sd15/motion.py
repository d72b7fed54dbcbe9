"""AnimateDiff's motion modules and noise schedule on ComfyUI's MODEL."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....animatediff.motion_file import MotionWeights, read_motion
from ....animatediff.motion_module import MotionConfig, MotionModel
from ....animatediff.noise_schedule import BETA_END, BETA_START, NUM_TIMESTEPS
from ....files.tensor_file import fingerprint
from ....flash.motion_alignment import VideoCall
from ..weights import make_patcher
from .cross_frame import project_first_frame_once
from .options import CALL, MOTION, MotionCall, MotionPlan
from .places import check_sd15, find_places
from .run import add_run_wrappers
from .v1_norms import pool_output, pooled_resnet


@dataclass(frozen=True, kw_only=True)
class LoadedMotion:
    """A motion module in ComfyUI's hands, with its weights in `patcher`.

    Its attention is the core's own, and not the kernel that ComfyUI was started with: sequences are short
    and many (16 frames, a row per pixel), which other kernels are not made for, and some fail at.
    """

    summary: str
    config: MotionConfig
    patcher: ModelPatcher
    read: Callable[[], MotionWeights]
    """Reads the weights again, as they are in the file."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights without any action's, under AnimateDiff's names."""
        return {name: patches[0][0] for name, patches in self.patcher.get_key_patches().items()}

    @cached_property
    def sha256(self) -> str:
        return fingerprint(self.tensors)


def load_motion(path: Path, version: str = "auto") -> LoadedMotion:
    """Load a motion module file; ComfyUI decides when its weights move to the GPU."""
    return hand_over(partial(read_motion, path, version))


def hand_over(read: Callable[[], MotionWeights]) -> LoadedMotion:
    """Give motion weights to ComfyUI; it reads them again only for a copy with weights of its own."""
    weights = read()
    patcher = _patcher(weights, read)
    return LoadedMotion(summary=weights.summary, config=weights.config, patcher=patcher, read=read)


def _patcher(
    weights: MotionWeights, read: Callable[[], MotionWeights], *, disable_dynamic: bool = False
) -> ModelPatcher:
    device, offload_device = (
        comfy.model_management.get_torch_device(),
        comfy.model_management.unet_offload_device(),
    )
    net = MotionModel(weights.config, operations=comfy.ops.manual_cast, device="meta")
    # As ComfyUI does with checkpoints: an fp32 file takes half the memory where the GPU computes in fp16. A
    # CPU computes in fp32, and would cast an fp16 file again for every call of the U-Net.
    on_cpu = comfy.model_management.is_device_cpu(device)
    in_fp16 = comfy.model_management.should_use_fp16(device)
    dtype = torch.float32 if on_cpu else torch.float16 if in_fp16 else None
    patcher = make_patcher(
        net, weights.tensors, device, offload_device, dtype=dtype, disable_dynamic=disable_dynamic
    )
    patcher.cached_patcher_init = (_fresh_patcher, (read,))
    return patcher


def _fresh_patcher(read: Callable[[], MotionWeights], disable_dynamic: bool = False) -> ModelPatcher:
    """What ComfyUI calls when it needs a copy with weights of its own: another GPU, training."""
    return _patcher(read(), read, disable_dynamic=disable_dynamic)


def add_motion(model: ModelPatcher, motion: LoadedMotion) -> ModelPatcher:
    """A clone of the MODEL that runs the motion modules, with AnimateDiff's noise schedule.

    Raises ValueError if the MODEL is not SD 1.5, has a motion already, or has other widths.
    """
    check_sd15(model)
    if model.get_additional_models_with_key(MOTION):
        raise ValueError(
            "This MODEL already has a motion, and two cannot run together: use one Apply Action or "
            "Apply Motion Module."
        )
    places = find_places(model.get_model_object("diffusion_model"), motion.config)
    m = model.clone()
    m.set_additional_models(MOTION, [motion.patcher.clone()])
    m.model_options["transformer_options"][MOTION] = MotionPlan(places, motion.config)
    m.add_wrapper_with_key(WrappersMP.APPLY_MODEL, MOTION, _apply_model)
    m.set_model_forward_timestep_embed_patch((SpatialTransformer, _after_transformer))
    m.set_model_forward_timestep_embed_patch((ResBlock, _after_resnet))
    m.add_object_patch("model_sampling", _animatediff_schedule(model))
    return add_run_wrappers(m)


def _animatediff_schedule(model: ModelPatcher) -> torch.nn.Module:
    """AnimateDiff's betas under the MODEL's own kind of prediction (eps, v, LCM)."""
    settings = {
        "beta_schedule": "sqrt_linear",  # what diffusers calls "linear"
        "linear_start": BETA_START,
        "linear_end": BETA_END,
        "timesteps": NUM_TIMESTEPS,
    }
    kind = type(model.get_model_object("model_sampling"))
    return kind(SimpleNamespace(sampling_settings=settings))


def _apply_model(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
    chunks = len(transformer_options["cond_or_uncond"])
    if x.shape[0] % chunks:
        raise ValueError(
            f"The model was called with {x.shape[0]} frames for {chunks} prompts, which do not divide "
            "evenly: a node on this MODEL splits the frames of the video. Remove that node."
        )
    plan = transformer_options[MOTION]
    motion = executor.class_obj.current_patcher.get_additional_models_with_key(MOTION)[0]
    options = project_first_frame_once(transformer_options)
    if plan.config.pool_resnet_norms:
        options = pool_output(options)
    replaced = frozenset(key[:2] for key in options.get("patches_replace", {}).get("attn1", {}))
    video = VideoCall(num_frames=x.shape[0] // chunks)
    call = MotionCall(motion.model, plan.places, video, replaced)
    out = executor(x, t, c_concat, c_crossattn, control, {**options, CALL: call}, **kwargs)
    left_out = len(plan.places) - len(call.ran)
    if left_out and call.ran:  # none ran: a caching node skipped the whole U-Net
        raise ValueError(
            f"{left_out} of {len(plan.places)} motion modules did not run, because a node on this MODEL took "
            "their place in the U-Net: remove that node, or put it behind the motion node."
        )
    return out


@torch.compiler.disable  # the number of frames changes from call to call, and ComfyUI drops the guards on it
def _run_motion(x, layer_class: type, transformer_options):
    call: MotionCall = transformer_options[CALL]
    name = call.places.get((*transformer_options["block"], layer_class))
    if name is None:
        return x
    call.ran.add(name)
    call.last_features_XCHW = call.net.get_submodule(name)(x, call.video.num_frames)
    return call.last_features_XCHW


def _after_transformer(layer, x, emb, context, transformer_options, *_):
    x = layer(x, context, transformer_options)
    transformer_options["transformer_index"] += 1  # a patched layer must count itself
    return _run_motion(x, SpatialTransformer, transformer_options)


def _after_resnet(layer, x, emb, context, transformer_options, *_):
    call: MotionCall = transformer_options[CALL]
    pooled = call.net.config.pool_resnet_norms
    x = pooled_resnet(layer, x, emb, call.video.num_frames) if pooled else layer(x, emb)
    return _run_motion(x, ResBlock, transformer_options)
