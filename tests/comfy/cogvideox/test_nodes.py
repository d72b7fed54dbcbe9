"""The nodes: files by their names, actions of both papers, and their sentences."""

from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.backends.comfy import sd15
from flash_pack.flash_modules.backends.comfy.actions import load_action
from flash_pack.flash_modules.flash.action_file import Action, Source
from flash_pack.flash_modules.flexiact.action_file import TransferAction, write_transfer_action
from flash_pack.flash_modules.flexiact.ref_adapter_file import write_ref_adapter
from flash_pack.tests.backends.flexiact_oracle import Inputs, oracle, small_inputs
from flash_pack.tests.backends.small_cogvideox import small_action, small_adapter
from flash_pack.tests.backends.test_transfer import BOOSTED, CASES
from flash_pack.tests.comfy.cogvideox.two_hosts import comfyui_velocity, difference

OF_FLASH = Action(
    name="kick",
    kind="compact",
    motion={},
    kv_diffs={},
    base=Source(name="base", sha256=""),
    motion_module=Source(name="motion", sha256="", version="v3"),
    frames=16,
    prompts=("a person kicks",),
)


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """ComfyUI's folders with an action of each kind of file, and a RefAdapter."""
    import folder_paths

    for key, extensions in (("flash_actions", {".safetensors", ".pt"}), ("loras", {".safetensors"})):
        (tmp_path / key).mkdir()
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, key, ([str(tmp_path / key)], set(extensions))
        )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    action = small_action()
    with_prompt = TransferAction(name="crouch", tokens_LMC=action.tokens_LMC, prompt="a dog crouches")
    write_transfer_action(tmp_path / "flash_actions/crouch.safetensors", with_prompt)
    names = "transformer_blocks.{}.attn1.processor.motion_inversion_tokens"
    torch.save(
        {names.format(i): tokens[None] for i, tokens in enumerate(action.tokens_LMC)},
        tmp_path / "flash_actions/crouch.pt",
    )
    write_ref_adapter(tmp_path / "loras/adapter.safetensors", small_adapter())
    return tmp_path


@pytest.mark.parametrize(("file", "prompt"), [("crouch.safetensors", "a dog crouches"), ("crouch.pt", "")])
def test_load_action_tells_flexiacts_by_what_is_in_it(node_classes, folders, file: str, prompt: str) -> None:
    node = node_classes["FLASH_LoadAction"]
    assert file in node.GET_NODE_INFO_V1()["input"]["required"]["file_name"][1]["options"]
    assert node.validate_inputs(file) is True
    action, said = node.execute(file).args
    assert torch.equal(action.tokens_LMC, small_action().tokens_LMC)
    assert said == prompt


def test_a_file_of_neither_is_refused_as_before(folders) -> None:
    with pytest.raises(ValueError, match=r"a FLASH file of the kind 'ref-adapter', not an action"):
        load_action(folders / "loras/adapter.safetensors")


def transfer(node_classes, model, action, **changes):
    settings = {"ref_adapter": "adapter.safetensors", "adapter_strength": 0.7, "strength": 1.0}
    settings |= {"early_boost": 1.0, "boost_full": 800, "boost_none": 700}
    (m,) = node_classes["FLASH_TransferAction"].execute(model, action, **{**settings, **changes}).args
    return m


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("both, boost 1", {}),
        ("both, boost 0.5", {"early_boost": 0.5}),
        ("both, as released", {"early_boost": 0.0}),
        ("both, as released", {"boost_full": BOOSTED + 50, "boost_none": BOOSTED}),
        ("tokens", {"early_boost": 0.0, "ref_adapter": "none"}),
        ("tokens at strength 0.3", {"early_boost": 0.0, "ref_adapter": "none", "strength": 0.3}),
        ("adapter whole", {"strength": 0.0, "adapter_strength": 1.0}),
        ("base", {"strength": 0.0, "ref_adapter": "none"}),
    ],
)
def test_transfer_action_does_what_its_widgets_say(
    node_classes, folders, model, case: str, changes: dict
) -> None:
    performances, strength = CASES[case]
    inputs: Inputs = small_inputs()
    m = transfer(node_classes, model, small_action(), **changes)
    wanted = oracle(BOOSTED, inputs, performances, small_adapter(), strength)
    assert difference(comfyui_velocity(m, inputs, BOOSTED), wanted) < 1e-6


def test_a_missing_adapter_is_told(node_classes, folders) -> None:
    node = node_classes["FLASH_TransferAction"]
    assert node.validate_inputs("none") is True
    assert node.validate_inputs("adapter.safetensors") is True
    said = node.validate_inputs("other.pt")
    assert said == "There is no file 'other.pt' in models/loras: put it there, press R and choose it again."


def test_limits_of_the_boost_must_not_cross(node_classes, folders, model) -> None:
    with pytest.raises(ValueError, match="The early boost is full from timestep 600 up and ends at 700"):
        transfer(node_classes, model, small_action(), boost_full=600)


def test_each_node_names_the_other_papers_actions(node_classes, folders, model) -> None:
    with pytest.raises(ValueError, match=r"'kick' was learned by FLASH.*connect it to Apply Action"):
        transfer(node_classes, model, OF_FLASH)
    with pytest.raises(ValueError, match=r"'crouch' was learned from one.*connect it to Transfer Action"):
        sd15.add_action(model, None, small_action())


def test_the_sampler_node_gives_the_exact_sampler(node_classes) -> None:
    import comfy.samplers

    (sampler,) = node_classes["FLASH_CogVideoXSampler"].execute().args
    assert isinstance(sampler, comfy.samplers.KSAMPLER)
