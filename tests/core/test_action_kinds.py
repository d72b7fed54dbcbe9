"""An action as another kind of file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.animatediff.motion_file import MotionWeights, motion_weights
from flash_pack.flash_modules.flash.action_file import Action, read_action, standalone_motion, write_action
from flash_pack.flash_modules.flash.action_kinds import as_compact, as_standalone
from flash_pack.tests.core.test_action_file import trained_on


@pytest.fixture(scope="module")
def module(motion_tensors) -> MotionWeights:
    return motion_weights(motion_tensors(32, dtype=torch.float16), "mm.ckpt", "v3")


@pytest.fixture
def compact(module: MotionWeights) -> Action:
    action = trained_on(module, "compact")
    return replace(action, header={"flash.trainable": '"attention"', "modelspec.title": "Wave!"})


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_standalone_has_the_module_and_what_was_learned(compact: Action, module: MotionWeights) -> None:
    whole = as_standalone(compact, module)
    assert whole.kind == "standalone"
    assert same(whole.motion, {**module.tensors, **compact.motion})
    assert whole.kv_diffs == compact.kv_diffs
    assert whole.header == compact.header
    assert standalone_motion(whole).version == "v3"


def test_compact_again_is_what_it_was(compact: Action, module: MotionWeights, tmp_path: Path) -> None:
    write_action(tmp_path / "wave.safetensors", as_standalone(compact, module), module.config)
    again = as_compact(read_action(tmp_path / "wave.safetensors"))
    assert again.kind == "compact"
    assert same(again.motion, compact.motion)
    assert same(again.kv_diffs, compact.kv_diffs)
    write_action(tmp_path / "small.safetensors", again, module.config)
    assert same(read_action(tmp_path / "small.safetensors").motion, compact.motion)


def test_where_all_was_trained_all_stays_but_positions(module: MotionWeights, tmp_path: Path) -> None:
    action = trained_on(module, "standalone")
    action = replace(action, header={"flash.trainable": '"motion_module"'})
    write_action(tmp_path / "wave.safetensors", action, module.config)
    read = read_action(tmp_path / "wave.safetensors")
    assert any(name.endswith("pos_encoder.pe") for name in read.motion)
    assert same(as_compact(read).motion, action.motion)


def test_another_motion_module_is_refused(compact: Action, motion_tensors) -> None:
    other = motion_weights(motion_tensors(32, mid=True), "other.ckpt", "v2")
    with pytest.raises(ValueError, match=r"trained on the motion module mm \(v3\), and this one has other"):
        as_standalone(compact, other)


def test_what_does_not_say_what_was_trained_stays_whole(compact: Action, module: MotionWeights) -> None:
    whole = replace(as_standalone(compact, module), header={})
    with pytest.raises(ValueError, match="does not say what was trained, so nothing can be left out"):
        as_compact(whole)
