"""Wan as a host that an action is learned on: texts, clips, the file, samples; the MODEL stays as it is."""

from dataclasses import replace

import pytest
import torch

from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig
from flash_pack.flash_modules.flash.sampling import SamplerConfig
from flash_pack.flash_modules.flash.training.action_training import ActionTraining, ActionTrainingConfig
from flash_pack.flash_modules.flash.training.latent_pool import PoolConfig
from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.flash.training.noise_law import FlowNoise, TimestepConfig
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import SamplingConfig
from flash_pack.tests.comfy.wan.small_wan import (
    CHANNELS,
    LAYERS,
    TEXT_WIDTH,
    comfyui_model,
    core_names,
    difference,
    draw,
    quantised_model,
    small_twin,
)
from flash_pack.tests.core.small_clips import write_folder

SIZE, FRAMES = 64, 9
CONFIG = ActionTrainingConfig(
    method=MethodConfig(
        augment=AugmentConfig(size=SIZE),
        alignment=AlignmentConfig(exclude_first=True),
        timesteps=TimestepConfig(law="shifted"),
    ),
    sampling=SamplingConfig(num_frames=FRAMES),
    pool=PoolConfig(per_clip=1),
    loop=LoopConfig(steps=3, learning_rate=0.01),
)


@pytest.fixture
def make_host(model, clip, vae, learning):
    def make(config=CONFIG, of=model, **lora):
        from flash_pack.flash_modules.backends.comfy.wan.train.host import LoRAConfig, WanHost

        return WanHost(of, clip, vae, config, LoRAConfig(**{"rank": 2, **lora}))

    return make


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a", "b"):
        write_folder(folder / "jump" / name)
    (folder / "jump" / "b.txt").write_text("a person is jumping")
    return find_clips([folder / "jump"]).used


def learned(host, clips, folder, config=CONFIG, steps=3):
    training = ActionTraining(host, clips, config)
    done = []
    run = RunFolder(folder, "run", training.settings(1))
    training.run(run, on_step=done.append, stopped=lambda: len(done) >= steps)
    return training


def weights_of(model):
    return {name: weight.clone() for name, weight in model.model.state_dict().items()}


def test_it_learns_and_the_model_stays_as_it_is(make_host, clips, model, tmp_path):
    before = weights_of(model)
    host = make_host()
    training = learned(host, clips, tmp_path)
    for name, weight in host.weights.items():
        assert not torch.equal(weight, training.before[name]), name
    after = model.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not model.patches
    assert not model.object_patches


def test_a_run_that_was_stopped_goes_on_bit_for_bit(make_host, clips, tmp_path):
    whole = learned(make_host(), clips, tmp_path / "whole")
    learned(make_host(), clips, tmp_path / "parts", steps=1)
    rest = learned(make_host(), clips, tmp_path / "parts")
    for name, weight in whole.host.weights.items():
        assert torch.equal(rest.host.weights[name], weight)


def velocity(model, latents_1FCHW, timestep_1, text_1MC):
    """As the sampler asks the MODEL, with its patches, and a clean first frame."""
    import comfy.model_management

    mask = torch.ones(1, 1, *latents_1FCHW.shape[1:2], *latents_1FCHW.shape[3:])
    mask[:, :, 0] = 0
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        x, sigma = latents_1FCHW.transpose(1, 2), timestep_1 / 1000
        denoised = model.model.apply_model(x, sigma, c_crossattn=text_1MC, denoise_mask=mask)
        return ((x - denoised) / sigma).transpose(1, 2)


@pytest.mark.parametrize("text", [False, True])
def test_the_file_in_cores_loader_is_what_was_learned(make_host, clips, model, tmp_path, text):
    import comfy.sd
    import comfy.utils

    host = make_host(text=text)
    training = learned(host, clips, tmp_path)
    with torch.no_grad():  # as after many steps
        for number, weight in enumerate(host.weights.values()):
            weight.add_(draw(*weight.shape, seed=number), alpha=0.03)
    path = tmp_path / "jump.safetensors"
    training.write(path, 3, standalone=False)
    file, strength = comfy.utils.load_torch_file(str(path), safe_load=True), 1.0
    with_lora, _ = comfy.sd.load_lora_for_models(model, None, file, strength, 0.0)
    assert len(with_lora.patches) == LAYERS * (6 if text else 4)
    latents, embeds = draw(1, 3, CHANNELS, 4, 4), host.embed("a person is jumping")
    timestep = torch.tensor([90.0])
    with torch.no_grad():
        ours = host.predict(latents, timestep, embeds)
    core = velocity(with_lora, latents, timestep, embeds)
    assert difference(ours[:, 1:], core[:, 1:]) <= 1e-6
    assert difference(velocity(model, latents, timestep, embeds)[:, 1:], core[:, 1:]) > 1e-3


def test_diffusers_reads_the_file_too(make_host, clips, twin, tmp_path):
    """By the converter that its `load_lora_weights` uses, merged by hand; PEFT is not needed for that."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers

    training = learned(make_host(text=True), clips, tmp_path)
    host = training.host
    path = tmp_path / "jump.safetensors"
    training.write(path, 3, standalone=False)
    found = _convert_non_diffusers_wan_lora_to_diffusers(dict(read_tensors(path)[0]))
    with torch.no_grad():
        for name in {key.rsplit(".lora_", 1)[0] for key in found}:
            layer = twin.get_submodule(name.removeprefix("transformer."))
            layer.weight.add_(found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"])
    assert len(found) == 2 * LAYERS * 6
    from flash_pack.tests.comfy.wan.test_net import in_diffusers

    latents, embeds, timestep = (
        draw(1, 3, CHANNELS, 4, 4),
        draw(1, 7, TEXT_WIDTH, seed=2),
        torch.tensor([90.0]),
    )
    with torch.no_grad():
        ours = host.predict(latents, timestep, embeds)
    assert difference(ours, in_diffusers(twin, latents, timestep, embeds)) <= 1e-5


def test_the_file_tells_what_it_is(make_host, clips, tmp_path):
    training = learned(make_host(), clips, tmp_path)
    path = tmp_path / "my jump.safetensors"
    training.write(path, 2, standalone=False)
    tensors, header = read_tensors(path)
    assert {*tensors} == {*training.host.weights}
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert header["modelspec.architecture"] == "wan2.2-ti2v-5b/lora"
    assert header["modelspec.title"] == "my jump"
    assert header["modelspec.trigger_phrase"] == "jump, a person is jumping"
    assert header["flash.prompts"] == '["jump", "a person is jumping"]'
    assert header["flash.timestep"] == '{"law": "shifted", "shift": 8.0}'
    assert (header["flash.rank"], header["flash.steps"], header["flash.frames"]) == ("2", "2", str(FRAMES))
    assert '"tau": 90.0' in header["flash.align"]


def test_one_latent_is_of_the_first_frame_and_one_of_every_four(make_host, vae):
    host = make_host()
    video = torch.rand(9, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with host.encoder() as encode, torch.no_grad():
        latents, first, eight = encode(video), encode(video[:1]), encode(video[:8])
    assert latents.shape == host.latent_shape(9, 64, 96) == (3, CHANNELS, 4, 6)
    assert torch.equal(latents[:1], first)
    assert torch.equal(eight, latents[:2])
    assert host.latent_shape(8, 64, 96)[0] == 2
    frames = [*host.decode(latents)]
    assert len(frames) == 9
    assert frames[0].shape == (64, 96, 3)


def test_latents_are_those_of_cores_node(make_host, vae):
    """VAE Encode, then what the sampler makes of it."""
    import comfy.latent_formats

    host = make_host()
    video = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with host.encoder() as encode, torch.no_grad():
        ours = encode(video)
    with torch.inference_mode():
        core = comfy.latent_formats.Wan22().process_in(vae.encode(video.movedim(1, -1)))
    assert difference(ours, core[0].transpose(0, 1)) <= 1e-6


def test_pictures_are_those_of_cores_node(make_host, vae):
    """What was encoded, as VAE Decode shows it."""
    host = make_host()
    video = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with host.encoder() as encode, torch.no_grad():
        ours = torch.stack([*host.decode(encode(video))])
    with torch.inference_mode():
        core = vae.decode(vae.encode(video.movedim(1, -1)))[0]
    assert difference(ours, core) <= 1e-5


def test_texts_are_those_of_cores_node_with_words_as_they_are(make_host, clip):
    host = make_host()
    prompt = "a person is jumping over a beam"
    with torch.inference_mode():
        core = clip.encode_from_tokens(clip.tokenize(prompt))
    ours = host.embed(prompt)
    assert ours.shape == (1, 512, TEXT_WIDTH)
    assert not ours.is_inference()
    assert difference(ours, core) <= 1e-6
    num_tokens = len(getattr(clip.tokenizer, clip.tokenizer.clip).tokenizer(prompt)["input_ids"])
    assert bool(ours[0, num_tokens - 1].any())
    assert not ours[:, num_tokens:].any()
    weighted = host.embed("a (person:1.2) is jumping")
    with torch.inference_mode():
        assert weighted.shape == clip.encode_from_tokens(clip.tokenize("a (person:1.2) is jumping")).shape
        assert (
            difference(weighted, clip.encode_from_tokens(clip.tokenize("a (person:1.2) is jumping"))) > 1e-3
        )
    with pytest.raises(
        ValueError, match=r"The prompt has \d+ tokens, and Wan2.2 TI2V-5B reads 512: shorten it"
    ):
        host.embed("jump " * 600)


def test_a_sample_is_that_of_cores_nodes_with_the_file(make_host, clips, model, vae, clip, tmp_path):
    """Wan22ImageToVideoLatent, LoraLoaderModelOnly and KSampler, with the same seed."""
    import comfy.sd
    import comfy.utils
    import nodes
    from comfy_extras.nodes_wan import Wan22ImageToVideoLatent

    training = learned(make_host(), clips, tmp_path)
    path = tmp_path / "jump.safetensors"
    training.write(path, 3, standalone=False)
    picture = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(2))
    sampler = SamplerConfig(num_frames=9, steps=4, cfg=5.0)
    with torch.no_grad():
        ours = training.animate_latents(picture, "a person is jumping", 7, sampler)
    with torch.inference_mode():
        with_lora, _ = comfy.sd.load_lora_for_models(
            model, None, comfy.utils.load_torch_file(str(path)), 1.0, 0.0
        )
        latent = Wan22ImageToVideoLatent.execute(vae, 96, 64, 9, 1, start_image=picture).result[0]
        texts = [[[clip.encode_from_tokens(clip.tokenize(text)), {}]] for text in ("a person is jumping", "")]
        (found,) = nodes.KSampler().sample(with_lora, 7, 4, 5.0, "uni_pc", "simple", *texts, latent)
        core = model.get_model_object("latent_format").process_in(found["samples"])[0].transpose(0, 1)
    assert ours.shape == core.shape == (3, CHANNELS, 4, 6)
    assert difference(ours[1:], core[1:]) <= 1e-5
    with training.host.encoder() as encode, torch.no_grad():
        assert torch.equal(ours[:1], encode(picture.movedim(-1, 1)))
    assert difference(ours[:1], core[:1]) <= 1e-3  # uni_pc itself is that far from what it was given


def test_sampling_leaves_what_learns_as_it_is(make_host, clips, tmp_path):
    whole = learned(make_host(), clips, tmp_path / "whole")
    host = make_host()
    training = learned(host, clips, tmp_path / "parts", steps=1)
    with torch.no_grad():
        training.animate_latents(torch.rand(1, 64, 64, 3), "jump", 0, SamplerConfig(num_frames=5, steps=2))
    learned(host, clips, tmp_path / "parts")
    for name, weight in whole.host.weights.items():
        assert torch.equal(host.weights[name], weight)


def test_the_shift_is_the_models(make_host, model):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingSD3

    assert make_host().noise == FlowNoise(8.0)
    (shifted,) = ModelSamplingSD3().patch(model, 5.0)
    host = make_host(of=shifted)
    assert host.noise == FlowNoise(5.0)
    assert host.fingerprints["shift"] == "5"
    video = {"seed": 0, "config": SamplerConfig(num_frames=5, steps=2, cfg=1.0)}
    picture, text = draw(1, CHANNELS, 4, 4), draw(1, 7, TEXT_WIDTH, seed=1)
    with torch.no_grad():
        ours, usual = (one.sample(picture, text, text, **video) for one in (host, make_host()))
    assert difference(ours, usual) > 1e-3
    (other,) = ModelSamplingDiscrete().patch(model, "eps", zsnr=False)
    with pytest.raises(ValueError, match="samples otherwise than by flow matching"):
        make_host(of=other)


def test_a_lora_on_the_model_is_baked_in_and_told(make_host, model, twin):
    with torch.inference_mode():
        changed = model.clone()
        key = "diffusion_model.blocks.0.self_attn.q.weight"
        changed.add_patches({key: ("diff", (draw(128, 128, seed=3),))}, 0.5)
    host, plain = make_host(of=changed), make_host()
    assert "flash.baked_in" in host.header
    assert host.fingerprints["base"] != plain.fingerprints["base"]
    weight = host.model.net.blocks[0].block.self_attn.attention.q.layer.weight
    expected = core_names(twin.state_dict())["blocks.0.self_attn.q.weight"] + 0.5 * draw(128, 128, seed=3)
    assert difference(weight, expected) <= 1e-6
    assert torch.equal(
        model.model.state_dict()[key], core_names(twin.state_dict())[key.removeprefix("diffusion_model.")]
    )


def test_a_lora_is_baked_in_once_though_the_model_is_loaded_with_it(make_host, model):
    import comfy.model_management

    key = "diffusion_model.blocks.3.ffn.2.weight"  # the last block
    with torch.inference_mode():
        changed = model.clone()
        changed.add_patches({key: ("diff", (draw(128, 160, seed=3),))}, 0.5)
        plain = model.model.state_dict()[key].clone()
        comfy.model_management.load_models_gpu([changed], force_patch_weights=True)
        assert not torch.equal(model.model.state_dict()[key], plain)
        host = make_host(of=changed)
        comfy.model_management.unload_all_models()
    weight = host.model.net.blocks[3].block.ffn[2].weight
    assert difference(weight, plain + 0.5 * draw(128, 160, seed=3)) <= 1e-6
    assert host.fingerprints["base"] != make_host().fingerprints["base"]


def test_weights_keep_their_dtype_when_a_lora_is_baked_in(make_host):
    with torch.inference_mode():
        base = comfyui_model(small_twin(), torch.bfloat16)
        base.add_patches({"diffusion_model.blocks.0.ffn.2.weight": ("diff", (draw(128, 160),))}, 0.5)
    assert make_host(of=base).model.net.blocks[0].block.ffn[2].weight.dtype == torch.bfloat16


def test_what_is_learned_and_how_are_the_runs(make_host):
    method = replace(CONFIG.method, alignment=AlignmentConfig(tau=70.0, p=0.25))
    host = make_host(replace(CONFIG, method=method, checkpointing="motion"), rank=3, text=True)
    assert host.model.config == method.alignment
    assert host.model._again.checkpointing == "motion"
    assert host.fingerprints["lora"] == "rank 3, text"
    assert make_host(rank=3).fingerprints["lora"] == "rank 3"
    one, other = (
        host.weights[f"diffusion_model.blocks.0.self_attn.{layer}.lora_A.weight"] for layer in ("q", "k")
    )
    assert not torch.equal(one, other)


def test_weights_without_a_lora_are_not_copied(make_host, model):
    host = make_host()
    ours = host.model.net.blocks[1].block.ffn[0].weight
    theirs = model.model.diffusion_model.blocks[1].ffn[0].weight
    assert ours.untyped_storage().data_ptr() == theirs.untyped_storage().data_ptr()


def test_other_seeds_begin_elsewhere_and_nothing_has_changed_at_first(make_host, model):
    one, other = make_host(), make_host(replace(CONFIG, seed=1))
    name = "diffusion_model.blocks.0.self_attn.q.lora_A.weight"
    assert not torch.equal(one.weights[name], other.weights[name])
    assert float(one.weights[name].abs().max()) <= 128**-0.5
    assert not one.weights[name.replace("lora_A", "lora_B")].any()
    latents, timestep, embeds = draw(1, 3, CHANNELS, 4, 4), torch.tensor([90.0]), one.embed("jump")
    with torch.no_grad():
        ours = one.predict(latents, timestep, embeds)
    assert difference(ours[:, 1:], velocity(model, latents, timestep, embeds)[:, 1:]) <= 1e-6


def test_a_rank_of_none_is_refused(make_host):
    with pytest.raises(ValueError, match="`rank` must be 1 or more, but it is 0"):
        make_host(rank=0)


def fake(kind, **layout):
    """A MODEL of another kind, as far as it is looked at."""
    from types import SimpleNamespace

    return SimpleNamespace(model=SimpleNamespace(model_config=SimpleNamespace(unet_config=layout), kind=kind))


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ({"model_type": "t2v", "in_dim": 16}, "a text-to-video model of Wan"),
        ({"model_type": "t2v", "in_dim": 36}, "an expert of Wan2.2 I2V-A14B"),
        ({"model_type": "i2v", "in_dim": 36}, "Wan 2.1 I2V"),
        ({"model_type": "vace"}, "Wan VACE"),
        ({"model_type": "animate"}, "Wan2.2 Animate"),
        ({"model_type": "t2v", "in_dim_ref_conv": 16}, "Wan Fun Control"),
        ({"model_type": "scail"}, "a Wan of the kind 'scail'"),
    ],
)
def test_other_kinds_of_wan_are_refused_by_name(layout, name):
    from flash_pack.flash_modules.backends.comfy.wan.kinds import check_model

    with pytest.raises(ValueError, match=f"This MODEL is {name}.* learned on Wan2.2 TI2V-5B"):
        check_model(fake("other", image_model="wan2.1", **layout))


def test_subclasses_with_the_same_layout_are_refused(model):
    from comfy.model_base import WAN22

    from flash_pack.flash_modules.backends.comfy.wan.kinds import check_model

    class Relative(WAN22):
        pass

    check_model(model)
    with torch.inference_mode():
        other = model.clone()
        was = type(other.model)
        try:
            other.model.__class__ = Relative
            with pytest.raises(ValueError, match="This MODEL is"):
                check_model(other)
        finally:
            other.model.__class__ = was


def test_no_wan_is_refused_by_name():
    from flash_pack.flash_modules.backends.comfy.wan.kinds import check_model

    with pytest.raises(ValueError, match="This MODEL is no Wan, but SimpleNamespace"):
        check_model(fake("other", image_model="flux"))


def test_what_else_changes_the_model_is_refused(make_host, model):
    with torch.inference_mode():
        changed = model.clone()
        changed.set_model_patch_replace(lambda *_: None, "dit", "double_block", 0)
    with pytest.raises(ValueError, match="carries what cannot be learned with: the replacement of 'dit'"):
        make_host(of=changed)


def test_other_encoders_are_refused(make_host, model, clip, vae, learning):
    from types import SimpleNamespace

    from flash_pack.flash_modules.backends.comfy.wan.train.encode import check_clip, check_vae

    check_clip(clip)
    check_vae(vae)
    with pytest.raises(ValueError, match="Wan needs UMT5-XXL: load umt5"):
        check_clip(SimpleNamespace(tokenizer=object()))
    other = SimpleNamespace(first_stage_model=object(), latent_channels=16)
    with pytest.raises(ValueError, match="This VAE is object with 16 channels"):
        check_vae(other)


def test_encoders_are_told_apart(clip, vae):
    from flash_pack.flash_modules.backends.comfy.wan.train.encode import encoder_fingerprints

    found = encoder_fingerprints(vae, clip)
    with torch.inference_mode():
        weight = vae.first_stage_model.encoder.conv1.weight
        weight.mul_(1.5)
        try:
            other = encoder_fingerprints(vae, clip)
        finally:
            weight.div_(1.5)
    assert found["VAE"] != other["VAE"]
    assert found["text encoder"] == other["text encoder"]


def test_a_bf16_base_learns_in_bf16_or_in_fp32(make_host, clips, tmp_path):
    with torch.inference_mode():
        base = comfyui_model(small_twin(), torch.bfloat16)
    for dtype in (torch.bfloat16, torch.float32):
        config = replace(CONFIG, dtype=dtype)
        host = make_host(config, of=base)
        training = learned(host, clips, tmp_path / str(dtype), config, steps=1)
        assert all(weight.dtype == torch.float32 for weight in host.weights.values())
        changed = [not torch.equal(w, training.before[name]) for name, w in host.weights.items()]
        assert any(changed)


@pytest.fixture
def quantised(twin):
    with torch.inference_mode():
        return quantised_model(twin)


def test_a_quantised_base_computes_as_it_is_and_stays_small(make_host, quantised, model, clips, tmp_path):
    host, plain = make_host(of=quantised), make_host(of=model)
    latents, timestep, embeds = draw(1, 3, CHANNELS, 4, 4), torch.tensor([90.0]), host.embed("jump")
    with torch.no_grad():
        ours, whole = (one.predict(latents, timestep, embeds) for one in (host, plain))
    core = velocity(quantised, latents, timestep, embeds)
    assert difference(ours[:, 1:], core[:, 1:]) <= 1e-6
    assert 1e-3 < difference(ours, whole) < 0.2  # what fp8 rounds away
    matrices = [w for name, w in model.model.state_dict().items() if ".blocks." in name and w.ndim == 2]
    saved = sum(3 * w.nbytes // 4 for w in matrices)
    assert plain.num_bytes - host.num_bytes == pytest.approx(saved, rel=0.01)
    before = {name: w.clone() for name, w in quantised.model.state_dict().items()}
    training = learned(host, clips, tmp_path)
    for name, weight in host.weights.items():
        assert not torch.equal(weight, training.before[name]), name
    after = quantised.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("checkpointing", ["none", "all"])
def test_gradients_through_quantised_layers_are_those_through_spelled_out_ones(
    make_host, quantised, twin, checkpointing
):
    """But for what quantising the activations rounds away, which core's layers do."""
    with torch.inference_mode():
        spelled = {n: w.float() for n, w in quantised.model.diffusion_model.state_dict().items()}
    scales = {name.removesuffix("_scale"): w for name, w in spelled.items() if name.endswith(".weight_scale")}
    dense = core_names(twin.state_dict())
    for name, scale in scales.items():
        dense[name] = spelled[name] * scale
    import comfy.sd

    with torch.inference_mode():
        other = comfy.sd.load_diffusion_model_state_dict(dense, model_options={"dtype": torch.float32})
    latents, timestep = draw(1, 3, CHANNELS, 4, 4), torch.tensor([90.0])
    found = []
    for base in (quantised, other):
        host = make_host(replace(CONFIG, checkpointing=checkpointing), of=base)
        with torch.no_grad():
            for number, weight in enumerate(host.weights.values()):
                weight.add_(draw(*weight.shape, seed=number), alpha=0.03)
        host.predict(latents, timestep, host.embed("jump")).square().mean().backward()
        found.append(torch.cat([weight.grad.flatten() for weight in host.weights.values()]))
    assert difference(*found) < 0.1
    assert float(torch.cosine_similarity(*found, dim=0)) > 0.995


def test_a_lora_on_a_quantised_base_is_spelled_out_where_it_acts(make_host, quantised):
    key = "diffusion_model.blocks.0.self_attn.q.weight"
    with torch.inference_mode():
        changed = quantised.clone()
        changed.add_patches({key: ("diff", (draw(128, 128, seed=3),))}, 0.5)
    host = make_host(of=changed)
    latents, timestep, embeds = draw(1, 3, CHANNELS, 4, 4), torch.tensor([90.0]), host.embed("jump")
    with torch.no_grad():
        ours = host.predict(latents, timestep, embeds)
        without = make_host(of=quantised).predict(latents, timestep, embeds)
    assert difference(ours, without) > 1e-3
    core = velocity(changed, latents, timestep, embeds)
    assert difference(ours[:, 1:], core[:, 1:]) <= 0.1  # core rounds the patched weight to fp8 again


def test_what_a_step_on_a_quantised_base_takes_is_counted(make_host, quantised, model, clips):
    costs = [ActionTraining(make_host(of=base), clips, CONFIG).cost() for base in (quantised, model)]
    assert costs[0].flops == pytest.approx(costs[1].flops, rel=0.01)


def test_bases_that_read_more_than_they_write_are_refused(model, monkeypatch):
    """Fun Control, and others with a picture beside the noise."""
    from flash_pack.flash_modules.backends.comfy.wan.kinds import check_model

    monkeypatch.setattr(model.model.diffusion_model, "in_dim", 100)
    with pytest.raises(ValueError, match="This MODEL is"):
        check_model(model)
