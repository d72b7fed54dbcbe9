"""Detail decoder files: written, read back, and refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_pack.flash_modules.flash.decoder_file import (
    SIGNATURE,
    DetailWeights,
    check_vae,
    read_detail_decoder,
    write_detail_decoder,
)
from flash_pack.flash_modules.flash.detail_decoder import DetailDecoder, DetailDecoderConfig

CONFIG = DetailDecoderConfig(channels=(4, 8), width=5)
Rewrite = Callable[..., Path]


@pytest.fixture
def weights() -> DetailWeights:
    torch.manual_seed(0)
    return DetailWeights(
        name="details",
        config=CONFIG,
        tensors=DetailDecoder(CONFIG).state_dict(),
        signature={name: torch.randn(3, 4, 3, 3) for name in SIGNATURE},
        vae_name="vae-ft-mse",
        header={"flash.steps": "10000"},
    )


@pytest.fixture
def path(tmp_path: Path, weights: DetailWeights) -> Path:
    write_detail_decoder(tmp_path / "details.safetensors", weights)
    return tmp_path / "details.safetensors"


@pytest.fixture
def rewritten(path: Path) -> Rewrite:
    """Writes the file again with other entries in its header, or without a tensor."""

    def rewrite(drop: str = "", **entries: str) -> Path:
        tensors, metadata = read_tensors(path)
        metadata |= {f"flash.{key}": value for key, value in entries.items()}
        write_tensors(path, {n: t for n, t in tensors.items() if n != drop}, metadata)
        return path

    return rewrite


def test_a_written_decoder_is_read_back(path: Path, weights: DetailWeights) -> None:
    found = read_detail_decoder(path)
    assert (found.name, found.config, found.vae_name) == ("details", CONFIG, "vae-ft-mse")
    assert dict(found.header) == {"flash.steps": "10000"}
    assert found.summary == "details: 2 levels, warping and attention, for vae-ft-mse"
    for one, other in ((found.tensors, weights.tensors), (found.signature, weights.signature)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    DetailDecoder(found.config).load_state_dict(found.tensors)


def test_the_header_says_what_it_is(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    assert (metadata["flash.kind"], metadata["flash.format"], metadata["format"]) == ("decoder", "1", "pt")
    assert len(json.loads(metadata["flash.vae"])["sha256"]) == 64
    assert {name.split(".")[0] for name in tensors} == {"detail_decoder", "vae"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_its_own_vae_is_known_in_every_number_type(weights: DetailWeights, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in weights.signature.items()}
    check_vae(weights, state | {"decoder.conv_in.weight": torch.zeros(1)})


def test_another_vae_is_refused(weights: DetailWeights) -> None:
    other = {name: tensor * 1.02 for name, tensor in weights.signature.items()}
    for state in (other, {}, {name: torch.zeros(1) for name in SIGNATURE}):
        with pytest.raises(ValueError, match="'details' was trained with another VAE, vae-ft-mse: use that"):
            check_vae(weights, state)


def test_other_files_are_refused(rewritten: Rewrite) -> None:
    with pytest.raises(ValueError, match="is not a FLASH detail decoder"):
        read_detail_decoder(rewritten(kind="compact"))
    with pytest.raises(ValueError, match="of format 2, and this pack reads format 1: update"):
        read_detail_decoder(rewritten(kind="decoder", format="2"))


@pytest.mark.parametrize("entry", ["{", "{}", '{"channels": [4, 8], "depth": 3}', '{"channels": [0]}', "[]"])
def test_a_damaged_header_is_refused(rewritten: Rewrite, entry: str) -> None:
    with pytest.raises(ValueError, match=r"details.safetensors has a damaged header \(.*\): download it"):
        read_detail_decoder(rewritten(decoder=entry))


@pytest.mark.parametrize("entry", ["{", "{}", '{"name": 7}'])
def test_a_damaged_vae_entry_is_refused(rewritten: Rewrite, entry: str) -> None:
    with pytest.raises(ValueError, match=r"has a damaged header"):
        read_detail_decoder(rewritten(vae=entry))


@pytest.mark.parametrize(
    "drop", ["detail_decoder.levels.1.proj.weight", "vae.decoder.conv_out.weight"], ids=["layer", "vae"]
)
def test_missing_tensors_are_named(rewritten: Rewrite, drop: str) -> None:
    with pytest.raises(ValueError, match="is damaged: it does not hold what its header says"):
        read_detail_decoder(rewritten(drop=drop))


def test_broken_numbers_are_refused(path: Path, weights: DetailWeights) -> None:
    weights.tensors["levels.0.proj.bias"][0] = torch.nan
    write_detail_decoder(path, weights)
    with pytest.raises(ValueError, match=r"is broken: detail_decoder.levels.0.proj.bias holds values"):
        read_detail_decoder(path)
