"""What a run learns from: moments of the clip and texts, encoded as the command line does."""

import pytest
import torch

from flash_pack.flash_modules.backends.diffusers.cogvideox.train import encode_moments as theirs
from flash_pack.tests.backends.small_cogvideox import PROMPT, TEXT, small_vae
from flash_pack.tests.comfy.cogvideox.small_encoders import comfyui_clip, comfyui_vae, small_text_encoder
from flash_pack.tests.comfy.cogvideox.two_hosts import SCALE, difference


@pytest.fixture
def clip():
    return comfyui_clip(small_text_encoder())


@pytest.mark.parametrize("frames", [1, 5, 9, 17, 25])
def test_moments_are_those_of_the_command_line(frames: int) -> None:
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.encode import encode_moments

    twin, video_FCHW = small_vae(), torch.rand(frames, 3, 64, 96)
    found = encode_moments(comfyui_vae(twin), SCALE, video_FCHW)
    for one, other in zip(found, theirs(twin, video_FCHW), strict=True):
        assert one.shape == (1 + frames // 4, 16, 8, 12)
        assert difference(one, other) <= 1e-5


def test_memory_is_asked_for_a_chunk(monkeypatch) -> None:
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.encode import encode_moments

    vae, asked = comfyui_vae(small_vae()), []
    plain = vae.memory_used_encode
    monkeypatch.setattr(
        vae, "memory_used_encode", lambda shape, dtype: asked.append(shape) or plain(shape, dtype)
    )
    encode_moments(vae, SCALE, torch.rand(49, 3, 16, 16))
    assert asked == [(1, 3, 9, 16, 16)]


def test_texts_are_encoded_word_by_word(clip) -> None:
    """Padded, without a mask, and without weights like (word:1.2)."""
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.encode import embed_prompt

    twin, tokenizer = small_text_encoder(), clip.tokenizer.clip_t5xxl.tokenizer
    for prompt in (PROMPT, "", "(dog:1.5)"):
        tokens = tokenizer(prompt)["input_ids"]
        padded_1M = torch.tensor([tokens + [0] * (TEXT - len(tokens))])
        found = embed_prompt(clip, prompt, TEXT)
        assert difference(found, twin(padded_1M).last_hidden_state) <= 1e-5


def test_prompts_that_cannot_be_are_refused(clip) -> None:
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.encode import check_clip, check_prompt

    check_clip(clip)
    check_prompt(clip, PROMPT, TEXT)
    with pytest.raises(
        ValueError, match=r"The prompt has 21 tokens, and CogVideoX-5b-I2V reads 10: shorten it"
    ):
        check_prompt(clip, "dog " * 20, TEXT)
    with pytest.raises(ValueError, match="There is no `prompt`: say what is seen in the clip"):
        check_prompt(clip, "", TEXT)
    with pytest.raises(ValueError, match=r"reads text with NoneType.*Load CLIP and the type cogvideox"):
        check_clip(None)


def test_encoders_are_known_by_their_weights(clip) -> None:
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.encode import encoder_fingerprints

    vae = comfyui_vae(small_vae())
    first = encoder_fingerprints(vae, clip)
    assert first == encoder_fingerprints(comfyui_vae(small_vae()), comfyui_clip(small_text_encoder()))
    assert first["VAE"] != encoder_fingerprints(comfyui_vae(small_vae(seed=4)), clip)["VAE"]
    clip.cond_stage_model.t5xxl.transformer.encoder.final_layer_norm.weight += 1
    assert first["text encoder"] != encoder_fingerprints(vae, clip)["text encoder"]
