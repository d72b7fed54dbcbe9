"""CLIP, which sees what a frame shows and how well it fits a text."""

from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ...files.json_file import read_json
from ...files.tensor_file import read_tensors, short
from .preprocess import OPENAI, filled_square, normalised
from .weights import fill

_BATCH = 16
_LARGE = (1024, 24, 14)
_TOKENIZER_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class ClipJudge:
    """CLIP from a folder in transformers' layout."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Raises ValueError if something of it is missing or damaged."""
        settings = read_json(folder / "config.json")
        if settings.get("model_type") != "clip":
            raise ValueError(f"{folder} holds no CLIP, as its config.json tells: give another folder.")
        self._model = _read_model(folder, settings).to(device)
        self._tokenizer = _read_tokenizer(folder)
        self._device = device
        vision = self._model.config.vision_config
        size = (vision.hidden_size, vision.num_hidden_layers, vision.patch_size)
        self.name = "CLIP ViT-L/14" if size == _LARGE else "CLIP {}x{}, patch {}".format(*size)
        """CLIP ViT-L/14, which the paper has, or what it is: width, depth, and pixels of a patch."""
        self._side: int = vision.image_size

    @torch.inference_mode()
    def frame_features(self, video_FHWC: Tensor) -> Tensor:
        """Features (F, C) of frames, of length 1."""
        parts = []
        for frames_FHWC in torch.split(video_FHWC, _BATCH):
            seen_FCHW = normalised(filled_square(frames_FHWC, self._side), OPENAI)
            output = self._model.vision_model(pixel_values=seen_FCHW.to(self._device))
            parts.append(self._model.visual_projection(output.pooler_output))
        return nnf.normalize(torch.cat(parts).cpu(), dim=-1)

    @torch.inference_mode()
    def text_features(self, text: str) -> Tensor:
        """Features (1, C) of a text, of length 1; what is beyond CLIP's 77 tokens is not read."""
        longest = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
        output = self._model.text_model(input_ids=tokens.input_ids.to(self._device))
        return nnf.normalize(self._model.text_projection(output.pooler_output).cpu(), dim=-1)


def text_alignment(frames_FC: Tensor, text_1C: Tensor) -> float:
    """Mean cosine of frames and text, in percent. FLASH (arXiv:2503.00276), A3.3 (1). Higher is better."""
    return 100 * (frames_FC @ text_1C.T).mean().item()


def image_alignment(frames_FC: Tensor, picture_1C: Tensor) -> float:
    """Mean cosine of frames and the reference picture, in percent. FLASH, A3.3 (2). A still one has 100."""
    return 100 * (frames_FC @ picture_1C.T).mean().item()


def temporal_consistency(frames_FC: Tensor) -> float:
    """Mean cosine of consecutive frames, in percent. FLASH, A3.3 (3). A still picture has 100."""
    return 100 * (frames_FC[1:] * frames_FC[:-1]).sum(dim=-1).mean().item()


def _read_model(folder: Path, settings: dict[str, object]) -> CLIPModel:
    names = ("model.safetensors", "pytorch_model.bin")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    tensors, _ = read_tensors(path)
    model = CLIPModel(CLIPConfig.from_dict(settings))
    fill(model, tensors, path)
    return model


def _read_tokenizer(folder: Path) -> CLIPTokenizer:
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except _TOKENIZER_DAMAGE as error:
        raise ValueError(
            f"The tokenizer in {folder} cannot be read ({short(error)}): put back its vocab.json and "
            "merges.txt."
        ) from error
