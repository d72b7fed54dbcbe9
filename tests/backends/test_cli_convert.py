"""`python -m flash_modules convert`: released files become ours, and mistakes sentences."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from flash_pack.flash_modules.flexiact.action_file import read_transfer_action
from flash_pack.flash_modules.flexiact.ref_adapter_file import read_ref_adapter
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.small_cogvideox import (
    PROMPT,
    small_action,
    small_adapter,
)


def test_a_released_action_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens_LMC = small_action().tokens_LMC
    torch.save(
        {
            f"transformer_blocks.{i}.attn1.processor.motion_inversion_tokens": t[None]
            for i, t in enumerate(tokens_LMC)
        },
        tmp_path / "crouch.pt",
    )
    (tmp_path / "crouch.mp4").write_bytes(b"a clip")
    said = {"prompt": PROMPT, "steps": 3000, "clip": tmp_path / "crouch.mp4", "licence": "CC0"}
    assert _convert(tmp_path / "crouch.pt", tmp_path / "out.safetensors", **said) == 0
    assert f'crouch: "{PROMPT}" 7 tokens' in capsys.readouterr().err
    found = read_transfer_action(tmp_path / "out.safetensors")
    assert torch.equal(found.tokens_LMC, tokens_LMC)
    assert (found.prompt, found.steps, found.licence) == (PROMPT, 3000, "CC0")
    assert found.clip_sha256 == hashlib.sha256(b"a clip").hexdigest()


def _convert(file: Path, out: Path, **said: object) -> int:
    return run_command("convert", {"out": out, **said}, str(file))


def test_the_released_adapter_becomes_a_lora(tmp_path: Path) -> None:
    adapter = small_adapter()
    names = {"q": "q", "k": "k", "v": "v", "out": "proj"}
    tensors = {}
    for (layer, part), pair in adapter.parts.items():
        start = f"transformer_blocks.{layer}.attn1.processor.lora_{names[part]}"
        tensors |= {f"{start}.down.weight": pair.down_RC, f"{start}.up.weight": pair.up_CR}
    torch.save(tensors, tmp_path / "released.pt")
    assert _convert(tmp_path / "released.pt", tmp_path / "out.safetensors", licence="CC0") == 0
    lora = load_file(tmp_path / "out.safetensors")
    for (layer, part), pair in adapter.parts.items():
        start = f"diffusion_model.blocks.{layer}.{'attn_out' if part == 'out' else part}"
        assert torch.equal(lora[f"{start}.lora_down.weight"], pair.down_RC)
        assert torch.equal(lora[f"{start}.lora_up.weight"], pair.up_CR)
        assert lora[f"{start}.alpha"] == 32
    assert len(lora) == 3 * len(adapter.parts)
    assert read_ref_adapter(tmp_path / "out.safetensors").licence == "CC0"


@pytest.mark.parametrize(
    ("out", "said", "sentence"),
    [
        ("out.pt", {}, "out.pt must end in .safetensors"),
        ("out.safetensors", {"steps": -1}, "--steps must be 0 or more"),
        ("out.safetensors", {"clip": "none.mp4"}, "There is no clip none.mp4"),
        ("out.safetensors", {}, "other.safetensors is not a RefAdapter (it holds a)"),
        ("nowhere/out.safetensors", {}, "There is no folder"),
    ],
)
def test_mistakes_of_convert_are_sentences(
    out: str, said: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert _convert(tmp_path / "other.safetensors", tmp_path / out, **said) == 2
    assert sentence in sentence_of(capsys.readouterr().err)
