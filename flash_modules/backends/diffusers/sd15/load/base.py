"""Stable Diffusion 1.5 from a folder in diffusers' layout or one checkpoint file. Nothing is fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from .....animatediff.noise_schedule import PREDICTIONS, Prediction
from .....files.json_file import read_json
from .....files.tensor_file import short
from .fill import read_text_encoder, read_unet_or_vae
from .single_file import NEEDED, SD15, Parts, read_checkpoint, read_vae
from .trial import read_tokenizer, try_unet, try_vae

_PARTS = ("unet", "vae", "text_encoder")


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model, in fp32 on the CPU."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    prediction: Prediction
    """What the U-Net predicts."""
    note: str = ""
    """Which of several weights in the file were taken, if there were several."""

    @property
    def vae_factor(self) -> int:
        """Pixels of a picture for one pixel of its latent, in each direction."""
        return _factor(self.vae.config)


def _factor(vae_config: Mapping) -> int:
    levels = vae_config.get("block_out_channels")
    if not isinstance(levels, Sequence) or not 1 <= len(levels) <= 8:
        raise ValueError(f"The VAE's `block_out_channels` are {short(levels)}, and not its levels' widths.")
    return 2 ** (len(levels) - 1)


@dataclass(frozen=True)
class BaseFiles:
    """Where a base model lies. The place was looked at; no weights were read."""

    path: Path
    tokenizer: Path

    @property
    def vae_factor(self) -> int:
        """Pixels of a picture for one pixel of its latent, in each direction."""
        folder = self.path if self.path.is_dir() else SD15
        return _factor(_config(folder / "vae"))


def find_base(path: Path, tokenizer: Path | None = None) -> BaseFiles:
    """A base model's files. Raises ValueError if a part is missing or it is not Stable Diffusion 1.5."""
    if path.is_dir():
        _check_folder(path)
        tokenizer = tokenizer or path / "tokenizer"
    elif not path.is_file():
        raise ValueError(
            f"There is no base model at {path}: give a folder in diffusers' layout, or a checkpoint file."
        )
    elif tokenizer is None:
        raise ValueError(
            f"{path.name} is a single file, which holds no tokenizer: give one's folder with --tokenizer, "
            "for example comfy/sd1_tokenizer of ComfyUI, or `tokenizer` of any Stable Diffusion 1.5 folder."
        )
    if not any((tokenizer / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise ValueError(
            f"There is no tokenizer in {tokenizer}: the folder must hold vocab.json and merges.txt."
        )
    return BaseFiles(path, tokenizer)


def _check_folder(folder: Path) -> None:
    missing = [part for part in _PARTS if not (folder / part / "config.json").is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not a model in diffusers' layout: there is no config.json in {', '.join(missing)}. "
            "Give the folder that holds unet, vae, text_encoder and tokenizer, or a checkpoint file."
        )
    if found := _other_model(folder):
        raise ValueError(f"{folder.name} {found}. {NEEDED}")


def _other_model(folder: Path) -> str | None:
    """What makes it another model than Stable Diffusion 1.5."""
    unet = _config(folder / "unet")
    found = None
    if unet.get("addition_embed_type") is not None or (folder / "text_encoder_2").is_dir():
        found = "is Stable Diffusion XL"
    elif unet.get("use_linear_projection"):
        found = "is Stable Diffusion 2"
    elif unet.get("_class_name") != "UNet2DConditionModel":
        found = f"has a {short(unet.get('_class_name'))}"
    elif unet.get("in_channels") != 4:
        found = f"has a U-Net with {short(unet.get('in_channels'))} input channels, as for inpainting"
    elif _prediction(folder) not in PREDICTIONS:
        found = f"has a U-Net that predicts '{short(_prediction(folder))}', and not the noise or the velocity"
    elif _config(folder / "text_encoder").get("hidden_size") != unet.get("cross_attention_dim"):
        found = "has a U-Net for another text encoder"
    return found


def _config(folder: Path, name: str = "config") -> dict:
    return read_json(folder / f"{name}.json")


def _prediction(folder: Path) -> Prediction:
    """What the U-Net predicts, by the scheduler's config: the noise, if there is none or it says nothing."""
    scheduler = folder / "scheduler"
    known = (scheduler / "scheduler_config.json").is_file()
    return _config(scheduler, "scheduler_config").get("prediction_type", "epsilon") if known else "epsilon"


def load_base(files: BaseFiles) -> Base:
    """Read a base model. Raises ValueError if it is damaged, incomplete or of another kind.

    It is tried on the smallest picture: settings and weights that nobody can run are found here.
    """
    note = ""
    if files.path.is_dir():
        unet, vae, text_encoder, prediction = _read_folder(files.path)
    else:
        (unet, vae, text_encoder, prediction), note = read_checkpoint(files.path)
    tokenizer = read_tokenizer(files.tokenizer, text_encoder.config.vocab_size)
    for model in (unet, vae, text_encoder):
        model.eval().requires_grad_(False)
    try_vae(vae, files.path)
    try_unet(unet, text_encoder, files.path)
    return Base(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        prediction=prediction,
        note=note,
    )


def load_vae(path: Path) -> AutoencoderKL:
    """The VAE of a base model, or one by itself: a folder in diffusers' layout, or a file.

    Raises ValueError if it is another kind of VAE, or damaged.
    """
    if not path.is_file():
        vae = _read_vae_folder(path)
    elif (path.parent / "config.json").is_file():  # a file of such a folder, which says how it is built
        vae = _read_vae_folder(path.parent, path)
    else:
        vae = read_vae(path)
    vae.eval().requires_grad_(False)
    try_vae(vae, path)
    return vae


def _read_vae_folder(path: Path, file: Path | None = None) -> AutoencoderKL:
    folder = path / "vae" if (path / "vae").is_dir() else path
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"There is no VAE at {path}: give a folder in diffusers' layout, or a checkpoint or VAE file."
        )
    kind, channels = (_config(folder).get(key) for key in ("_class_name", "latent_channels"))
    if kind != "AutoencoderKL" or channels != 4:
        raise ValueError(
            f"{folder} holds a {short(kind)} with {short(channels)} latent channels, and not the "
            "AutoencoderKL of Stable Diffusion 1.5: give that one's folder."
        )
    return read_unet_or_vae(folder, AutoencoderKL, file)


def _read_folder(folder: Path) -> Parts:
    return (
        read_unet_or_vae(folder / "unet", UNet2DConditionModel),
        read_unet_or_vae(folder / "vae", AutoencoderKL),
        read_text_encoder(folder / "text_encoder"),
        _prediction(folder),
    )
