"""Actions that miss something of what was trained, and strengths that are no numbers, are refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.animatediff.motion_file import MotionWeights, motion_weights
from flash_pack.flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_pack.flash_modules.flash.action_file import Action, Source, plan_action, read_action, write_action
from flash_pack.flash_modules.flash.decoder_file import read_detail_decoder
from flash_pack.flash_modules.flash.detail_decoder import DetailDecoder, DetailDecoderConfig
from flash_pack.flash_modules.flash.distortion import DistortionConfig
from flash_pack.flash_modules.flash.training.latent_pool import PoolConfig

KV = [f"lora_unet_mid_block_attentions_0_attn{i}_to_{letter}" for i in (1, 2) for letter in "kv"]
PLACE = (
    "down_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_k.weight"
)


@pytest.fixture(scope="module")
def module(motion_tensors) -> MotionWeights:
    return motion_weights(motion_tensors(32, dtype=torch.float16), "v3_sd15_mm.ckpt")


@pytest.fixture
def action(module: MotionWeights) -> Action:
    return Action(
        name="wave",
        kind="compact",
        motion={name: t * 1.1 for name, t in module.tensors.items() if ".attention_blocks." in name},
        kv_diffs={name: torch.ones(7, 5) for name in KV},
        base=Source(name="base", sha256=""),
        motion_module=Source(name=module.name, sha256=module.sha256, version=module.version),
        frames=16,
        header={"flash.trainable": '"attention"'},
    )


@pytest.fixture
def rewritten(tmp_path: Path, module: MotionWeights, action: Action) -> Callable[..., Path]:
    def write(keep: Callable[[str], bool]) -> Path:
        path = tmp_path / "wave.safetensors"
        write_action(path, action, module.config)
        tensors, metadata = read_tensors(path)
        write_tensors(path, {name: t for name, t in tensors.items() if keep(name)}, metadata)
        return path

    return write


@pytest.mark.parametrize("missing", [PLACE, f"{KV[0]}.diff", f"{KV[3]}.diff"])
def test_a_compact_action_that_misses_a_tensor_is_refused_when_it_is_read(rewritten, missing: str) -> None:
    with pytest.raises(
        ValueError, match=r"'wave' is incomplete: 1 of its tensors are missing \(.*\)\. Download"
    ):
        read_action(rewritten(lambda name: name != missing))


@pytest.mark.parametrize("mark", ["down_blocks.1.motion_modules.0", ".to_out.0.bias", "up_blocks", "attn2"])
def test_a_compact_action_that_misses_all_of_a_kind_is_refused_with_its_module(
    rewritten, module: MotionWeights, action: Action, mark: str
) -> None:
    found = read_action(rewritten(lambda name: mark not in name))
    with pytest.raises(ValueError, match=r"'wave' is incomplete: .* of its tensors are missing"):
        plan_action(found, 1.0, motion=module, keys_values=lambda: action.kv_diffs)


def test_a_whole_action_is_planned(rewritten, module: MotionWeights, action: Action) -> None:
    found = read_action(rewritten(lambda name: True))
    assert plan_action(found, 1.0, motion=module, keys_values=lambda: action.kv_diffs).kv_diffs
    other = dataclasses.replace(found, header={})  # a file that does not say what was trained
    assert plan_action(other, 1.0, motion=module, keys_values=lambda: action.kv_diffs).kv_diffs


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), float("-inf")])
def test_a_strength_that_is_no_number_is_refused(
    module: MotionWeights, action: Action, strength: float
) -> None:
    for given in (action, None):
        with pytest.raises(ValueError, match="The action's strength must be a number, but it is"):
            plan_action(given, strength, motion=module, keys_values=lambda: action.kv_diffs)
    decoder = DetailDecoder(DetailDecoderConfig(channels=(8,), width=4))
    with pytest.raises(ValueError, match="The strength of details must be a number, but it is"):
        decoder.enhance(0, torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 4, 4), strength)


@pytest.mark.parametrize("name", ["colour", "hue", "elastic_sigma"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_strength_of_distortion_that_is_no_number_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a number from 0 on"):
        DistortionConfig(**{name: value})
    with pytest.raises(ValueError, match="`elastic` must be two rising numbers"):
        DistortionConfig(elastic=(0.0, float("inf")))
    with pytest.raises(ValueError, match="`memory_gib` must be 0 or more"):
        PoolConfig(memory_gib=float("nan"))


@pytest.mark.parametrize(
    "layout",
    [
        *(
            '{"channels": [8.5], "width": 4}',
            '{"channels": [8], "width": true}',
            '{"channels": "88"}',
            "[1]",
            "5",
        ),
        *(
            '{"channels": [8], "warping": "no"}',
            '{"channels": []}',
            "[" * 10**5,
            '{"channels": [[8]]}',
            "null",
        ),
    ],
)
def test_an_odd_layout_of_a_detail_decoder_is_refused(tmp_path: Path, layout: str) -> None:
    header = {
        "flash.kind": "decoder",
        "flash.format": "1",
        "flash.decoder": layout,
        "flash.vae": '{"name": "x"}',
    }
    write_tensors(tmp_path / "details.safetensors", {"a": torch.ones(1)}, header)
    with pytest.raises(ValueError, match=r"details.safetensors has a damaged header \("):
        read_detail_decoder(tmp_path / "details.safetensors")


@pytest.mark.parametrize("key", ["base", "motion_module", "prompts", "frames"])
@pytest.mark.parametrize("value", ["[" * 10**5, "9" * 5000, "null", "true", "\ud800"])
def test_odd_entries_of_an_actions_header_are_refused(
    tmp_path: Path, rewritten, key: str, value: str
) -> None:
    path = rewritten(lambda name: True)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {**metadata, f"flash.{key}": value.encode("utf-8", "replace").decode()})
    with pytest.raises(ValueError, match=r"wave.safetensors has a damaged header \("):
        read_action(path)
