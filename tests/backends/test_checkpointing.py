"""What runs again in the backward pass of diffusers' U-Net, to save memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.backends.diffusers.sd15 import find_base, load_base
from flash_pack.flash_modules.backends.diffusers.sd15.train.action import action_training
from flash_pack.flash_modules.backends.diffusers.sd15.train.alignment import add_alignment
from flash_pack.flash_modules.backends.diffusers.sd15.train.trainable import select_trainable
from flash_pack.flash_modules.flash.training.action_training import CHECKPOINTING, ActionTrainingConfig
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.sampling import SamplingConfig
from flash_pack.tests.backends.aligned_models import (
    BOTH,
    aligned,
    animated,
    assert_same,
    inputs,
    learn,
    pair_call,
    unchecked,
)


@pytest.mark.parametrize(("version_1", "after_attention"), [(False, True), (True, False)])
@pytest.mark.parametrize("checkpointing", ["motion", "all"])
def test_checkpointed_gradients_are_the_same(
    checkpointing: str, version_1: bool, after_attention: bool
) -> None:
    config = replace(BOTH, after_attention=after_attention, first_frame_only=after_attention)
    found = learn(aligned(config, checkpointing, version_1=version_1), pair_call([0, 3, 4]))
    assert_same(found, unchecked(config, version_1=version_1))


@pytest.mark.parametrize("checkpointing", ["motion", "all"])
def test_a_call_of_another_kind_before_the_backward_pass_changes_nothing(checkpointing: str) -> None:
    """The recomputation has the frames, pairs and swaps of its own call, and leaves no trace."""
    model, preview, shown = aligned(BOTH, checkpointing, version_1=True), inputs(4, videos=1), []

    def between() -> None:
        model(*inputs(num_frames=2), pair_call(5))
        shown.append(model.model.predict(*preview).detach())

    found = learn(model, pair_call([0, 3, 4]), between=between)
    assert_same(found, unchecked(BOTH, version_1=True))
    assert torch.equal(model.model.predict(*preview), shown[0])


def kept_bytes(checkpointing: str) -> int:
    """Bytes that the graph of one call holds outside of checkpointed regions, each tensor once."""
    model = aligned(BOTH, checkpointing)
    select_trainable(model.model)
    storages = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(*inputs(), pair_call())
    assert out.requires_grad
    return sum(kept.values())


def test_each_kind_of_checkpointing_keeps_less() -> None:
    none, motion, everything = (kept_bytes(kind) for kind in CHECKPOINTING)
    assert motion < 0.7 * none
    assert everything < 0.5 * motion


@pytest.mark.parametrize("checkpointing", ["motion", "all"])
def test_every_motion_module_runs_once_more_in_the_backward_pass(checkpointing: str) -> None:
    model, calls = add_alignment(animated(), BOTH, checkpointing=checkpointing), []
    for name, _ in model.model.motion.config.places():
        module = model.model.motion.get_submodule(name)
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    learn(model, pair_call())
    places = [name for name, _ in model.model.motion.config.places()]
    assert sorted(calls) == sorted(places * 2)


def test_another_kind_of_checkpointing_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of none, motion, all, but it is 'some'"):
        aligned(BOTH, "some")


def test_checkpointing_lowers_the_counted_peak(training_files: Path) -> None:
    config = ActionTrainingConfig(sampling=SamplingConfig(num_frames=3))
    motion, clips = (
        read_motion(training_files / "motion.safetensors"),
        find_clips([training_files / "run_fast"]).used,
    )
    base = load_base(find_base(training_files / "base"))
    training = action_training(base, "small", motion, clips, config, torch.device("cpu"))
    whole, motion_again, all_again = (training.cost(256, kind) for kind in ("none", "motion", "all"))
    assert whole.peak_bytes > motion_again.peak_bytes > all_again.peak_bytes
    assert whole.flops < motion_again.flops < all_again.flops
