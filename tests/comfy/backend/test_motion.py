"""Motion modules and cross-frame attention on ComfyUI's MODEL, and what other nodes do beside them."""

from dataclasses import replace
from types import SimpleNamespace

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.samplers
import comfy.supported_models
import pytest
import torch


def test_the_module_tree_of_the_shared_model_never_changes(flash, model, motion, sample, reference):
    tree = [(name, id(module)) for name, module in model.model.named_modules()]
    during = []
    hook = model.model.diffusion_model.register_forward_pre_hook(
        lambda *_: during.append([(name, id(module)) for name, module in model.model.named_modules()])
    )
    sample(flash.backend.add_first_frame(flash.backend.add_action(model, motion, None), reference))
    hook.remove()
    # ComfyUI itself exchanges `model_sampling` while a clone with another schedule is loaded.
    ours = [[entry for entry in seen if "model_sampling" not in entry[0]] for seen in (tree, *during)]
    assert all(seen == ours[0] for seen in ours)


@pytest.mark.parametrize("how", ["cancel", "error"])
def test_nothing_is_left_behind_after_a_stop(flash, model, motion, action, sample, reference, how):
    before = sample(model)
    animated = flash.backend.add_first_frame(flash.backend.add_action(model, motion, action), reference)
    stop = comfy.model_management.InterruptProcessingException if how == "cancel" else RuntimeError

    def callback(step, *_):
        if step == 1:
            raise stop("stop")

    with pytest.raises(stop):
        sample(animated, steps=3, callback=callback)
    assert torch.equal(sample(model), before)
    comfy.model_management.unload_all_models()
    assert torch.equal(sample(model), before)


def test_other_patches_see_the_transformers_counted(flash, model, motion, sample):
    def counts(m):
        seen, m = [], m.clone()
        m.set_model_attn1_patch(
            lambda n, k, v, extra: (seen.append(extra["transformer_index"]), (n, k, v))[1]
        )
        sample(m, steps=1)
        return seen

    plain = counts(model)
    assert sorted(set(plain)) == list(range(len(set(plain))))
    assert counts(flash.backend.add_action(model, motion, None)) == plain


def test_split_batches_give_the_same_video(animated, sample, unet_inputs, monkeypatch, assert_same):
    together = sample(animated)
    calls = len(unet_inputs)
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_: 0)
    apart = sample(animated)
    assert len(unet_inputs) - calls == 2 * calls
    assert_same(apart, together)


def test_cfg_1_asks_once_and_equals_the_positive_prompt(animated, sample, unet_inputs, prompts, assert_same):
    out = sample(animated, cfg=1.0)
    assert all(latents.shape[0] == 5 for latents, _ in unet_inputs)
    same = sample(animated, cfg=7.5, negative=prompts.positive)
    assert_same(out, same)


def test_two_positive_prompts_are_averaged(animated, sample, prompts, unet_inputs, assert_same):
    both = sample(animated, cfg=1.0, steps=1, positive=prompts.positive + prompts.other)
    assert unet_inputs[0][0].shape[0] == 10
    each = [sample(animated, cfg=1.0, steps=1, positive=p) for p in (prompts.positive, prompts.other)]
    assert_same(both, (each[0] + each[1]) / 2)


def test_each_frame_may_have_its_own_prompt(animated, sample, prompts, unet_inputs):
    per_frame = prompts.make(7, batch=5)
    sample(animated, cfg=1.0, positive=per_frame)
    for _, text in unet_inputs:
        torch.testing.assert_close(text, per_frame[0][0])


def lora_on(model, strength=0.7):

    weights = model.model.state_dict()
    key = "diffusion_model.output_blocks.2.1.conv.weight"
    attention = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight"
    generator = torch.Generator().manual_seed(9)
    lora = {
        k: ("diff", (0.1 * torch.randn(weights[k].shape, generator=generator),)) for k in (key, attention)
    }
    m = model.clone()
    assert sorted(m.add_patches(lora, strength)) == sorted(lora)
    return m


def test_a_lora_before_equals_a_lora_after(flash, model, motion, action, sample, assert_same):
    add = flash.backend.add_action
    before = sample(add(lora_on(model), motion, action))
    after = sample(lora_on(add(model, motion, action)))
    assert_same(before, after)
    assert (before - sample(add(model, motion, action))).abs().max() > 0.01


def test_a_lora_equals_weights_added_by_hand(flash, make_model, motion, sample, assert_same):
    by_hand = make_model()
    weights = dict(by_hand.model.named_parameters())
    patched = lora_on(make_model())
    for key, ((strength, (_, (diff,)), *_),) in patched.patches.items():
        weights[key].data += strength * diff
    add = flash.backend.add_action
    assert_same(sample(add(patched, motion, None)), sample(add(by_hand, motion, None)))


def test_a_lora_on_a_sibling_stays_there(flash, model, motion, sample):
    alone = sample(lora_on(model))
    animated = flash.backend.add_action(model, motion, None)
    plain = sample(animated)
    assert torch.equal(sample(lora_on(model)), alone)
    assert torch.equal(sample(animated), plain)


def test_a_cloning_node_after_ours_changes_nothing(animated, sample, assert_same):
    from comfy_extras.nodes_freelunch import FreeU

    assert torch.equal(sample(animated.clone().clone()), sample(animated))
    neutral = FreeU.execute(animated, 1.0, 1.0, 1.0, 1.0)[0]
    assert_same(sample(neutral), sample(animated), 1e-4)


def guidance(name, model):
    from comfy_extras.nodes_model_advanced import RescaleCFG
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance
    from comfy_extras.nodes_sag import SelfAttentionGuidance
    from comfy_extras.nodes_tcfg import TCFG

    return {
        "TCFG": lambda: TCFG.execute(model)[0],
        "RescaleCFG": lambda: RescaleCFG().patch(model, 0.7)[0],
        "PAG": lambda: PerturbedAttentionGuidance.execute(model, 3.0)[0],
        "SAG": lambda: SelfAttentionGuidance.execute(model, 0.5, 2.0)[0],
    }[name]()


@pytest.mark.parametrize("name", ["TCFG", "RescaleCFG", "PAG", "SAG"])
def test_a_guidance_node_before_equals_it_after(flash, model, motion, sample, reference, assert_same, name):
    def animate(m):
        return flash.backend.add_first_frame(flash.backend.add_action(m, motion, None), reference)

    before = sample(animate(guidance(name, model)))
    after = sample(guidance(name, animate(model)))
    assert_same(before, after)
    assert (after - sample(animate(model))).abs().max() > 1e-3


def test_rescale_cfg_equals_a_loop_by_hand(animated, prompts, sample, make_oracle, assert_same):
    """arXiv:2305.08891, section 3.4: guidance in v-prediction, with the prompt's deviation per frame."""
    from comfy_extras.nodes_model_advanced import RescaleCFG

    ours = sample(RescaleCFG().patch(animated, 0.7)[0])
    oracle = make_oracle(animated)

    def combine(x, sigma):
        shown, alpha = oracle.shown(x, sigma), 1 / (1 + sigma**2)
        v = [
            (shown * alpha - oracle.denoised(x, sigma, p)) / (alpha * sigma**2) ** 0.5
            for p in (prompts.positive, prompts.negative)
        ]
        guided = v[1] + 7.5 * (v[0] - v[1])
        rescaled = guided * v[0].std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True)
        v_final = 0.7 * rescaled + 0.3 * guided
        return torch.cat([oracle.z0, (shown * alpha - v_final * (alpha * sigma**2) ** 0.5)[1:]])

    assert_same(ours, oracle.euler(combine))


def test_tcfg_and_dual_cfg_equal_a_loop_by_hand(animated, prompts, sample, make_oracle, assert_same):
    from comfy_extras.nodes_custom_sampler import DualCFGGuider, Noise_RandomNoise
    from comfy_extras.nodes_tcfg import TCFG, score_tangential_damping

    with_tcfg = sample(TCFG.execute(animated)[0])
    guider = DualCFGGuider.execute(
        animated, prompts.positive, prompts.other, prompts.negative, 7.0, 3.0, "regular"
    )[0]
    sigmas = comfy.samplers.calculate_sigmas(animated.get_model_object("model_sampling"), "normal", 2)
    noise = Noise_RandomNoise(1).generate_noise({"samples": torch.zeros(5, 4, 8, 8)})
    dual = guider.sample(
        noise, torch.zeros(5, 4, 8, 8), comfy.samplers.sampler_object("euler"), sigmas, seed=1
    )

    oracle = make_oracle(animated)

    def tcfg(x, sigma):
        cond, uncond = (oracle.denoised(x, sigma, p) for p in (prompts.positive, prompts.negative))
        shown = oracle.shown(x, sigma)
        uncond = shown - score_tangential_damping(shown - cond, shown - uncond)
        return uncond + 7.5 * (cond - uncond)

    def two(x, sigma):
        pos, mid, neg = (
            oracle.denoised(x, sigma, p) for p in (prompts.positive, prompts.other, prompts.negative)
        )
        return (neg + (mid - neg) * 3.0) + (pos - mid) * 7.0

    for ours, by_hand in ((with_tcfg, oracle.euler(tcfg)), (dual, oracle.euler(two))):
        assert_same(ours, by_hand)


@pytest.fixture
def control_prompts(prompts, unet_config):
    """Both prompts with a small random ControlNet and a hint, as Apply ControlNet gives them."""
    from nodes import ControlNetApplyAdvanced

    config = {k: v for k, v in unet_config.items() if k not in ("out_channels", "transformer_depth_output")}
    net = comfy.cldm.cldm.ControlNet(
        hint_channels=3, dtype=torch.float32, operations=comfy.ops.manual_cast, **config
    )
    generator = torch.Generator().manual_seed(11)
    for weight in net.parameters():
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    control = comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))
    hint = torch.rand(1, 64, 64, 3, generator=generator)
    return ControlNetApplyAdvanced().apply_controlnet(
        prompts.positive, prompts.negative, control, hint, 0.8, 0.0, 1.0
    )


def test_controlnet_equals_a_loop_by_hand(
    animated, control_prompts, sample, make_oracle, prompts, assert_same
):
    positive, negative = control_prompts
    ours = sample(animated, positive=positive, negative=negative)
    assert (ours - sample(animated))[1:].abs().max() > 0.1
    oracle = make_oracle(animated)
    control = positive[0][1]["control"]
    control.pre_run(animated.model, animated.model.model_sampling.percent_to_sigma)

    def combine(x, sigma):
        cond, uncond = (oracle.denoised(x, sigma, p, control) for p in (prompts.positive, prompts.negative))
        return uncond + 7.5 * (cond - uncond)

    assert_same(ours, oracle.euler(combine))


@pytest.mark.parametrize(
    "left_out", ["cross-frame attention", "clean first frame", "keys and values", "motion"]
)
def test_every_mechanism_counts(flash, model, motion, action, reference, sample, left_out):
    backend = flash.backend
    whole = sample(backend.add_first_frame(backend.add_action(model, motion, action), reference))
    without = {
        "cross-frame attention": lambda: backend.add_first_frame(
            backend.add_motion(model, motion), reference
        ),
        "clean first frame": lambda: backend.add_action(model, motion, action),
        "keys and values": lambda: backend.add_first_frame(
            backend.add_action(model, motion, replace(action, kv_diffs={})), reference
        ),
        "motion": lambda: backend.add_first_frame(
            backend.add_action(model, motion, replace(action, motion={})), reference
        ),
    }
    changed = sample(without[left_out]())
    assert float((changed - whole)[1:].norm() / whole[1:].norm()) > 0.1


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("first", ["cache", "motion"])
def test_a_caching_node_may_skip_the_unet(flash, model, motion_path, sample, unet_inputs, version, first):
    from comfy_extras.nodes_easycache import EasyCacheNode

    motion = flash.backend.load_motion(motion_path, version)

    def cached(m):
        return EasyCacheNode.execute(m, 3.0, 0.1, 1.0, False)[0]

    def moving(m):
        return flash.backend.add_action(m, motion, None)

    m = moving(cached(model)) if first == "cache" else cached(moving(model))
    assert torch.isfinite(sample(m, steps=8)).all()
    assert 0 < len(unet_inputs) <= 8


def test_a_cache_keeps_version_1_s_pooled_output_wherever_it_stands(
    flash, model, motion_path, sample, assert_same
):
    from comfy_extras.nodes_easycache import EasyCacheNode

    motion = flash.backend.load_motion(motion_path, "v1")
    ran = []
    hook = model.model.diffusion_model.middle_block[1].register_forward_pre_hook(lambda *_: ran.append(1))

    def cached(m):
        return EasyCacheNode.execute(m, 3.0, 0.0, 1.0, False)[0]

    def moving(m):
        return flash.backend.add_motion(m, motion)

    behind = sample(cached(moving(model)), steps=8)
    assert 0 < len(ran) < 8  # some steps were skipped, and get what the cache kept
    before = sample(moving(cached(model)), steps=8)
    hook.remove()
    assert_same(behind, before)
    assert (behind - sample(moving(model), steps=8)).abs().max() > 1e-3


def test_weights_are_kept_as_the_cpu_computes_and_give_the_same_video(flash, model, motion, sample, tmp_path):
    half = {name: tensor.half() for name, tensor in motion.tensors.items()}
    flash.tensor_file.write_tensors(tmp_path / "half.safetensors", half, {})
    kept = flash.backend.load_motion(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in kept.tensors.values()} == {torch.float32}
    ours = sample(flash.backend.add_motion(model, kept))
    as_in_file = flash.backend.load_motion(tmp_path / "half.safetensors")
    for weight in as_in_file.patcher.model.parameters():
        weight.data = weight.data.half()
    assert torch.equal(ours, sample(flash.backend.add_motion(model, as_in_file)))


def test_the_kind_of_prediction_is_kept(flash, model, motion):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (v_model,) = ModelSamplingDiscrete().patch(model, "v_prediction", False)
    schedule = flash.backend.add_motion(v_model, motion).get_model_object("model_sampling")
    assert isinstance(schedule, comfy.model_sampling.V_PREDICTION)
    assert float(schedule.sigma_max) == pytest.approx(25.15, abs=0.01)


def test_low_vram_gives_the_same_video(animated, sample, assert_same):
    whole = sample(animated)
    comfy.model_management.unload_all_models()
    for patcher in (animated, *animated.get_nested_additional_models()):
        patcher.load(torch.device("cpu"), lowvram_model_memory=1000)
        assert patcher.model.model_lowvram
    assert_same(sample(animated), whole)


def test_an_fp8_unet_runs_with_our_motion(flash, make_model, motion, sample, reference, assert_same):
    fp8 = make_model(dtype=torch.float8_e4m3fn, compute=torch.float32)
    rounded = make_model()
    for weight in rounded.model.diffusion_model.parameters():
        weight.data = weight.data.to(torch.float8_e4m3fn).float()

    def animate(m):
        return sample(flash.backend.add_first_frame(flash.backend.add_action(m, motion, None), reference))

    assert_same(animate(fp8), animate(rounded), 1e-4)


def test_a_deep_copy_gives_the_same_video(animated, sample):
    whole = sample(animated)
    copy = animated.clone(force_deepcopy=True)
    assert copy.model is not animated.model
    assert torch.equal(sample(copy), whole)


def test_a_second_motion_is_refused(flash, model, motion):
    once = flash.backend.add_action(model, motion, None)
    for again in (
        lambda: flash.backend.add_action(once, motion, None),
        lambda: flash.backend.add_motion(once, motion),
    ):
        with pytest.raises(ValueError, match="already has a motion"):
            again()


@pytest.mark.parametrize("kind", ["SDXL", "SD20", "LTXV", "WAN21_T2V"])
def test_models_of_other_kinds_are_refused(flash, motion, kind):
    config = getattr(comfy.supported_models, kind)({})
    other = SimpleNamespace(model=SimpleNamespace(model_config=config))
    with pytest.raises(ValueError, match=f"This MODEL is {kind}"):
        flash.backend.add_motion(other, motion)
    with pytest.raises(ValueError, match=f"This MODEL is {kind}"):
        flash.backend.add_first_frame(other, torch.ones(1, 4, 8, 8))


def test_a_motion_for_other_widths_is_refused(flash, model, tmp_path):
    config = flash.motion_module.MotionConfig(down=((64, 64),) * 2, up=((64,) * 3,) * 2)
    path = tmp_path / "wide.safetensors"
    flash.tensor_file.write_tensors(path, flash.motion_module.MotionModel(config).state_dict(), {})
    with pytest.raises(
        ValueError, match="made for a U-Net with the widths 64, 64, and the checkpoint's U-Net has 32, 64"
    ):
        flash.backend.add_motion(model, flash.backend.load_motion(path))


def test_more_frames_than_positions_are_refused(animated, sample):
    with pytest.raises(
        ValueError, match="The video has 33 frames, but this motion was trained with up to 32"
    ):
        sample(animated, frames=33)


def test_a_node_that_takes_our_place_is_named(flash, model, motion, sample):
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

    m = model.clone()
    m.set_model_forward_timestep_embed_patch((ResBlock, lambda layer, x, emb, *_: layer(x, emb)))
    with pytest.raises(ValueError, match="of 11 motion modules did not run"):
        sample(flash.backend.add_motion(m, motion))


def test_frames_that_do_not_divide_are_refused(animated, sample):
    def split(apply_model, args):
        return torch.cat(
            [
                apply_model(x, t, **args["c"])
                for x, t in zip(args["input"].split(3), args["timestep"].split(3), strict=True)
            ]
        )

    m = animated.clone()
    m.set_model_unet_function_wrapper(split)
    with pytest.raises(ValueError, match="called with 3 frames for 2 prompts"):
        sample(m)
