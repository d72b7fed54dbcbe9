"""The repository's small base in real ComfyUI: the same video as without ComfyUI."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.backends.diffusers import sd15 as diffusers
from flash_pack.flash_modules.backends.diffusers.sd15.train.action import action_training
from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.training.action_training import ActionTrainingConfig
from flash_pack.flash_modules.flash.training.latent_pool import PoolConfig
from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import SamplingConfig

FOLDER = Path(__file__).resolve().parents[3] / "actors" / "weights" / "base"
MOTION = "motion.safetensors"
LATENT_SIZE = json.loads((FOLDER / "unet" / "config.json").read_text())["sample_size"]


@pytest.fixture
def small_base(flash):
    """The small base's U-Net as a MODEL, as a checkpoint loader would give it."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    from comfy.utils import unet_to_diffusers

    theirs = json.loads((FOLDER / "unet" / "config.json").read_text())
    widths, layers = theirs["block_out_channels"], theirs["layers_per_block"]
    attends = [int(kind.startswith("CrossAttn")) for kind in theirs["down_block_types"]]
    attends_up = [int(kind.startswith("CrossAttn")) for kind in reversed(theirs["up_block_types"])]
    config = comfy.supported_models.SD15(
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": widths[0],
            "num_res_blocks": [layers] * len(widths),
            "channel_mult": [width // widths[0] for width in widths],
            "transformer_depth": [depth for depth in attends for _ in range(layers)],
            "transformer_depth_output": [depth for depth in attends_up for _ in range(layers + 1)],
            "transformer_depth_middle": 1,
            "context_dim": theirs["cross_attention_dim"],
            "use_spatial_transformer": True,
            "legacy": False,
            "num_heads": theirs["attention_head_dim"],
            "num_head_channels": -1,
            "use_linear_in_transformer": False,
            "adm_in_channels": None,
            "use_temporal_attention": False,
            "dtype": torch.float32,
        }
    )
    config.set_inference_dtype(torch.float32, None)
    schedule = json.loads((FOLDER / "scheduler" / "scheduler_config.json").read_text())
    kinds = {
        "epsilon": comfy.model_base.ModelType.EPS,
        "v_prediction": comfy.model_base.ModelType.V_PREDICTION,
    }
    model = comfy.model_base.BaseModel(config, kinds[schedule["prediction_type"]])
    names = unet_to_diffusers(config.unet_config)
    weights = load_file(FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    state = {names[name]: weight.float() for name, weight in weights.items()}
    model.diffusion_model.load_state_dict(state)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


@pytest.fixture
def learned(tmp_path):
    """An action in a file, which the small base learned from two clips."""

    folder = tmp_path / "turn"
    folder.mkdir()
    for i in range(2):
        frames = [Image.linear_gradient("L").rotate(90 * i + 20 * f).resize((64, 64)) for f in range(8)]
        frames[0].save(folder / f"{i}.gif", save_all=True, append_images=frames[1:], duration=125)
    config = ActionTrainingConfig(
        method=MethodConfig(augment=AugmentConfig(size=64)),
        sampling=SamplingConfig(num_frames=8),
        pool=PoolConfig(per_clip=1),
        loop=LoopConfig(steps=3, learning_rate=1e-2),
    )
    with torch.inference_mode(False):  # nodes run in inference mode, training does not
        training = action_training(
            diffusers.load_base(diffusers.find_base(FOLDER)),
            "small base",
            read_motion(FOLDER / MOTION),
            find_clips([folder]).used,
            config,
            torch.device("cpu"),
        )
        training.run(RunFolder(tmp_path, "run", training.settings(1)))
        training.write(tmp_path / "turn.safetensors", config.loop.steps, standalone=False)
    return tmp_path / "turn.safetensors"


@pytest.fixture(params=["motion module alone", "learned action"])
def action(request, flash):
    """What is added to the motion module: nothing, or what was learned."""
    if request.param == "motion module alone":
        return None
    return flash.action_file.read_action(request.getfixturevalue("learned"))


def test_it_animates_in_comfyui_as_without(flash, small_base, action, sample, assert_same):
    base = diffusers.load_base(diffusers.find_base(FOLDER))
    net = diffusers.add_action(base.unet, flash.motion_file.read_motion(FOLDER / MOTION), action)
    texts = "a person is sprinting, red shirt, beach", ""
    prompt, negative = (diffusers.encode_prompt(base, text).clone() for text in texts)
    z0 = torch.randn(1, 4, LATENT_SIZE, LATENT_SIZE, generator=torch.Generator().manual_seed(3))
    wanted = flash.sampling.sample_video(
        net.predict,
        z0,
        prompt,
        negative,
        prediction=base.prediction,
        seed=7,
        config=flash.sampling.SamplerConfig(num_frames=8, steps=8, cfg=4.0),
        style=flash.adain.AdaINConfig(strength=0.0),
    )

    motion = flash.backend.load_motion(FOLDER / MOTION)
    model = flash.backend.add_first_frame(flash.backend.add_action(small_base, motion, action), z0 / 0.18215)
    found = sample(
        model,
        sampler="ddim",
        scheduler="ddim_uniform",
        steps=8,
        cfg=4.0,
        seed=7,
        latents=torch.zeros(8, 4, LATENT_SIZE, LATENT_SIZE),
        positive=[[prompt, {}]],
        negative=[[negative, {}]],
    )
    assert_same(found * 0.18215, wanted, 1e-4)
    assert torch.equal(found[:1], z0 / 0.18215)


def test_our_nodes_make_the_video_of_the_command_line(
    node_classes, flash, small_base, learned, assert_same, tmp_path, monkeypatch
):
    import folder_paths
    from nodes import KSampler

    for key, file in (("animatediff_models", FOLDER / MOTION), ("flash_actions", learned)):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, key, ([str(file.parent)], {".safetensors"}))
    base = diffusers.load_base(diffusers.find_base(FOLDER))
    prompt, negative = (diffusers.encode_prompt(base, text).clone() for text in ("a person turns", ""))
    z0 = torch.randn(1, 4, LATENT_SIZE, LATENT_SIZE, generator=torch.Generator().manual_seed(5))
    frames, steps, seed, cfg, strength = 8, 8, 11, 1.5, 0.2

    nodes = {name: node.execute for name, node in node_classes.items() if "FLASH" in name}
    motion, _ = nodes["FLASH_LoadMotionModule"](MOTION, "auto").args
    action, _ = nodes["FLASH_LoadAction"](learned.name).args
    (model,) = nodes["FLASH_ApplyAction"](small_base, 1.0, motion, action).args
    model, latent = nodes["FLASH_FirstFrame"](model, {"samples": z0 / 0.18215}, frames).args
    (sampled,) = KSampler().sample(
        model, seed, steps, cfg, "ddim", "ddim_uniform", [[prompt, {}]], [[negative, {}]], latent
    )
    (found,) = nodes["FLASH_AdaINLatents"](sampled, strength).args

    net = diffusers.add_action(
        base.unet, flash.motion_file.read_motion(FOLDER / MOTION), flash.action_file.read_action(learned)
    )
    wanted = flash.sampling.sample_video(
        net.predict,
        z0,
        prompt,
        negative,
        prediction=base.prediction,
        seed=seed,
        config=flash.sampling.SamplerConfig(num_frames=frames, steps=steps, cfg=cfg),
        style=flash.adain.AdaINConfig(strength=strength),
    )
    assert_same(found["samples"] * 0.18215, wanted, 1e-4)
