"""A small CogVideoX I2V with random weights, its files, and what FlexiAct's files hold for it."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from torch import Tensor
from transformers import T5Config, T5EncoderModel
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

from flash_pack.flash_modules.flexiact.action_file import TransferAction
from flash_pack.flash_modules.flexiact.ref_adapter_file import PARTS, LowRank, RefAdapter
from flash_pack.tests.backends.small_models import randomise

LAYERS, HEADS, D = 3, 3, 16
WIDTH = HEADS * D
TEXT, TEXT_WIDTH = 10, 32
FRAMES, LATENT_FRAMES, HEIGHT, WIDTH_LATENT = 9, 3, 8, 12
TOKENS, RANK = 7, 4
PROMPT = "a dog jumps"


def small_transformer(seed: int = 0, **changes: object) -> CogVideoXTransformer3DModel:
    """Like CogVideoX-5b-I2V: learned and rotary positions, and learned rows for text that are not zero."""
    transformer = CogVideoXTransformer3DModel(
        **{
            "num_attention_heads": HEADS,
            "attention_head_dim": D,
            "in_channels": 32,
            "out_channels": 16,
            "time_embed_dim": 20,
            "text_embed_dim": TEXT_WIDTH,
            "num_layers": LAYERS,
            "sample_width": WIDTH_LATENT,
            "sample_height": HEIGHT,
            "sample_frames": FRAMES,
            "max_text_seq_length": TEXT,
            "use_rotary_positional_embeddings": True,
            "use_learned_positional_embeddings": True,
            **changes,
        }
    )
    randomise(transformer, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    positions = transformer.patch_embed.pos_embedding
    positions.copy_(torch.randn(positions.shape, generator=generator))
    return transformer


def small_vae(seed: int = 3) -> AutoencoderKLCogVideoX:
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=4,
        sample_height=16 * HEIGHT,  # tiles are half of that: seams at this size would not meet
        sample_width=16 * WIDTH_LATENT,
        scaling_factor=0.7,
    )
    return randomise(vae, seed)


def small_action(
    seed: int = 5, name: str = "crouch", shape: tuple[int, ...] = (LAYERS, TOKENS, WIDTH)
) -> TransferAction:
    generator = torch.Generator().manual_seed(seed)
    return TransferAction(name=name, tokens_LMC=torch.randn(shape, generator=generator))


def small_adapter(seed: int = 6) -> RefAdapter:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.15

    parts = {
        (layer, part): LowRank(down_RC=draw(RANK, WIDTH), up_CR=draw(WIDTH, RANK), alpha=2.0)
        for layer in range(LAYERS)
        for part in PARTS
    }
    return RefAdapter(name="adapter", parts=parts)


def save_base(folder: Path, **changes: object) -> Path:
    """A whole base model in diffusers' layout."""
    small_transformer(**changes).save_pretrained(folder / "transformer", max_shard_size="100KB")
    small_vae().save_pretrained(folder / "vae")
    CogVideoXDPMScheduler().save_pretrained(folder / "scheduler")
    config = T5Config(
        vocab_size=40,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    randomise(T5EncoderModel(config), 7).save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    return folder


def save_tokenizer(folder: Path) -> None:
    """A SentencePiece file as T5 has it: the words of the prompts here, and single letters."""
    folder.mkdir()
    content = sentencepiece.ModelProto()
    words = ["▁", "▁a", "▁dog", "▁jumps", *"abcdefghijklmnopqrstuvwxyz"]
    for word, score, kind in [
        ("<pad>", 0, 3),
        ("</s>", 0, 3),
        ("<unk>", 0, 2),
        *((word, -float(i), 1) for i, word in enumerate(words)),
    ]:
        content.pieces.add(piece=word, score=score, type=kind)
    content.trainer_spec.unk_id = 2
    (folder / "spiece.model").write_bytes(content.SerializeToString())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
