"""Files of FlexiAct and of CogVideoX: a good one of each, and what reads it."""

from pathlib import Path

import torch

from flash_pack.flash_modules.backends.diffusers.cogvideox import (
    add_transfer,
    encode_picture,
    encode_prompt,
    find_base,
    forward_bytes,
    load_text_encoder,
    load_transformer,
    load_vae,
    read_tokenizer,
)
from flash_pack.flash_modules.flexiact.action_file import read_transfer_action, write_transfer_action
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.ref_adapter_file import read_ref_adapter, write_ref_adapter
from flash_pack.tests.backends.small_cogvideox import (
    PROMPT,
    save_base,
    small_action,
    small_adapter,
    small_transformer,
)
from flash_pack.tests.fuzz.kinds import Kind

_RELEASED_PARTS = {"q": "q", "k": "k", "v": "v", "out": "proj"}


def transfer_kinds(folder: Path) -> list[Kind]:
    """A good file of each kind in the folder, small."""
    base = save_base(folder / "cogvideox")
    _make_files(folder)
    return [
        Kind("transfer action", folder / "crouch.safetensors", _use_action),
        Kind("transfer action .pt", folder / "crouch.pt", _use_action, 0.7),
        Kind("RefAdapter", folder / "adapter.safetensors", _use_adapter),
        Kind("RefAdapter .pt", folder / "adapter.pt", _use_adapter, 0.7),
        Kind("CogVideoX folder", base, _use_base, 2.0),
    ]


def _make_files(folder: Path) -> None:
    action, adapter = small_action(), small_adapter()
    write_transfer_action(folder / "crouch.safetensors", action)
    write_ref_adapter(folder / "adapter.safetensors", adapter)
    start = "transformer_blocks.{}.attn1.processor."
    tokens = enumerate(action.tokens_LMC)
    torch.save(
        {
            start.format(layer) + "motion_inversion_tokens": tokens_MC[None].clone()
            for layer, tokens_MC in tokens
        },
        folder / "crouch.pt",
    )
    released = {}
    for (layer, part), low_rank in adapter.parts.items():
        name = f"{start.format(layer)}lora_{_RELEASED_PARTS[part]}"
        released |= {f"{name}.down.weight": low_rank.down_RC, f"{name}.up.weight": low_rank.up_CR}
    torch.save(released, folder / "adapter.pt")


def _use_action(path: Path) -> None:
    action = read_transfer_action(path)
    assert action.summary
    add_transfer(small_transformer(), [Performance(action=action)])


def _use_adapter(path: Path) -> None:
    adapter = read_ref_adapter(path)
    assert adapter.summary
    add_transfer(small_transformer(), [], adapter)


def _use_base(path: Path) -> None:
    files = find_base(path)
    encoder = load_text_encoder(files, torch.float32)
    tokenizer = read_tokenizer(files.tokenizer, encoder.config.vocab_size)
    encode_prompt(encoder, tokenizer, PROMPT, files.max_text)
    vae = load_vae(files, torch.float32)
    encode_picture(vae, torch.rand(1, files.shape.height, files.shape.width, 3))
    forward_bytes(load_transformer(files, torch.float32))
