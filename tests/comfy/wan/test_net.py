"""Wan with motion alignment, made to learn: against diffusers, and the mechanisms written out slowly."""

from dataclasses import replace

import pytest
import torch

from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig, Stills, VideoCall
from flash_pack.tests.comfy.wan.small_wan import (
    FRAMES,
    LAYERS,
    SHAPE_FCHW,
    TEXT,
    TEXT_WIDTH,
    comfyui_model,
    difference,
    draw,
    small_twin,
)

OFF = AlignmentConfig(tau=100.0, p=0.0)
ON = AlignmentConfig(exclude_first=True)
SWAPS = torch.tensor([True, False, True, False])
TIMESTEP = torch.tensor([90.0])
"""Both sides turn a timestep into angles in fp32: at 700 that alone puts them 1e-5 apart."""


@pytest.fixture
def make_net(learning, model):
    """A network that learns, with a LoRA that has learned something."""

    def make(config=OFF, of=model, rank=2, text=True):
        from flash_pack.flash_modules.backends.comfy.wan.train.alignment import LearningWan
        from flash_pack.flash_modules.backends.comfy.wan.train.low_rank import add_low_rank
        from flash_pack.flash_modules.backends.comfy.wan.train.own_net import own_net

        net = own_net(of)
        weights = add_low_rank(net, rank, text=text, seed=0)
        return LearningWan(net, config), weights

    return make


def inputs(videos: int, seed: int = 0, text: int = TEXT, shape=SHAPE_FCHW):
    return draw(videos, *shape, seed=seed), TIMESTEP.expand(videos), draw(1, text, TEXT_WIDTH, seed=seed + 1)


def pair_call(swaps=SWAPS):
    return VideoCall(num_pairs=1, swaps_L=swaps)


def in_diffusers(twin, latents_BFCHW, timestep, text_BMC):
    """With a timestep for each token, those of frame 0 at 0."""
    tokens = latents_BFCHW.shape[-1] * latents_BFCHW.shape[-2] // 4
    timestep_BL = timestep[:, None].repeat(1, latents_BFCHW.shape[1] * tokens)
    timestep_BL[:, :tokens] = 0
    with torch.no_grad():
        found = twin(latents_BFCHW.transpose(1, 2), timestep_BL, text_BMC.expand(len(timestep), -1, -1))
    return found.sample.transpose(1, 2)


def test_forward_is_that_of_diffusers(make_net, twin):
    net, _ = make_net()
    latents, timestep, text = inputs(2)
    with torch.no_grad():
        ours = net(latents, timestep, text.expand(2, -1, -1))
    assert difference(ours, in_diffusers(twin, latents, timestep, text)) <= 1e-5


def test_several_heads_are_those_of_diffusers(learning):
    """ComfyUI reads no other heads than of 128 from a file, so the class itself is made."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    from flash_pack.flash_modules.backends.comfy.wan.train.alignment import LearningWan
    from flash_pack.tests.comfy.wan.small_wan import CHANNELS, WIDTH, core_names

    twin = small_twin(layers=2, heads=4)
    layout = {"in_dim": CHANNELS, "out_dim": CHANNELS, "dim": WIDTH, "ffn_dim": 160, "num_layers": 2}
    net = WanModel(
        model_type="t2v", num_heads=4, text_dim=TEXT_WIDTH, operations=comfy.ops.manual_cast, **layout
    )
    net.load_state_dict(core_names(twin.state_dict()))
    latents, timestep, text = inputs(2)
    with torch.no_grad():
        ours = LearningWan(net, OFF)(latents, timestep, text.expand(2, -1, -1))
    assert difference(ours, in_diffusers(twin, latents, timestep, text)) <= 1e-5


def test_frame_0_has_timestep_0(make_net, twin):
    net, _ = make_net()
    latents, timestep, text = inputs(1)
    with torch.no_grad():
        ours = net(latents, timestep, text)
        tokens = FRAMES * latents.shape[-1] * latents.shape[-2] // 4
        same = twin(latents.transpose(1, 2), timestep[:, None].repeat(1, tokens), text).sample.transpose(1, 2)
    assert difference(ours, same) > 0.01


def test_it_is_the_model_as_the_sampler_calls_it(make_net, model):
    """Core's way to the network, with the mask of a clean first frame."""
    import comfy.model_management

    net, _ = make_net()
    latents, timestep, text = inputs(1)
    mask = torch.ones(1, 1, FRAMES, *latents.shape[-2:])
    mask[:, :, 0] = 0
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        x = latents.transpose(1, 2)
        sigma = timestep / 1000
        denoised = model.model.apply_model(x, sigma, c_crossattn=text, denoise_mask=mask)
        velocity = ((x - denoised) / sigma).transpose(1, 2)
    with torch.no_grad():
        ours = net(latents, timestep, text)
    assert difference(ours[:, 1:], velocity[:, 1:]) <= 1e-5


def test_originals_are_untouched_and_equal_twins_stay_equal(make_net):
    net, _ = make_net(ON)
    (latents, timestep, text), (other, *_) = inputs(1), inputs(1, seed=5)
    with torch.no_grad():
        alone = net(torch.cat([latents, other]), timestep.expand(2), text.expand(2, -1, -1))
        pairs = net(torch.cat([latents, other]), timestep.expand(2), text.expand(2, -1, -1), pair_call())
        same = net(torch.cat([latents, latents]), timestep.expand(2), text.expand(2, -1, -1), pair_call())
    assert torch.equal(pairs[0], alone[0])
    assert difference(pairs[1], alone[1]) > 1e-3
    assert difference(same[1], same[0]) <= 1e-5


def slow(twin, latents_VFCHW, timestep, text_1MC, swaps, tau, exclude_first):
    """diffusers' own blocks, one after the other, with Eq. 3-5 in float64, one channel at a time."""
    usual = [block.attn1.processor for block in twin.blocks]
    frames, start = latents_VFCHW.shape[1], int(exclude_first)
    for block, swap in zip(twin.blocks, swaps, strict=True):
        block.attn1.set_processor(_slow_attention(bool(swap), frames, start, tau))
    try:
        return in_diffusers(twin, latents_VFCHW, timestep, text_1MC)
    finally:
        for block, processor in zip(twin.blocks, usual, strict=True):
            block.attn1.set_processor(processor)


def _slow_attention(swap, frames, start, tau):
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    class Slow(WanAttnProcessor):
        def __call__(self, attn, x_VLC, text=None, mask=None, rotary_emb=None):
            q, k = (
                _turned(norm(project(x_VLC)).unflatten(2, (attn.heads, -1)), *rotary_emb)
                for norm, project in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))
            )
            v = attn.to_v(x_VLC).unflatten(2, (attn.heads, -1))
            if swap:
                q[1], k[1] = q[0], k[0]
            scores = torch.einsum("vlhd,vmhd->vhlm", q.double(), k.double()) / q.shape[-1] ** 0.5
            out = torch.einsum("vhlm,vmhd->vlhd", scores.softmax(-1), v.double()).flatten(2)
            return _slowly_aligned(attn.to_out[0](out.to(x_VLC)), frames, start, tau)

    return Slow()


def _turned(x, cos, sin):
    a, b, cos, sin = x[..., 0::2], x[..., 1::2], cos[..., 0::2], sin[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def _slowly_aligned(out_VLC, frames, start, tau):
    tokens = out_VLC.shape[1] // frames
    ori, own = out_VLC.double().unflatten(1, (frames, tokens)).clone()
    scores = [
        sum(float(ori[start:, n, c].std(correction=0)) for n in range(tokens)) / tokens
        for c in range(out_VLC.shape[2])
    ]
    limit = float(torch.quantile(torch.tensor(scores, dtype=torch.float64), tau / 100))
    for c in (c for c, score in enumerate(scores) if score > limit):
        for n in range(tokens):
            x, before = ori[start:, n, c], own[start:, n, c].clone()
            course = (x - x.mean()) / (x.std(correction=0) + 1e-6)
            own[start:, n, c] = course * before.std(correction=0) + before.mean()
    return torch.stack([ori, own]).flatten(1, 2).to(out_VLC)


@pytest.mark.parametrize(
    ("tau", "p", "exclude_first"),
    [(90.0, 0.5, True), (90.0, 0.5, False), (100.0, 0.5, True), (50.0, 0.0, True)],
)
def test_alignment_is_the_slow_one(make_net, twin, tau, p, exclude_first):
    net, _ = make_net(AlignmentConfig(tau=tau, p=p, exclude_first=exclude_first))
    shape = (5, *SHAPE_FCHW[1:])
    latents, timestep, text = inputs(2, shape=shape)
    with torch.no_grad():
        ours = net(latents, timestep, text.expand(2, -1, -1), pair_call())
    swaps = SWAPS if p else torch.zeros(LAYERS, dtype=torch.bool)
    theirs = slow(twin, latents, timestep, text, swaps, tau, exclude_first)
    plain = in_diffusers(twin, latents, timestep, text)
    assert difference(ours, theirs) <= 1e-5
    assert difference(theirs[1], plain[1]) > 1e-3


@pytest.mark.parametrize("detach_source", [False, True])
def test_gradients_flow_to_the_original_unless_it_is_detached(make_net, detach_source):
    net, _ = make_net(AlignmentConfig(tau=90.0, p=0.5, exclude_first=True, detach_source=detach_source))
    latents, timestep, text = inputs(2)
    latents.requires_grad_()
    net(latents, timestep, text.expand(2, -1, -1), pair_call())[1].square().mean().backward()
    assert bool(latents.grad[0].any()) != detach_source


def test_channels_of_each_layer_are_chosen_relative_to_that_layer_of_stills(make_net):
    net, _ = make_net(AlignmentConfig(tau=90.0, p=0.0, exclude_first=True))
    latents, timestep, text = inputs(2)
    text = text.expand(2, -1, -1)
    stills = Stills(num_videos=1)
    with torch.no_grad():
        net(latents[:1, :1].expand(-1, FRAMES, -1, -1, -1), timestep[:1], text[:1], VideoCall(stills=stills))
        plain = net(latents, timestep, text, pair_call())
        relative = net(latents, timestep, text, replace(pair_call(), stills=stills))
        others = {layer: 3 * scores.flip(1) for layer, scores in stills.scores.items()}
        turned = net(latents, timestep, text, replace(pair_call(), stills=replace(stills, scores=others)))
    assert [*stills.scores] == [*range(LAYERS)]
    assert len({float(scores.sum()) for scores in stills.scores.values()}) == LAYERS
    assert difference(relative[1], plain[1]) > 1e-4
    assert difference(turned[1], relative[1]) > 1e-4


def test_text_attention_is_never_exchanged(make_net, twin):
    """512 tokens of a video, as many as those of the text."""
    net, _ = make_net(AlignmentConfig(tau=100.0, p=1.0))
    shape = (8, SHAPE_FCHW[1], 16, 16)
    latents, timestep, text = inputs(2, text=512, shape=shape)
    swaps = torch.ones(LAYERS, dtype=torch.bool)
    with torch.no_grad():
        ours = net(latents, timestep, text.expand(2, -1, -1), pair_call(swaps))
    assert difference(ours, slow(twin, latents, timestep, text, swaps, 100.0, True)) <= 1e-5


def loss_of(net, call=None):
    latents, timestep, text = inputs(2)
    return net(latents, timestep.expand(2), text.expand(2, -1, -1), call or pair_call()).square().mean()


def gradients(net, weights):
    loss_of(net).backward()
    found = {name: weight.grad.clone() for name, weight in weights.items()}
    for weight in weights.values():
        weight.grad = None
    return found


@pytest.mark.parametrize("checkpointing", ["motion", "all"])
def test_checkpointing_changes_no_gradient(make_net, checkpointing):
    net, weights = make_net(ON)
    wake(weights)
    whole = gradients(net, weights)
    net.set_checkpointing(checkpointing)
    again = gradients(net, weights)
    for name, gradient in whole.items():
        assert difference(again[name], gradient) <= 1e-6, name


@pytest.mark.parametrize(("checkpointing", "times"), [("none", 1), ("motion", 2), ("all", 2)])
def test_no_attention_runs_a_third_time(make_net, monkeypatch, checkpointing, times):
    net, _ = make_net(ON)
    net.set_checkpointing(checkpointing)
    ran = []
    for block in net.net.blocks:
        block.block.self_attn.attention.v.register_forward_hook(lambda *_: ran.append(1))
    loss_of(net).backward()
    assert len(ran) == times * LAYERS


def test_timesteps_are_not_rounded_to_the_latents_dtype(make_net):
    """bf16 knows 900 and 904, and nothing between."""
    net, _ = make_net()
    latents, _, text = inputs(1)
    with torch.no_grad():
        one, other = (net(latents.bfloat16(), torch.tensor([t]), text) for t in (900.0, 901.5))
    assert difference(one[:, 1:].float(), other[:, 1:].float()) > 1e-3


def wake(weights):
    """As after some steps: no weight of the LoRA is 0."""
    with torch.no_grad():
        for number, (name, weight) in enumerate(weights.items()):
            weight.add_(draw(*weight.shape, seed=100 + number), alpha=0.05 if "lora_B" in name else 0.01)


def test_every_weight_learns_and_nothing_else(make_net):
    net, weights = make_net(ON)
    wake(weights)
    found = gradients(net, weights)
    assert len(weights) == LAYERS * 2 * 6
    assert all(bool(gradient.any()) for gradient in found.values())
    learning = {id(weight) for weight in weights.values()}
    assert all(p.requires_grad == (id(p) in learning) for p in net.parameters())


def test_gradients_are_those_of_a_difference(make_net):
    net, weights = make_net(ON)
    wake(weights)
    name = "diffusion_model.blocks.1.self_attn.k.lora_B.weight"
    gradient = gradients(net, weights)[name]
    direction = draw(*gradient.shape, seed=4)
    with torch.no_grad():
        values = []
        for step in (1e-2, -1e-2):
            weights[name].add_(direction, alpha=step)
            values.append(float(loss_of(net)))
            weights[name].add_(direction, alpha=-step)
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float((gradient * direction).sum()), rel=2e-2)


def test_attention_is_torchs_whatever_comfyui_was_started_with(make_net, monkeypatch):
    import comfy.ldm.modules.attention
    import comfy.ldm.wan.model

    def without_backward(*_, **__):
        raise AssertionError("ComfyUI's kernel was asked")

    net, _ = make_net()
    monkeypatch.setattr(comfy.ldm.modules.attention, "attention_pytorch", without_backward)
    wrapped = comfy.ldm.modules.attention.wrap_attn(without_backward)
    monkeypatch.setattr(comfy.ldm.wan.model, "optimized_attention", wrapped)
    loss_of(net).backward()


def test_training_must_be_known_to_comfyui(make_net, monkeypatch):
    """Where it is not, the rotation of q and k may be a kernel without a backward pass."""
    import comfy.ldm.flux.math
    import comfy.model_management

    assert comfy.model_management.in_training
    net, weights = make_net()
    asked = []
    kernel = comfy.ldm.flux.math._apply_rope1
    monkeypatch.setattr(comfy.ldm.flux.math, "_apply_rope1", lambda *args: asked.append(1) or kernel(*args))
    wake(weights)
    found = gradients(net, weights)
    assert len(asked) == 2 * LAYERS
    assert bool(found["diffusion_model.blocks.0.self_attn.q.lora_A.weight"].any())


def test_pairs_that_are_none_are_refused(make_net):
    net, _ = make_net(ON)
    latents, timestep, text = inputs(3)
    with pytest.raises(ValueError, match="1 pairs are 2 videos"):
        net(latents, timestep, text.expand(3, -1, -1), pair_call())
    with pytest.raises(ValueError, match="`checkpointing` must be one of none, motion, all"):
        net.set_checkpointing("some")


def test_fp8_and_bf16_bases_are_used_as_they_lie(make_net, twin):
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        with torch.inference_mode():
            base = comfyui_model(twin, torch.bfloat16)
            if dtype != torch.bfloat16:
                import comfy.sd

                from flash_pack.tests.comfy.wan.small_wan import core_names

                weights = {
                    name: w.to(dtype) if w.ndim == 2 else w
                    for name, w in core_names(twin.state_dict()).items()
                }
                base = comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": dtype})
        net, weights = make_net(ON, of=base)
        wake(weights)
        assert net.net.blocks[0].block.ffn[0].weight.dtype == dtype
        assert all(weight.dtype == torch.float32 for weight in weights.values())
        assert all(torch.isfinite(g).all() and bool(g.any()) for g in gradients(net, weights).values())
