"""Learned actions on ComfyUI's MODEL."""

import dataclasses
import logging

import pytest
import torch


@pytest.fixture
def plain(flash, model, motion, sample):
    return sample(flash.backend.add_action(model, motion, None))


def test_strength_0_is_the_plain_path(flash, model, motion, action, sample, plain):
    assert torch.equal(sample(flash.backend.add_action(model, motion, action, 0.0)), plain)
    # ...also after a run with the action, whose weights ComfyUI leaves in place until then
    sample(flash.backend.add_action(model, motion, action, 1.0))
    assert torch.equal(sample(flash.backend.add_action(model, motion, None)), plain)


@pytest.mark.parametrize("strength", [0.4, 1.0, 1.6])
def test_weights_are_base_plus_strength_times_the_difference(
    flash, make_model, motion, action, sample, plain, tmp_path, assert_same, strength
):
    from comfy.lora import model_lora_keys_unet

    ours = sample(flash.backend.add_action(make_model(), motion, action, strength))
    blended = dict(motion.tensors)
    for name, trained in action.motion.items():
        blended[name] = blended[name] + strength * (trained - blended[name])
    flash.tensor_file.write_tensors(tmp_path / "blended.safetensors", blended, {})
    by_hand = make_model()
    weights, keys = dict(by_hand.model.named_parameters()), model_lora_keys_unet(by_hand.model, {})
    for name, diff in action.kv_diffs.items():
        weights[keys[name]].data += strength * diff
    assert len(action.kv_diffs) == 4 * 6
    theirs = sample(
        flash.backend.add_action(
            by_hand, flash.backend.load_motion(tmp_path / "blended.safetensors", "v2"), None
        )
    )
    assert_same(ours, theirs)
    assert (ours - plain).abs().max() > 0.1


@pytest.fixture
def standalone(flash, motion, action):
    whole = {**motion.tensors, **action.motion}
    return dataclasses.replace(action, kind="standalone", motion=whole)


def test_a_standalone_action_brings_its_own_motion(
    flash, model, motion, action, standalone, sample, assert_same
):
    alone = sample(flash.backend.add_action(model, None, standalone))
    assert_same(alone, sample(flash.backend.add_action(model, motion, action)))
    with pytest.raises(ValueError, match=r"At strength 0\.5 an action is mixed with the motion module"):
        flash.backend.add_action(model, None, standalone, 0.5)


def test_an_action_is_known_to_differ(
    flash, make_model, motion, motion_path, action, standalone, caplog, tmp_path
):
    tensors, _ = flash.tensor_file.read_tensors(motion_path)
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    flash.tensor_file.write_tensors(tmp_path / "other.safetensors", other, {})
    with caplog.at_level(logging.WARNING):
        flash.backend.add_action(make_model(), None, standalone)
        assert "was trained on" not in caplog.text
        flash.backend.add_action(make_model(seed=20), None, standalone)
        assert "was trained on small base; on another checkpoint it may differ" in caplog.text
        flash.backend.add_action(
            make_model(), flash.backend.load_motion(tmp_path / "other.safetensors", "v2"), standalone, 0.5
        )
        assert "was trained on small_motion; this is another motion module" in caplog.text


def test_files_round_trip_to_the_same_video(flash, model, motion, action, sample, tmp_path):
    path = tmp_path / "jump.safetensors"
    flash.action_file.write_action(path, action, motion.config)
    again = flash.action_file.read_action(path)
    add = flash.backend.add_action
    assert torch.equal(sample(add(model, motion, again)), sample(add(model, motion, action)))


def test_nothing_to_apply_is_refused(flash, model, action):
    with pytest.raises(ValueError, match="has nothing to apply"):
        flash.backend.add_action(model, None, None)
    with pytest.raises(ValueError, match="'jump' is compact"):
        flash.backend.add_action(model, None, action)


def test_a_compact_action_for_another_motion_is_refused(flash, model, motion, action, motion_path, tmp_path):
    tensors, _ = flash.tensor_file.read_tensors(motion_path)
    name = next(iter(tensors))
    flash.tensor_file.write_tensors(tmp_path / "other.safetensors", {**tensors, name: tensors[name] + 1}, {})
    other = flash.backend.load_motion(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="was trained on the motion module small_motion"):
        flash.backend.add_action(model, other, action)


def test_an_action_from_another_checkpoint_warns(flash, make_model, motion, action, caplog):
    with caplog.at_level(logging.WARNING):
        flash.backend.add_action(make_model(), motion, action)
        assert "small base" not in caplog.text
        flash.backend.add_action(make_model(seed=20), motion, action)
    assert "was trained on small base; on another checkpoint it may differ" in caplog.text


def test_a_lora_does_not_change_what_the_checkpoint_is(flash, model, motion, action, sample, caplog):
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight"
    m = model.clone()
    m.add_patches({key: ("diff", (torch.ones_like(model.model.state_dict()[key]),))}, 1.0)
    sample(m)  # the LoRA's weights are in place now
    with caplog.at_level(logging.WARNING):
        flash.backend.add_action(m, motion, action)
    assert "small base" not in caplog.text


def test_keys_and_values_of_another_shape_are_refused(flash, model, motion, action):
    wide = {name: torch.zeros(3, 3) for name in action.kv_diffs}
    with pytest.raises(ValueError, match="does not fit this checkpoint: 24 of its 24 keys and values"):
        flash.backend.add_action(model, motion, dataclasses.replace(action, kv_diffs=wide))
