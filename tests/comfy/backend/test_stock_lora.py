"""ComfyUI's stock LoRA loader on a standalone action: its keys and values apply, its motion is left aside."""

import dataclasses
import logging

import pytest
import torch


@pytest.fixture
def written(flash, motion, action, tmp_path, monkeypatch):
    """A standalone action in the folder of LoRAs."""
    import folder_paths

    whole = {**motion.tensors, **action.motion}
    standalone = dataclasses.replace(action, kind="standalone", motion=whole)
    flash.action_file.write_action(tmp_path / "jump.safetensors", standalone, motion.config)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    return standalone


@pytest.fixture
def load_lora(model):
    """The stock node, on the small model."""
    import nodes

    def load(strength: float):
        return nodes.LoraLoaderModelOnly().load_lora_model_only(model, "jump.safetensors", strength)[0]

    return load


def weights(patcher) -> dict[str, torch.Tensor]:
    """The U-Net's weights as they are while it runs."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return {name: weight.clone() for name, weight in patcher.model.diffusion_model.state_dict().items()}


def test_every_key_and_value_becomes_a_patch(written, load_lora, model):
    from comfy.lora import model_lora_keys_unet

    keys = model_lora_keys_unet(model.model, {})
    patched = load_lora(1.0)
    assert len(written.kv_diffs) == 4 * 6
    assert patched.patches.keys() == {keys[name] for name in written.kv_diffs}
    assert not model.patches


def test_only_motion_is_left_aside(written, load_lora, caplog):
    with caplog.at_level(logging.WARNING):
        load_lora(1.0)
    said = [record.getMessage() for record in caplog.records]
    left = [line.removeprefix("lora key not loaded: ") for line in said if "not loaded" in line.lower()]
    positions = [name for name in left if name.endswith(".pos_encoder.pe")]
    assert set(left) - set(positions) == written.motion.keys()
    assert len(positions) == 2 * 11  # two attentions in each motion module
    assert len(left) == len(written.motion) + len(positions)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_a_patched_weight_is_base_plus_strength_times_the_difference(written, load_lora, model, strength):
    from comfy.lora import model_lora_keys_unet

    base = weights(model)
    keys = model_lora_keys_unet(model.model, {})
    expected = dict(base)
    for name, diff in written.kv_diffs.items():
        place = keys[name].removeprefix("diffusion_model.")
        expected[place] = base[place] + strength * diff
    found = weights(load_lora(strength))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-7)
    assert sum(not torch.equal(found[name], base[name]) for name in base) == 4 * 6
    assert all(torch.equal(weight, base[name]) for name, weight in weights(model).items())
