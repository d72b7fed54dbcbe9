"""Actions on diffusers' U-Net: blended weights, and what is refused."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.sd15 import AnimatedUNet, add_action
from flash_pack.flash_modules.files.tensor_file import fingerprint
from flash_pack.flash_modules.flash.action_file import Source
from flash_pack.tests.backends.small_models import KV, TEXT_WIDTH, key, make_action, small_motion, small_unet


@torch.inference_mode()
def run(model: AnimatedUNet) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    latents_BFCHW = torch.randn(1, 3, 4, 6, 8, generator=generator)
    return model.predict(
        latents_BFCHW, torch.tensor([481]), torch.randn(1, 5, TEXT_WIDTH, generator=generator)
    )


def test_strength_0_is_the_plain_path_bit_for_bit() -> None:
    motion = small_motion()
    plain = run(add_action(small_unet(), motion, None))
    assert torch.equal(run(add_action(small_unet(), motion, make_action(motion), 0.0)), plain)


@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_strength_blends_motion_keys_and_values_alike(strength: float) -> None:
    motion = small_motion()
    action = make_action(motion)
    blended = replace(motion, tensors={**motion.tensors})
    for name, trained in action.motion.items():
        blended.tensors[name] = motion.tensors[name] + strength * (trained - motion.tensors[name])
    unet = small_unet()
    weights = unet.state_dict()
    for path in KV:
        weights[f"{path}.weight"] += strength * action.kv_diffs[key(path)]
    expected = run(add_action(unet, blended, None))
    out = run(add_action(small_unet(), motion, action, strength))
    assert torch.allclose(out, expected, atol=1e-5)
    assert not torch.allclose(out, run(add_action(small_unet(), motion, None)), atol=1e-1)


def test_action_and_motion_are_never_written_to() -> None:
    motion = small_motion()
    action = make_action(motion)
    add_action(small_unet(), motion, action, 0.5)
    untouched = make_action(small_motion())
    assert all(torch.equal(action.motion[name], tensor) for name, tensor in untouched.motion.items())
    assert all(torch.equal(action.kv_diffs[name], tensor) for name, tensor in untouched.kv_diffs.items())
    assert fingerprint(motion.tensors) == motion.sha256


def test_standalone_action_brings_its_own_motion() -> None:
    motion = small_motion()
    action = make_action(motion, kind="standalone")
    alone = run(add_action(small_unet(), None, action))
    assert torch.allclose(alone, run(add_action(small_unet(), motion, action)), atol=1e-5)


def test_matching_parts_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    motion = small_motion()
    with caplog.at_level(logging.WARNING, logger="root"):
        add_action(small_unet(), motion, make_action(motion))
        add_action(small_unet(), None, make_action(motion, kind="standalone"))
    assert not [r for r in caplog.records if r.message.startswith("FLASH")]


def test_another_checkpoint_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    motion = small_motion()
    add_action(small_unet(seed=9), motion, make_action(motion))
    assert "The action 'jump' was trained on small; on another checkpoint it may differ." in caplog.text


def test_compact_action_is_refused_on_another_motion_module() -> None:
    with pytest.raises(ValueError, match=r"trained on the motion module small_motion .* load that module"):
        add_action(small_unet(), small_motion(seed=8), make_action(small_motion()))


def test_compact_action_is_refused_without_a_motion_module() -> None:
    with pytest.raises(ValueError, match="'jump' is compact"):
        add_action(small_unet(), None, make_action(small_motion()))


def test_standalone_action_alone_is_refused_at_another_strength() -> None:
    with pytest.raises(ValueError, match=r"At strength 0\.5 an action is mixed with the motion module"):
        add_action(small_unet(), None, make_action(small_motion(), kind="standalone"), 0.5)


def test_nothing_to_animate_with_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to animate with"):
        add_action(small_unet(), None, None)


def test_action_for_another_unet_is_refused() -> None:
    motion = small_motion()
    action = make_action(motion)
    action.kv_diffs[key(KV[0])] = torch.zeros(7, 7)
    with pytest.raises(ValueError, match=r"does not fit this checkpoint: 1 of its 24 .*attn1_to_k"):
        add_action(small_unet(), motion, action)


def test_two_actions_are_refused() -> None:
    motion, unet = small_motion(), small_unet()
    add_action(unet, motion, make_action(motion))
    with pytest.raises(ValueError, match="already has a motion, and two cannot run together"):
        add_action(unet, motion, replace(make_action(motion), base=Source(name="x", sha256="")))
