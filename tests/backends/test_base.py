"""Base models: folders in diffusers' layout, single files, prompts and pictures, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from flash_pack.flash_modules.backends.diffusers.sd15 import (
    Base,
    decode_frames,
    encode_picture,
    encode_prompt,
    find_base,
    load_base,
    load_vae,
)
from flash_pack.flash_modules.backends.diffusers.sd15.load.single_file import SD15
from flash_pack.flash_modules.flash.decoder_file import SIGNATURE
from flash_pack.tests.backends.original_names import as_conv, checkpoint, vae_name
from flash_pack.tests.backends.small_models import SD15_WIDTHS, small_text_encoder, small_unet, small_vae


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return checkpoint(small_unet(widths=SD15_WIDTHS), small_vae(), small_text_encoder())


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return load_base(find_base(base_folder))


def assert_same_weights(model: nn.Module, expected: nn.Module) -> None:
    weights = expected.state_dict()
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert not model.training


def test_folder_gives_its_models(base: Base) -> None:
    assert_same_weights(base.unet, small_unet())
    assert_same_weights(base.vae, small_vae())
    assert_same_weights(base.text_encoder, small_text_encoder())


def test_folder_with_the_fp16_variant_alone(base_folder: Path, tmp_path: Path) -> None:
    for part, model in (("unet", small_unet()), ("vae", small_vae()), ("text_encoder", small_text_encoder())):
        model.half().save_pretrained(tmp_path / part, variant="fp16")
    shutil.copytree(base_folder / "tokenizer", tmp_path / "tokenizer")
    base = load_base(find_base(tmp_path))
    assert base.unet.dtype == base.vae.dtype == base.text_encoder.dtype == torch.float32
    assert_same_weights(base.unet, small_unet().half().float())


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_single_file_gives_its_models(
    original: dict[str, Tensor], tokenizer_folder: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": original, "global_step": 1}, path)
    else:
        save_file(original, path)
    base = load_base(find_base(path, tokenizer_folder))
    assert_same_weights(base.unet, small_unet(widths=SD15_WIDTHS))
    assert_same_weights(base.vae, small_vae())
    assert_same_weights(base.text_encoder, small_text_encoder())
    assert base.unet.config.attention_head_dim == 8


def test_single_file_without_text_model_in_its_names(
    original: dict[str, Tensor], tokenizer_folder: Path, tmp_path: Path
) -> None:
    renamed = {name.replace(".text_model.", "."): tensor for name, tensor in original.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    base = load_base(find_base(tmp_path / "model.safetensors", tokenizer_folder))
    assert_same_weights(base.text_encoder, small_text_encoder())


def test_what_a_folders_unet_predicts(base_folder: Path, tmp_path: Path) -> None:
    assert load_base(find_base(base_folder)).prediction == "epsilon"
    shutil.copytree(base_folder, tmp_path / "base")
    change_config(tmp_path / "base", "scheduler", prediction_type="v_prediction")
    assert load_base(find_base(tmp_path / "base")).prediction == "v_prediction"
    change_config(tmp_path / "base", "scheduler", prediction_type="epsilon")
    assert load_base(find_base(tmp_path / "base")).prediction == "epsilon"
    (tmp_path / "base" / "scheduler" / "scheduler_config.json").unlink()
    assert load_base(find_base(tmp_path / "base")).prediction == "epsilon"


def test_what_a_single_files_unet_predicts(
    original: dict[str, Tensor], tokenizer_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    for tensors, header, prediction in (
        (original, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        (original, {"modelspec.prediction_type": "v"}, "v_prediction"),
        ({**original, "v_pred": torch.zeros(0)}, {}, "v_prediction"),
    ):
        save_file(tensors, path, header)
        assert load_base(find_base(path, tokenizer_folder)).prediction == prediction


def test_shipped_configs_are_those_of_stable_diffusion_15() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SD15 / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SD15 / "vae"))
        text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(SD15 / "text_encoder"))
    sizes = [sum(weight.numel() for weight in model.parameters()) for model in (unet, vae, text_encoder)]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    assert vae.config.scaling_factor == 0.18215


def test_vae_factor_is_read_without_weights(
    base_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").touch()
    assert find_base(tmp_path / "model.safetensors", tokenizer_folder).vae_factor == 8
    config = json.loads((base_folder / "vae" / "config.json").read_text())
    assert find_base(base_folder).vae_factor == 2 ** (len(config["block_out_channels"]) - 1)


def test_prompt_is_padded_with_its_end_as_in_comfyui(base: Base) -> None:
    start, end = base.tokenizer.bos_token_id, base.tokenizer.eos_token_id
    letters = [base.tokenizer.convert_tokens_to_ids(token) for token in ("a</w>", "b</w>")]
    tokens_1M = torch.tensor([[start, *letters, *[end] * 74]])
    with torch.inference_mode():
        expected = base.text_encoder(tokens_1M).last_hidden_state
    assert torch.equal(encode_prompt(base, "A  b"), expected)


def test_prompt_that_is_too_long_is_refused(base: Base) -> None:
    assert encode_prompt(base, "a " * 75).shape == (1, 77, 48)
    with pytest.raises(ValueError, match=r"The prompt has 76 tokens, and Stable Diffusion 1\.5 reads 75"):
        encode_prompt(base, "a " * 76)


def test_picture_becomes_the_mean_of_the_posterior(base: Base) -> None:
    image_1HWC = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    latent_1CHW = encode_picture(base.vae, image_1HWC)
    pixels_1CHW = rearrange(image_1HWC, "b h w c -> b c h w") * 2 - 1
    with torch.inference_mode():
        mean_1CHW = base.vae.quant_conv(base.vae.encoder(pixels_1CHW))[:, :4]
    assert latent_1CHW.shape == (1, 4, 4, 6)
    assert torch.allclose(latent_1CHW, mean_1CHW * base.vae.config.scaling_factor)


def test_frames_are_decoded_one_by_one(base: Base) -> None:
    latents_FCHW = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pixels_FCHW = base.vae.decode(latents_FCHW / base.vae.config.scaling_factor).sample
    expected = (rearrange(pixels_FCHW, "f c h w -> f h w c") / 2 + 0.5).clamp(0, 1)
    frames = decode_frames(base.vae, latents_FCHW)
    assert torch.allclose(next(frames), expected[0], atol=1e-5)
    assert torch.allclose(torch.stack(list(frames)), expected[1:], atol=1e-5)


def change_config(folder: Path, part: str, **changes: object) -> None:
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"addition_embed_type": "text_time"}, "is Stable Diffusion XL"),
        ("unet", {"use_linear_projection": True}, "is Stable Diffusion 2"),
        ("unet", {"_class_name": "UNet3DConditionModel"}, "has a UNet3DConditionModel"),
        ("unet", {"in_channels": 9}, "has a U-Net with 9 input channels, as for inpainting"),
        ("unet", {"cross_attention_dim": 1024}, "has a U-Net for another text encoder"),
        ("scheduler", {"prediction_type": "sample"}, "has a U-Net that predicts 'sample', and not the noise"),
    ],
)
def test_folders_of_other_models_are_refused(
    base_folder: Path, tmp_path: Path, part: str, changes: dict[str, object], message: str
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(base_folder, folder)
    change_config(folder, part, **changes)
    with pytest.raises(ValueError, match=rf"^other {message}.*\. FLASH and AnimateDiff work on .* 1\.5"):
        find_base(folder)


def test_folders_that_lack_a_part_are_refused(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no config\.json in unet, vae, text_encoder"):
        find_base(tmp_path)
    shutil.copytree(base_folder, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "tokenizer")
    with pytest.raises(ValueError, match=r"There is no tokenizer in .*tokenizer: the folder must hold vocab"):
        find_base(tmp_path / "base")


@pytest.mark.parametrize(
    ("part", "file"),
    [("unet", "diffusion_pytorch_model.safetensors"), ("text_encoder", "model.safetensors")],
)
def test_folder_with_damaged_weights_is_refused(
    base_folder: Path, tmp_path: Path, part: str, file: str
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base_folder, folder)
    weights = load_file(folder / part / file)
    dropped = sorted(weights)[-1]
    save_file({n: t for n, t in weights.items() if n != dropped}, folder / part / file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"The weights in .*{part} lack .*{dropped.split('.')[-2]}"):
        load_base(find_base(folder))
    (folder / part / file).write_bytes((folder / part / file).read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"The weights in .*{part} cannot be read"):
        load_base(find_base(folder))
    (folder / part / file).unlink()
    with pytest.raises(ValueError, match=rf"The weights in .*{part} cannot be read"):
        load_base(find_base(folder))


def test_missing_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no base model at .*missing"):
        find_base(tmp_path / "missing")


def test_single_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"holds no tokenizer: give one's folder with --tokenizer"):
        find_base(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"There is no tokenizer in"):
        find_base(tmp_path / "model.safetensors", tmp_path)


def test_tokenizer_of_another_model_is_refused(base_folder: Path, tmp_path: Path) -> None:
    vocabulary = json.loads((base_folder / "tokenizer" / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "more</w>": len(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match=r"has 55 tokens and the base model 54: it belongs to another model"):
        load_base(find_base(base_folder, tmp_path))


def without(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: t for name, t in tensors.items() if not name.startswith(prefix)}


def with_one(name: str, *shape: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {**tensors, name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_one("conditioner.embedders.0.x", 1), r"is Stable Diffusion XL\. FLASH and AnimateDiff work on"),
        (with_one("cond_stage_model.model.x", 1), "is Stable Diffusion 2"),
        (with_one("model.diffusion_model.joint_blocks.0.x", 1), "is Stable Diffusion 3"),
        (with_one("model.diffusion_model.double_blocks.0.x", 1), "is Flux"),
        (with_one("control_model.x", 1), "is a ControlNet"),
        (with_one("lora_unet_x", 1), "is a LoRA"),
        (with_one("model.diffusion_model.input_blocks.0.0.weight", 32, 9, 3, 3), "9 input channels, not 4"),
        (without("model.diffusion_model."), "holds no U-Net"),
        (without("first_stage_model."), "holds no VAE"),
        (without("cond_stage_model."), "holds no text encoder"),
        (without("model.diffusion_model.out.2"), r"is incomplete: it lacks conv_out"),
        (
            without("model.diffusion_model.input_blocks.4"),
            "is incomplete: it lacks model.diffusion_model.input_",
        ),
        (without("first_stage_model.decoder.conv_out"), r"it lacks decoder\.conv_out"),
        (
            with_one("model.diffusion_model.out.2.weight", 4, 8, 3, 3),
            r"it lacks conv_out\.weight, or that does",
        ),
        (without("cond_stage_model.transformer.text_model.final"), r"it lacks final_layer_norm\.weight"),
    ],
)
def test_other_single_files_are_refused(
    original: dict[str, Tensor],
    tokenizer_folder: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    save_file(change(original), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=rf"other\.safetensors .*{message}"):
        load_base(find_base(tmp_path / "other.safetensors", tokenizer_folder))


def test_vaes_are_read_from_every_kind_of_place(base_folder: Path, tmp_path: Path) -> None:
    names = {vae_name(n): as_conv(n, t).clone() for n, t in small_vae().state_dict().items()}
    save_file(names, tmp_path / "vae.safetensors")
    save_file({f"first_stage_model.{name}": t for name, t in names.items()}, tmp_path / "model.safetensors")
    wanted = small_vae().state_dict()
    for place in (
        base_folder,
        base_folder / "vae",
        tmp_path / "vae.safetensors",
        tmp_path / "model.safetensors",
    ):
        found = load_vae(place).state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in SIGNATURE)
