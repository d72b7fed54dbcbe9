"""VideoMAE v2, whose features know motion: the network of CD-FVD (arXiv:2404.12391)."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as nnf
from einops import rearrange
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from ...files.tensor_file import read_tensors
from .preprocess import evenly
from .weights import fill, unwrapped

_NAMES = {
    "patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "fc_norm": "fc_norm",
    "head": "classifier",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""Names of the published files, and of transformers."""
_LAYER = "videomae.encoder.layer."
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_GIANT = (1408, 40, 14, 174)
_HEAD_WIDTH = 88
"""Channels of a head of ViT-g (1408 / 16); the other published sizes have 64."""


class VideoMaeJudge:
    """A VideoMAE that was fine-tuned to tell actions, from a file of VideoMAE's own repositories."""

    side = 224

    def __init__(self, path: Path, device: torch.device) -> None:
        """Raises ValueError if the file holds no such network."""
        tensors = renamed(unwrapped(read_tensors(path)[0], "patch_embed.proj.weight"))
        config = _config(tensors, path)
        with torch.device("meta"):  # ViT-g has 4 GB
            self._model = VideoMAEForVideoClassification(config)
        fill(self._model, tensors, path)
        self._model.to(device)
        self._device, self._num_frames = device, config.num_frames
        found = (config.hidden_size, config.num_hidden_layers, config.patch_size, config.num_labels)
        self.is_cd_fvd = found == _GIANT
        """Whether it is the ViT-g of CD-FVD: 174 classes are those of Something-Something v2."""
        self.name = "VideoMAE {}x{}, patch {}, {} classes".format(*found)

    @torch.inference_mode()
    def features(self, video_FHWC: Tensor) -> Tensor:
        """Features (C) of a video: 16 frames from its first to its last, the mean over tokens, normed.

        As the published CD-FVD does: 224 x 224 pixels whatever the shape, linear without antialiasing, values
        from 0 to 1 as they are.
        """
        frames_FHWC = video_FHWC[evenly(len(video_FHWC), self._num_frames)]
        seen_FCHW = nnf.interpolate(
            rearrange(frames_FHWC, "f h w c -> f c h w"), size=(self.side, self.side), mode="bilinear"
        )
        output = self._model.videomae(rearrange(seen_FCHW, "f c h w -> 1 f c h w").to(self._device))
        features_C: Tensor = self._model.fc_norm(output.last_hidden_state.mean(dim=1))[0].cpu()
        return features_C


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under transformers' names; one matrix of queries, keys and values becomes three."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        prefix, part = (f"{_LAYER}{block[1]}.", block[2]) if block else ("", name)
        attention = f"{prefix}attention.attention."
        if part == "attn.qkv.weight":
            for kind, weight in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{attention}{kind}.weight"] = weight
        elif part in ("attn.q_bias", "attn.v_bias"):
            found[f"{attention}{'query' if part == 'attn.q_bias' else 'value'}.bias"] = tensor
        else:
            stem, _, kind = part.rpartition(".")
            found[f"{prefix}{_NAMES.get(stem, stem)}.{kind}"] = tensor
    return found


def _config(tensors: Mapping[str, Tensor], path: Path) -> VideoMAEConfig:
    """The network's sizes, as its weights tell them."""
    patch = tensors.get("videomae.embeddings.patch_embeddings.projection.weight")
    inner, head = tensors.get(f"{_LAYER}0.intermediate.dense.weight"), tensors.get("classifier.weight")
    if patch is None or patch.ndim != 5 or inner is None or head is None:
        raise ValueError(
            f"{path.name} holds no VideoMAE that tells actions (it has no patches, layers or classes): give "
            "the file of a fine-tuned one, vit_g_hybrid_pt_1200e_ssv2_ft.pth for CD-FVD."
        )
    width = patch.shape[0]
    depth = len({name.split(".")[3] for name in tensors if name.startswith(_LAYER)})
    return VideoMAEConfig(
        image_size=VideoMaeJudge.side,
        patch_size=patch.shape[-1],
        tubelet_size=patch.shape[2],
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=max(1, width // (_HEAD_WIDTH if width % _HEAD_WIDTH == 0 else 64)),
        intermediate_size=inner.shape[0],
        layer_norm_eps=1e-6,
        num_labels=head.shape[0],
        use_mean_pooling=True,
    )
