"""Cross-frame attention in ComfyUI's U-Net: the first frame is projected once, and equals the long way."""

import importlib

import pytest
import torch

FRAMES, WIDTH = 5, 32
BLOCK = ("input", 1)
"""The first block with a self-attention, of WIDTH channels and 64 tokens."""


@pytest.fixture
def long_way(flash, monkeypatch):
    """Runs something with the tokens of the first frame appended before their projection."""
    motion = importlib.import_module(f"{flash.backend.__name__}.motion")

    def run(call):
        with monkeypatch.context() as patch:
            patch.setattr(motion, "project_first_frame_once", lambda options: options)
            return call()

    return run


def projected(model, call):
    """Numbers of tokens that the keys of BLOCK were projected from, at each call of the U-Net."""
    attention = model.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn1
    seen = []
    hook = attention.to_k.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    call()
    hook.remove()
    return seen


def test_the_first_frame_is_projected_once_and_the_video_is_the_same(
    model, animated, sample, long_way, assert_same
):
    assert set(projected(model, lambda: sample(animated))) == {64}
    assert set(projected(model, lambda: long_way(lambda: sample(animated)))) == {128}
    assert_same(sample(animated), long_way(lambda: sample(animated)))


def test_the_place_stays_free_for_other_nodes(animated, sample):
    sample(animated)
    options = animated.model_options["transformer_options"]
    assert not options.get("patches_replace", {}).get("attn1")


@pytest.mark.parametrize("key", [BLOCK, (*BLOCK, 0)])
def test_the_replacement_of_another_node_keeps_its_place(model, animated, sample, long_way, key, assert_same):
    seen = []

    def theirs(q, k, v, extra):
        seen.append((q.shape, k.shape))
        return v

    m = animated.clone()
    m.set_model_attn1_replace(theirs, *BLOCK, *key[2:])
    ours = sample(m)
    assert seen
    assert all(q == k for q, k in seen)
    assert_same(ours, long_way(lambda: sample(m)))
    assert (ours - sample(animated)).abs().max() > 1e-3


def mix_pixels(n, k, v, extra):
    """A patch that is no function of each token alone."""
    return n, k + 0.5 * k.mean(dim=1, keepdim=True), v.flip(0)


def append_tokens(n, k, v, extra):
    more = torch.ones_like(k[:, :3])
    return n, torch.cat([k, more], dim=1), torch.cat([v, 2 * more], dim=1)


@pytest.mark.parametrize("theirs", [mix_pixels, append_tokens])
@pytest.mark.parametrize("place", ["before", "after"])
def test_other_patches_add_up_as_the_long_way(
    flash, model, motion, reference, sample, long_way, assert_same, theirs, place
):
    def patched(m):
        m = m.clone()
        m.set_model_attn1_patch(theirs)
        return m

    def animate(m):
        return flash.backend.add_first_frame(flash.backend.add_action(m, motion, None), reference)

    m = animate(patched(model)) if place == "before" else patched(animate(model))
    ours = sample(m)
    assert_same(ours, long_way(lambda: sample(m)))
    assert (ours - sample(animate(model))).abs().max() > 1e-3


def test_the_kernel_that_another_node_chose_is_used(animated, sample):
    """As by nodes that set `optimized_attention_override`."""
    keys = []

    def override(func, q, k, v, *args, **kwargs):
        keys.append(k.shape[1])
        return func(q, k, v, *args, **kwargs)

    m = animated.clone()
    m.model_options["transformer_options"]["optimized_attention_override"] = override
    sample(m, steps=1)
    assert 128 in keys
