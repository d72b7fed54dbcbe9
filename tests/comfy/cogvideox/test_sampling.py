"""Whole runs through ComfyUI's samplers against the command line's, and what must hold in any run."""

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.backends.comfy import cogvideox as backend
from flash_pack.flash_modules.backends.diffusers.cogvideox import add_transfer
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.sampling import draw_step_noise
from flash_pack.tests.backends.small_cogvideox import LAYERS, WIDTH, small_action, small_adapter
from flash_pack.tests.comfy.cogvideox.two_hosts import (
    SCALE,
    SEED,
    SHAPE_FCHW,
    comfyui_model,
    comfyui_run,
    command_line_run,
    difference,
    empty_latents,
    prompt,
)

JUMP, WAVE = (
    Performance(action=small_action()),
    Performance(action=small_action(7, "wave", (LAYERS, 4, WIDTH))),
)


@pytest.fixture
def m(model):
    """The MODEL, performing JUMP."""
    return backend.transfer_action(model, JUMP, small_adapter(), 0.7)


@pytest.fixture
def command_line(twin):
    """A function: what the command line makes of a number of steps."""
    add_transfer(twin, [JUMP], small_adapter(), 0.7)
    return lambda steps: command_line_run(twin, steps)


def video(out_BCFHW: Tensor) -> Tensor:
    (video_CFHW,) = out_BCFHW
    return video_CFHW.transpose(0, 1)


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_equal_seeds_give_what_the_command_line_gives(m, command_line, steps: int) -> None:
    """Which is diffusers' scheduler, as tests/backends show."""
    assert difference(video(comfyui_run(m, backend.exact_sampler(), steps)), command_line(steps)) <= 1e-5


@pytest.mark.parametrize(("steps", "limit"), [(10, 5e-3), (50, 1e-3)])
def test_ksampler_with_dpmpp_2m_sde_is_close(m, command_line, steps: int, limit: float) -> None:
    """With our noise in place of its Brownian tree, so that the arithmetic alone is compared."""
    import comfy.samplers

    noises = draw_step_noise(*SHAPE_FCHW, seed=SEED)
    noise_sampler = {"noise_sampler": lambda *_: next(noises).transpose(0, 1)[None]}
    ours = video(comfyui_run(m, comfy.samplers.ksampler("dpmpp_2m_sde", noise_sampler), steps))
    assert 1e-5 < difference(ours, command_line(steps)) <= limit


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_exact_steps_are_close(m, command_line, steps: int) -> None:
    """ComfyUI's schedule has 4.9e-8 of signal where the true one has none."""
    assert difference(video(comfyui_run(m, backend.exact_sampler(), steps)), command_line(steps)) <= 1e-3


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "exact"])
def test_few_steps_give_numbers(m, steps: int, name: str) -> None:
    import comfy.samplers

    sampler = backend.exact_sampler() if name == "exact" else comfy.samplers.ksampler(name)
    assert comfyui_run(m, sampler, steps).isfinite().all()


def test_a_run_in_two_parts_is_the_run(m) -> None:
    """As SplitSigmas makes them. The last step draws no noise, so that both parts have the same."""
    import comfy.samplers

    sampler = backend.exact_sampler()
    sigmas = comfy.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "simple", 2)
    first = comfyui_run(m, sampler, 2, sigmas=sigmas[:2])
    still = torch.zeros_like(first)
    second = comfyui_run(m, sampler, 2, sigmas=sigmas[1:], latents=first / SCALE, noise=still)
    assert difference(second, comfyui_run(m, sampler, 2)) <= 1e-5


def test_tokens_are_made_once_in_a_run(m) -> None:
    made = []
    hook = m.model.diffusion_model.blocks[1].k.register_forward_pre_hook(
        lambda _, args: made.append(args[0].shape[1])
    )
    for _ in range(2):
        comfyui_run(m, backend.exact_sampler(), 3)
    hook.remove()
    assert made.count(JUMP.action.tokens_LMC.shape[1]) == 2


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "ddim", "uni_pc"])
def test_other_samplers_work(m, name: str) -> None:
    import comfy.samplers

    assert comfyui_run(m, comfy.samplers.sampler_object(name), 4).isfinite().all()


def test_prompts_apart_and_together_give_the_same(m, monkeypatch) -> None:
    import comfy.model_management

    calls = []
    hook = m.model.diffusion_model.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    together = comfyui_run(m, backend.exact_sampler(), 3)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_, **__: 1)
    apart = comfyui_run(m, backend.exact_sampler(), 3)
    hook.remove()
    assert calls == [2] * 3 + [1] * 6
    assert difference(apart, together) <= 1e-5


def test_a_video_in_a_batch_is_what_it_is_alone(m) -> None:
    import comfy.samplers

    euler = comfy.samplers.sampler_object("euler")
    both = comfyui_run(m, euler, 3, latents=empty_latents(2))
    assert difference(both[:1], comfyui_run(m, euler, 3)) <= 1e-5
    assert difference(both[1:], both[:1]) > 1e-2


def test_videos_of_a_batch_have_noise_of_their_own(m) -> None:
    first, second = comfyui_run(m, backend.exact_sampler(), 3, latents=empty_latents(2))
    assert difference(second, first) > 1e-2


def test_the_shared_model_is_bit_identical_afterwards(model, twin) -> None:
    import comfy.model_management

    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    plain = comfyui_run(model, backend.exact_sampler(), 2)
    m = backend.transfer_action(model, JUMP, small_adapter(), 0.7)
    comfyui_run(m, backend.exact_sampler(), 2)
    comfy.model_management.unload_all_models()
    after = model.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert model.model_options["transformer_options"] == {}
    assert model.wrappers == {}
    assert torch.equal(comfyui_run(model, backend.exact_sampler(), 2), plain)


def test_two_actions_on_two_clones_know_nothing_of_each_other(model, twin) -> None:
    first = backend.transfer_action(model, JUMP, small_adapter(), 0.7)
    second = backend.transfer_action(model, WAVE)
    runs = [comfyui_run(m, backend.exact_sampler(), 3) for m in (first, second, first, second)]
    assert torch.equal(runs[0], runs[2])
    assert torch.equal(runs[1], runs[3])
    alone = backend.transfer_action(comfyui_model(twin), WAVE)
    assert torch.equal(comfyui_run(alone, backend.exact_sampler(), 3), runs[1])


def test_a_picture_goes_in_scaled_padded_and_unchanged(model) -> None:

    seen = []
    m = backend.corrected(model)
    hook = m.model.diffusion_model.register_forward_pre_hook(
        lambda _, args: seen.append(args[0][:, 16:].clone())
    )
    positive = prompt(2)
    kept = positive[0][1]["concat_latent_image"].clone()
    comfyui_run(m, backend.exact_sampler(), 1, positive=positive)
    hook.remove()
    (shown_BCFHW,) = seen
    assert torch.equal(shown_BCFHW[:, :, 1:], torch.zeros_like(shown_BCFHW[:, :, 1:]))
    torch.testing.assert_close(shown_BCFHW[:1, :, :1], 0.7 * kept)
    assert torch.equal(positive[0][1]["concat_latent_image"], kept)


def test_without_an_action_nothing_is_added(model) -> None:
    m = backend.transfer_action(model, Performance(action=small_action(), strength=0.0))
    corrected = backend.corrected(model)
    assert torch.equal(
        comfyui_run(m, backend.exact_sampler(), 2), comfyui_run(corrected, backend.exact_sampler(), 2)
    )
