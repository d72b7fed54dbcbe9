"""Small random models in ComfyUI's own classes, and short runs through its own samplers.

ComfyUI is imported when a fixture runs: without it this file must still load, so that its tests are skipped.
"""

from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch

WIDTH, CONTEXT, FRAMES, SIZE = 32, 24, 5, 8
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "num_res_blocks": [2, 2],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "use_spatial_transformer": True,
    "legacy": False,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
}


@pytest.fixture(autouse=True)
def _one_thread_without_gradients():
    """Small tensors are faster on one thread; ComfyUI runs nodes in inference mode."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)
    import comfy.model_management

    comfy.model_management.unload_all_models()


def fill(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Random weights, norms and biases alike, of a size that makes every part of the network count."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1:
            values = noise * 1.5 / weight[0].numel() ** 0.5
        else:
            values = noise * 0.3 + float(name.endswith("weight"))
        weight.data = values.to(weight.dtype)
    return module


def unet_base(seed: int, dtype: torch.dtype, compute: torch.dtype | None) -> torch.nn.Module:
    import comfy.model_base
    import comfy.supported_models

    config = comfy.supported_models.SD15({**UNET, "dtype": dtype})
    config.set_inference_dtype(dtype, compute)
    return fill(comfy.model_base.BaseModel(config), seed)


def build_model(seed: int = 0, dtype: torch.dtype = torch.float32, compute: torch.dtype | None = None):
    """A MODEL like the one a checkpoint loader gives, of small width."""
    import comfy.model_patcher

    def patcher(disable_dynamic: bool = False):
        return comfy.model_patcher.ModelPatcher(
            unet_base(seed, dtype, compute), torch.device("cpu"), torch.device("cpu")
        )

    model = patcher()
    model.cached_patcher_init = (patcher, ())
    return model


@pytest.fixture
def unet_config():
    return dict(UNET)


@pytest.fixture
def make_model():
    return build_model


@pytest.fixture
def model():
    return build_model()


@dataclass(frozen=True)
class Flash:
    """Modules of the pack."""

    backend: ModuleType
    motion_module: ModuleType
    action_file: ModuleType
    tensor_file: ModuleType
    motion_file: ModuleType
    noise_schedule: ModuleType
    sampling: ModuleType
    adain: ModuleType


@pytest.fixture(scope="session")
def flash() -> Flash:
    from flash_pack.flash_modules.animatediff import motion_file, motion_module, noise_schedule
    from flash_pack.flash_modules.backends.comfy import sd15
    from flash_pack.flash_modules.files import tensor_file
    from flash_pack.flash_modules.flash import action_file, adain, sampling

    return Flash(
        backend=sd15,
        motion_module=motion_module,
        action_file=action_file,
        tensor_file=tensor_file,
        motion_file=motion_file,
        noise_schedule=noise_schedule,
        sampling=sampling,
        adain=adain,
    )


@pytest.fixture(scope="session")
def motion_path(flash, tmp_path_factory):
    """A v2 motion module (with a middle block) for the small U-Net."""
    config = flash.motion_module.MotionConfig(
        down=((WIDTH,) * 2, (2 * WIDTH,) * 2), up=((2 * WIDTH,) * 3, (WIDTH,) * 3), mid=(2 * WIDTH,)
    )
    net = fill(flash.motion_module.MotionModel(config), 1)
    path = tmp_path_factory.mktemp("motion") / "small_motion.safetensors"
    flash.tensor_file.write_tensors(path, net.state_dict(), {})
    return path


@pytest.fixture
def motion_weights(flash, motion_path):
    return flash.motion_file.read_motion(motion_path, "v2")


@pytest.fixture
def motion(flash, motion_path):
    return flash.backend.load_motion(motion_path, "v2")


@pytest.fixture
def action(flash, motion_weights, model):
    """A compact action: trained temporal attentions and spatial keys and values."""
    generator = torch.Generator().manual_seed(2)
    weights = motion_weights
    attentions = {n: t for n, t in weights.tensors.items() if ".attention_blocks." in n}
    trained = {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in attentions.items()}
    kv = pack_kv(flash, model)
    return flash.action_file.Action(
        name="jump",
        kind="compact",
        motion=trained,
        kv_diffs={n: 0.05 * torch.randn(t.shape, generator=generator) for n, t in kv.items()},
        base=flash.action_file.Source(name="small base", sha256=flash.tensor_file.fingerprint(kv)),
        motion_module=flash.action_file.Source(
            name=weights.name, sha256=weights.sha256, version=weights.version
        ),
        frames=FRAMES,
        prompts=("a person jumps",),
    )


def pack_kv(flash, model) -> dict[str, torch.Tensor]:
    """Spatial keys and values by their names in action files, found by walking ComfyUI's own key map."""
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    weights = model.model.diffusion_model.state_dict()
    return {
        flash.action_file.spatial_key(theirs.removesuffix(".weight")): weights[ours]
        for theirs, ours in names.items()
        if theirs.endswith(
            ("attn1.to_k.weight", "attn1.to_v.weight", "attn2.to_k.weight", "attn2.to_v.weight")
        )
    }


@pytest.fixture
def reference() -> torch.Tensor:
    return torch.randn(1, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def prompt(seed: int, batch: int = 1) -> list:
    return [[torch.randn(batch, 7, CONTEXT, generator=torch.Generator().manual_seed(seed)), {}]]


@pytest.fixture
def prompts() -> SimpleNamespace:
    return SimpleNamespace(positive=prompt(4), other=prompt(6), negative=prompt(5), make=prompt)


@pytest.fixture
def sample(prompts):
    """A short run of ComfyUI's KSampler."""
    import comfy.sample

    def run(model, sampler="euler", scheduler="normal", steps=2, cfg=7.5, frames=FRAMES, seed=1, **changes):
        latents = changes.pop("latents", torch.zeros(frames, 4, SIZE, SIZE))
        positive = changes.pop("positive", prompts.positive)
        negative = changes.pop("negative", prompts.negative)
        noise = comfy.sample.prepare_noise(latents, seed)
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, positive, negative, latents,
            seed=seed, disable_pbar=True, **changes,
        )  # fmt: skip

    return run


@pytest.fixture
def unet_inputs(model):
    """What the U-Net of `model` is shown: (latents, text) of each call, in DDPM scale."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(_, args, kwargs):
        seen.append((args[0].clone(), kwargs["context"].clone()))

    hook = model.model.diffusion_model.register_forward_pre_hook(record, with_kwargs=True)
    yield seen
    hook.remove()


@pytest.fixture
def z0(reference):
    """The reference in the scale of SD 1.5's latents."""
    return reference * 0.18215


@pytest.fixture
def assert_same():
    """Random networks end in large latents, so equality is relative: norm of the difference by norm."""

    def check(ours: torch.Tensor, theirs: torch.Tensor, limit: float = 1e-5) -> None:
        assert ours.shape == theirs.shape
        difference = float((ours - theirs).norm() / theirs.norm())
        assert difference <= limit, f"relative difference {difference:.1e}"

    return check


class Oracle:
    """A run of the animated U-Net written by hand on top of single bare calls."""

    def __init__(self, animated, reference):
        import comfy.model_management

        self.patcher, self.z0 = animated, reference * 0.18215
        comfy.model_management.load_models_gpu([animated, *animated.get_nested_additional_models()])
        animated.pre_run()
        self.model = animated.model

    def denoised(self, x, sigma, text, control=None):
        """One prompt's prediction through BaseModel.apply_model, with frame 0 shown clean."""
        x = self.shown(x, sigma)
        options = dict(self.patcher.model_options["transformer_options"])
        options["wrappers"] = {kind: dict(by_key) for kind, by_key in self.patcher.wrappers.items()}
        options["cond_or_uncond"] = [0]
        text, sigmas = text[0][0].expand(x.shape[0], -1, -1), sigma.expand(x.shape[0])
        if control is not None:
            control = control.get_control(x, sigmas, {"c_crossattn": text}, 1, {})
        out = self.model.apply_model(
            x, sigmas, c_crossattn=text, control=control, transformer_options=options
        )
        return torch.cat([self.z0, out[1:]])

    def shown(self, x, sigma):
        """The sampler's frames with the clean first frame in their scale."""
        return torch.cat([self.z0 * (1 + sigma**2) ** 0.5, x[1:]])

    def euler(self, combine, steps=2, frames=FRAMES, seed=1):
        import comfy.samplers

        sigmas = comfy.samplers.calculate_sigmas(
            self.patcher.get_model_object("model_sampling"), "normal", steps
        )
        x = torch.randn(frames, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
        x = x * (1 + sigmas[0] ** 2) ** 0.5
        for sigma, following in pairwise(sigmas):
            denoised = combine(x, sigma)
            x = denoised + (x - denoised) / sigma * following
        return x / 0.18215


@pytest.fixture
def make_oracle(reference):
    return lambda animated: Oracle(animated, reference)


@pytest.fixture
def animated(flash, model, motion, reference):
    """The plain path: motion, cross-frame attention, clean first frame, no action."""
    return flash.backend.add_first_frame(flash.backend.add_action(model, motion, None), reference)
