"""A small VAE and a small UMT5 of Wan 2.2, with random weights, as ComfyUI's own loaders would give them."""

import io
from types import SimpleNamespace

import comfy.ldm.wan.vae2_2
import comfy.sd
import sentencepiece
import torch
from comfy.text_encoders.wan import WanT5Tokenizer, te
from torch import Tensor

CHANNELS, TEXT_WIDTH = 48, 4096
"""Of latents, and of UMT5-XXL's texts, which the small one is as wide as."""


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that neither explode nor die out."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            matrix = 1.5 * noise / weight[0].numel() ** 0.5 if weight.ndim > 1 else None
            weight.copy_(0.3 * noise + float(name.endswith("weight")) if matrix is None else matrix)
    return module.eval().requires_grad_(False)


def small_vae() -> comfy.sd.VAE:
    """Narrower than ComfyUI takes every VAE of Wan 2.2 for."""
    whole = comfy.ldm.wan.vae2_2.WanVAE

    class Narrow(whole):
        def __init__(self, **config):
            super().__init__(**{**config, "dim": 8, "dec_dim": 8, "num_res_blocks": 1})

    layout = {"z_dim": CHANNELS, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
    try:
        comfy.ldm.wan.vae2_2.WanVAE = Narrow
        with torch.inference_mode(False):
            weights = randomise(Narrow(**layout, attn_scales=[]), 5).state_dict()
        return comfy.sd.VAE(sd={name: w.clone() for name, w in weights.items()}, dtype=torch.float32)
    finally:
        comfy.ldm.wan.vae2_2.WanVAE = whole


def small_clip() -> comfy.sd.CLIP:
    """A UMT5 of two layers, and a tokenizer of a few words."""
    target = SimpleNamespace(params={}, clip=te(), tokenizer=WanT5Tokenizer)
    small = {"vocab_size": 64, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "d_model": TEXT_WIDTH}
    clip = comfy.sd.CLIP(
        target,
        model_options={"umt5xxl_model_config": small, "dtype": torch.float32},
        tokenizer_data={"spiece_model": _tokenizer_model()},
    )
    randomise(clip.cond_stage_model.umt5xxl.transformer, 9)
    return clip


def _tokenizer_model() -> Tensor:
    """A SentencePiece model, as a CLIP file holds it."""
    words = [
        "a person is jumping over a beam",
        "chopping wood in a garden",
        "soccer, arm wave!",
        "(very:1.2)",
    ]
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 8),
        model_writer=file,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
