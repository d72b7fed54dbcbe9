"""Judges with random weights, small where their networks allow it, in the files that the real ones have."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from flash_pack.tests.backends.small_models import save_tokenizer, vocabulary


def save_clip(folder: Path) -> Path:
    words = len(vocabulary())
    save_tokenizer(folder)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**layers, "vocab_size": words, "eos_token_id": words - 1, "bos_token_id": words - 2},
        vision_config={**layers, "image_size": 224, "patch_size": 56},
        projection_dim=24,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    return folder


def mae_names(width: int, depth: int, inner: int, patch: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the files of VideoMAE's repositories, written down without our code."""
    names: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, 2, patch, patch),
        "patch_embed.proj.bias": (width,),
        "fc_norm.weight": (width,),
        "fc_norm.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    for i in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.q_bias": (width,),
            "attn.v_bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (inner, width),
            "mlp.fc1.bias": (inner,),
            "mlp.fc2.weight": (width, inner),
            "mlp.fc2.bias": (width,),
        }.items():
            names[f"blocks.{i}.{name}"] = shape
    return names


def save_videomae(path: Path) -> dict[str, Tensor]:
    """A file of two layers and three heads; its weights, such that attention is far from even."""
    torch.manual_seed(0)
    names = mae_names(width=264, depth=2, inner=96, patch=56, classes=7)
    weights = {name: 0.1 * torch.randn(shape) for name, shape in names.items()}
    for name in names:
        if "norm" in name and name.endswith("weight"):
            weights[name] += 1
    torch.save({"module": weights}, path)
    return weights
