"""What does not fit is refused in a sentence, before the first step."""

import re
from types import SimpleNamespace

import pytest
import torch

from flash_pack.flash_modules.backends.comfy import cogvideox as backend
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.tests.backends.small_cogvideox import small_action, small_adapter
from flash_pack.tests.comfy.backend.conftest import build_model
from flash_pack.tests.comfy.cogvideox.two_hosts import comfyui_run, prompt

ACTION = small_action()


def performed_on(kind: str, **settings):
    """Transfer Action on another of ComfyUI's CogVideoX models."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, f"CogVideoX_{kind}")
    small = {"num_layers": 1, "num_attention_heads": 3, "text_embed_dim": 8, "time_embed_dim": 8}
    small |= {"sample_width": 4, "sample_height": 4, "sample_frames": 1, "image_model": "cogvideox"}
    base = comfy.model_base.CogVideoX(config({**small, **settings, "dtype": torch.float32}))
    cpu = torch.device("cpu")
    backend.transfer_action(comfy.model_patcher.ModelPatcher(base, cpu, cpu), Performance(action=ACTION))


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("T2V", {"num_attention_heads": 30}, "CogVideoX-2b, which makes videos from text alone"),
        (
            "T2V",
            {"use_rotary_positional_embeddings": True},
            "CogVideoX-5b, which makes videos from text alone",
        ),
        ("I2V", {"in_channels": 32, "patch_size_t": 2, "ofs_embed_dim": 8}, "CogVideoX 1.5, or VOID"),
        ("Inpaint", {"in_channels": 48, "patch_size_t": 2}, "CogVideoX 1.5, or VOID"),
        ("Inpaint", {"in_channels": 33}, "a CogVideoX for other inputs"),
        ("I2V", {"in_channels": 32}, "a CogVideoX for other inputs"),
    ],
)
def test_another_cogvideox_is_named(kind: str, settings: dict, named: str) -> None:
    with pytest.raises(ValueError, match=f"This MODEL is {named}.*: FlexiAct was made for CogVideoX-5b-I2V"):
        performed_on(kind, **settings)


def test_another_model_is_named() -> None:
    with pytest.raises(
        ValueError, match="This MODEL is SD15: FlexiAct was made for CogVideoX-5b-I2V, connect"
    ):
        backend.transfer_action(build_model(), Performance(action=ACTION))


@pytest.mark.parametrize("shape", [(3, 6, 10), (2, 8, 12), (3, 4, 24), (4, 8, 12)])
def test_latents_of_another_size_are_refused(model, shape: tuple[int, int, int]) -> None:
    found = " x ".join(map(str, shape))
    words = f"The latents are {found} and CogVideoX-5b-I2V knows only 3 x 8 x 12 (9 frames of 96 x 64)"
    with pytest.raises(ValueError, match=re.escape(words)):
        comfyui_run(backend.corrected(model), backend.exact_sampler(), 1, latents=torch.zeros(1, 16, *shape))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"length": 11}, "The prompt has 11 tokens and CogVideoX reads 10: shorten it"),
        ({"length": 6}, "The prompt has 6 tokens and CogVideoX reads 10: set the type of Load CLIP to"),
        ({"width": 24}, "The prompt is 24 wide and CogVideoX reads 32: encode it with T5-XXL"),
        (
            {"picture": None},
            "A prompt has no picture: connect positive, negative and LATENT of CogVideoX",
        ),
    ],
)
@pytest.mark.parametrize("which", ["positive", "negative"])
def test_a_prompt_that_does_not_fit_is_refused(model, changes: dict, words: str, which: str) -> None:
    with pytest.raises(ValueError, match=words):
        comfyui_run(backend.corrected(model), backend.exact_sampler(), 1, **{which: prompt(2, **changes)})


def test_context_windows_are_refused(model) -> None:
    m = backend.corrected(model).clone()
    m.model_options["context_handler"] = SimpleNamespace()
    with pytest.raises(ValueError, match=r"cannot be cut into context windows.*each of its 9 frames stands"):
        comfyui_run(m, backend.exact_sampler(), 1)


def test_files_for_another_model_are_refused(model) -> None:
    action, adapter = small_action(), small_adapter()
    short = Performance(action=type(action)(name="short", tokens_LMC=action.tokens_LMC[:2]))
    with pytest.raises(ValueError, match="The action 'short' is for 2 layers of width 48, and this"):
        backend.transfer_action(model, short)
    few = {place: low_rank for place, low_rank in adapter.parts.items() if place[0] < 2}
    with pytest.raises(ValueError, match="The RefAdapter 'few' is for 2 layers of width 48, and this model"):
        backend.transfer_action(model, Performance(action=action), type(adapter)(name="few", parts=few))


def test_a_second_adapter_is_refused(model) -> None:
    m = backend.transfer_action(model, Performance(action=ACTION), small_adapter())
    with pytest.raises(ValueError, match="already has the RefAdapter 'adapter': choose none in one"):
        backend.transfer_action(m, Performance(action=ACTION), small_adapter())


@pytest.mark.parametrize(("words", "tokens"), [(1, 226), (225, 226), (226, 227), (300, 301)])
def test_load_clip_with_type_cogvideox_gives_226_tokens_or_more(words: int, tokens: int) -> None:
    """It fills up and cuts nothing off: what is longer comes to us and is refused. Each word is a token."""
    from comfy.text_encoders.cogvideo import CogVideoXTokenizer

    (batch,) = CogVideoXTokenizer().tokenize_with_weights("dog " * words)["t5xxl"]
    assert len(batch) == tokens  # with the one that ends a text
