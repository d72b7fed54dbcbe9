"""Action files: written, read, checked, applied."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter
from diffusers.loaders.single_file_utils import (
    convert_animatediff_checkpoint_to_diffusers,
    infer_diffusers_model_type,
)
from safetensors.torch import save_file
from torch import Tensor

from flash_pack.flash_modules.animatediff.motion_file import MotionWeights, motion_weights
from flash_pack.flash_modules.files.tensor_file import fingerprint, read_tensors, write_tensors
from flash_pack.flash_modules.flash.action_file import (
    Action,
    ActionPlan,
    Source,
    check_kv_diffs,
    mismatches,
    motion_diffs,
    own_motion,
    plan_action,
    read_action,
    spatial_key,
    standalone_motion,
    write_action,
)

SMALL = (32, 64, 96, 96)
PLACES = ("down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.3.attentions.2")
KV = [
    f"{p}.transformer_blocks.0.{attn}.{kv}"
    for p in PLACES
    for attn in ("attn1", "attn2")
    for kv in ("to_k", "to_v")
]
BASE = Source(name="v1-5-pruned-emaonly", sha256="b" * 64)
Write = Callable[[Action], Path]


@pytest.fixture(params=[(24, False, "v1"), (32, True, "v2"), (32, False, "v3")], ids=["v1", "v2", "v3"])
def module(request, motion_tensors) -> MotionWeights:
    rows, mid, version = request.param
    return motion_weights(motion_tensors(rows, mid=mid, dtype=torch.float16), "mm.ckpt", version)


@pytest.fixture(scope="module")
def v3_module(motion_tensors) -> MotionWeights:
    return motion_weights(motion_tensors(32, dtype=torch.float16), "v3_sd15_mm.ckpt")


def trained_on(module: MotionWeights, kind: str) -> Action:
    chosen = {
        name: t for name, t in module.tensors.items() if kind == "standalone" or ".attention_blocks." in name
    }
    return Action(
        name="wave",
        kind=kind,
        motion={name: (t.float() + 0.02 * torch.randn(t.shape)).half() for name, t in chosen.items()},
        kv_diffs={spatial_key(path): 0.01 * torch.randn(7, 5) for path in KV},
        base=BASE,
        motion_module=Source(name=module.name, sha256=module.sha256, version=module.version),
        frames=16,
        prompts=("a person waves", "a cat \u201cwaves\u201d"),
        header={"flash.trainable": "attention", "modelspec.title": "Wave!"},
    )


@pytest.fixture
def write(tmp_path: Path, v3_module: MotionWeights) -> Write:
    def written(action: Action) -> Path:
        path = tmp_path / f"{action.name}.safetensors"
        write_action(path, action, v3_module.config)
        return path

    return written


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("kind", ["compact", "standalone"])
def test_a_written_action_is_read_back(tmp_path: Path, module: MotionWeights, kind: str) -> None:
    action = trained_on(module, kind)
    write_action(tmp_path / "wave.safetensors", action, module.config)
    found = read_action(tmp_path / "wave.safetensors")
    assert_same({n: t for n, t in found.motion.items() if "pos_encoder" not in n}, dict(action.motion))
    assert_same(found.kv_diffs, action.kv_diffs)
    for field in ("name", "kind", "base", "motion_module", "frames", "prompts"):
        assert getattr(found, field) == getattr(action, field)
    assert action.header.items() <= found.header.items()
    assert found.summary == action.summary
    assert f"trained with 16 frames on v1-5-pruned-emaonly and mm ({module.version})" in found.summary


@pytest.mark.parametrize("kind", ["compact", "standalone"])
def test_an_action_that_is_read_and_written_again_is_the_same(write: Write, v3_module, kind: str) -> None:
    path = write(trained_on(v3_module, kind))
    tensors, metadata = read_tensors(path)
    write(read_action(path))
    tensors_again, metadata_again = read_tensors(path)
    assert_same(tensors_again, tensors)
    assert metadata_again == metadata


def test_other_programs_find_what_they_look_for_in_the_header(write: Write, v3_module) -> None:
    _, metadata = read_tensors(write(trained_on(v3_module, "compact")))
    assert metadata["format"] == "pt"
    assert metadata["ss_base_model_version"] == "sd_1.5"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/flash-action"
    assert metadata["modelspec.title"] == "Wave!"
    assert metadata["modelspec.implementation"].endswith("/ComfyUI-FLASH")
    assert json.loads(metadata["flash.motion_module"])["version"] == "v3"


def test_keys_and_values_have_the_names_of_lora_loaders() -> None:
    assert spatial_key(KV[0]) == "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k"


def test_a_standalone_file_is_a_motion_module_of_animatediff(tmp_path: Path, module: MotionWeights) -> None:
    write_action(tmp_path / "wave.safetensors", trained_on(module, "standalone"), module.config)
    tensors, _ = read_tensors(tmp_path / "wave.safetensors")
    has_mid, rows = bool(module.config.mid), module.config.max_frames
    others = {name for name in tensors if ".motion_modules." not in name}
    assert len(tensors) - len(others) == (588 if has_mid else 560)
    assert others == {f"{spatial_key(path)}.diff" for path in KV}
    assert not any(
        mark in name for name in others for mark in ("temporal", "pos_embed", "conv_in", "img_encoder")
    )
    assert infer_diffusers_model_type(tensors).startswith("animatediff")
    motion = {name: tensor for name, tensor in tensors.items() if name not in others}
    adapter = MotionAdapter(
        block_out_channels=SMALL, use_motion_mid_block=has_mid, motion_max_seq_length=rows
    )
    result = adapter.load_state_dict(convert_animatediff_checkpoint_to_diffusers(motion), strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith("pos_embed.pe") for name in result.missing_keys)  # it makes its own
    place = "up_blocks.1.motion_modules.2"
    theirs = adapter.get_submodule(f"{place}.transformer_blocks.0.attn2.to_k")
    ours = motion[f"{place}.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_k.weight"]
    assert torch.equal(theirs.weight, ours.float())


def test_a_standalone_action_keeps_the_frames_limit_and_version(
    tmp_path: Path, module: MotionWeights
) -> None:
    action = trained_on(module, "standalone")
    write_action(tmp_path / "wave.safetensors", action, module.config)
    found = standalone_motion(read_action(tmp_path / "wave.safetensors"))
    assert (found.version, found.config) == (module.version, module.config)
    assert_same(found.tensors, dict(action.motion))


def test_a_standalone_action_without_a_version_tells_it_from_its_tensors(write: Write, v3_module) -> None:
    action = trained_on(v3_module, "standalone")
    action = dataclasses.replace(action, motion_module=dataclasses.replace(action.motion_module, version=""))
    assert standalone_motion(read_action(write(action))).version == "v3"


def test_a_compact_action_cannot_stand_alone(v3_module) -> None:
    with pytest.raises(
        ValueError, match=r"The action 'wave' is compact: .* it was trained on, v3_sd15_mm \(v3\)\."
    ):
        standalone_motion(trained_on(v3_module, "compact"))


def test_a_standalone_action_alone_has_full_strength(v3_module) -> None:
    action = trained_on(v3_module, "standalone")
    assert own_motion(action, 1.0).version == "v3"
    with pytest.raises(
        ValueError, match=r"At strength 0.5 an action is mixed with .* v3_sd15_mm .*set strength to 1"
    ):
        own_motion(action, 0.5)


@pytest.mark.parametrize("kind", ["compact", "standalone"])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, 1.7])
def test_motion_at_a_strength_is_the_blend_of_base_and_trained(v3_module, kind: str, strength: float) -> None:
    action = trained_on(v3_module, kind)
    diffs = motion_diffs(action, v3_module.tensors, v3_module.sha256)
    assert diffs.keys() == action.motion.keys()
    for name, trained in action.motion.items():
        base = v3_module.tensors[name].double()
        blended = (1 - strength) * base + strength * trained.double()
        torch.testing.assert_close(base + strength * diffs[name].double(), blended, rtol=1e-3, atol=1e-4)
        assert diffs[name].dtype == torch.float16


def test_an_untrained_action_has_no_difference(v3_module) -> None:
    action = dataclasses.replace(trained_on(v3_module, "compact"), motion=v3_module.tensors)
    diffs = motion_diffs(action, v3_module.tensors, v3_module.sha256)
    assert not any(diff.any() for diff in diffs.values())


def test_difference_of_unlike_number_types_is_exact(v3_module) -> None:
    action = trained_on(v3_module, "compact")
    base = {name: tensor.bfloat16() for name, tensor in v3_module.tensors.items()}
    for name, diff in motion_diffs(action, base, v3_module.sha256).items():
        assert diff.dtype == torch.float32
        assert torch.equal(base[name].double() + diff.double(), action.motion[name].double())


def test_stored_positions_have_no_difference(write: Write, v3_module) -> None:
    action = read_action(write(trained_on(v3_module, "standalone")))
    diffs = motion_diffs(action, v3_module.tensors, v3_module.sha256)
    assert diffs.keys() == v3_module.tensors.keys()


def test_a_compact_action_on_another_module_is_refused(v3_module) -> None:
    with pytest.raises(
        ValueError, match=r"'wave' was trained on the motion module v3_sd15_mm \(v3\), and this one has other"
    ):
        motion_diffs(trained_on(v3_module, "compact"), v3_module.tensors, "0" * 64)


def test_a_standalone_action_on_another_module_is_mixed(v3_module) -> None:
    action = trained_on(v3_module, "standalone")
    other = {name: tensor + 1 for name, tensor in v3_module.tensors.items()}
    diffs = motion_diffs(action, other, "0" * 64)
    assert all(torch.allclose(other[n] + diffs[n], t, atol=2e-3) for n, t in action.motion.items())


def test_motion_of_another_shape_is_refused(v3_module) -> None:
    action = trained_on(v3_module, "compact")
    name = next(iter(action.motion))
    wide = {**v3_module.tensors, name: torch.zeros(64, 64)}
    with pytest.raises(
        ValueError, match=r"does not fit this motion module: .* has shape \(32, 32\), .* shape \(64, 64\)"
    ):
        motion_diffs(action, wide, v3_module.sha256)
    less = {n: tensor for n, tensor in v3_module.tensors.items() if n != name}
    with pytest.raises(
        ValueError, match=r"does not fit this motion module: .* has no such part. Load v3_sd15_mm"
    ):
        motion_diffs(action, less, v3_module.sha256)


def test_keys_and_values_that_fit_the_checkpoint_pass(v3_module) -> None:
    action = trained_on(v3_module, "compact")
    check_kv_diffs(action, {**action.kv_diffs, "another": torch.zeros(3)})


@pytest.mark.parametrize(
    "change", [lambda weight: weight[:, :4], lambda weight: None], ids=["shape", "missing"]
)
def test_keys_and_values_that_do_not_fit_the_checkpoint_are_refused(v3_module, change) -> None:
    action = trained_on(v3_module, "compact")
    changed = spatial_key(KV[3])
    weights = {name: change(w) if name == changed else w for name, w in action.kv_diffs.items()}
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    with pytest.raises(
        ValueError, match=rf"does not fit this checkpoint: 1 of its 12 .* \({changed}\).* on v1-5-pruned"
    ):
        check_kv_diffs(action, weights)


def test_models_of_the_training_cause_no_warning(v3_module) -> None:
    action = trained_on(v3_module, "standalone")
    assert mismatches(action, base_sha256=BASE.sha256, motion_sha256=v3_module.sha256) == []


def test_other_models_are_named_in_a_warning(v3_module) -> None:
    said = mismatches(trained_on(v3_module, "standalone"), base_sha256="", motion_sha256="")
    assert said == [
        "The action 'wave' was trained on v1-5-pruned-emaonly; on another checkpoint it may differ.",
        "The action 'wave' was trained on v3_sd15_mm; this is another motion module.",
    ]


@pytest.fixture
def rewritten(write: Write, v3_module) -> Callable[..., Path]:
    """`rewritten(tensors, metadata, kind=...)`: an action file with entries exchanged; None takes one out."""

    def build(tensors: dict | None = None, metadata: dict | None = None, kind: str = "compact") -> Path:
        path = write(trained_on(v3_module, kind))
        old_tensors, old_metadata = read_tensors(path)
        new_tensors = {**old_tensors, **(tensors or {})}
        new_metadata = {**old_metadata, **(metadata or {})}
        write_tensors(
            path,
            {name: t for name, t in new_tensors.items() if t is not None},
            {name: text for name, text in new_metadata.items() if text is not None},
        )
        return path

    return build


@pytest.mark.parametrize(
    "entry",
    [
        {"flash.base": None},
        {"flash.base": "{"},
        {"flash.base": '{"name": "x"}'},
        {"flash.base": '{"name": 5, "sha256": ""}'},
        {"flash.motion_module": "[1]"},
        {"flash.motion_module": '{"name": "x", "sha256": "", "more": 1}'},
        {"flash.frames": "many"},
        {"flash.frames": "0"},
        {"flash.prompts": "5"},
        {"flash.prompts": '"text"'},
        {"flash.prompts": "[5]"},
    ],
)
def test_a_damaged_header_is_refused(rewritten, entry: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"wave.safetensors has a damaged header \(.*\): download it again"):
        read_action(rewritten(metadata=entry))


def test_a_format_of_the_future_asks_for_an_update(rewritten) -> None:
    with pytest.raises(
        ValueError, match=r"is an action of format 2, and this pack reads format 1: update ComfyUI-FLASH"
    ):
        read_action(rewritten(metadata={"flash.format": "2"}))


def test_another_kind_of_flash_file_is_refused(rewritten) -> None:
    with pytest.raises(
        ValueError, match=r"wave.safetensors is a FLASH file of the kind 'decoder', not an action"
    ):
        read_action(rewritten(metadata={"flash.kind": "decoder"}))


@pytest.mark.parametrize("save", [save_file, torch.save], ids=["safetensors", "zip"])
def test_another_file_is_no_action(tmp_path: Path, motion_tensors, save) -> None:
    save({name: tensor.clone() for name, tensor in motion_tensors().items()}, tmp_path / "mm.ckpt")
    with pytest.raises(
        ValueError, match=r"mm.ckpt is not a FLASH action .*: choose a file that FLASH trained"
    ):
        read_action(tmp_path / "mm.ckpt")


def test_unknown_tensors_are_refused(rewritten) -> None:
    with pytest.raises(
        ValueError, match=r"holds tensors that no action has \(conv_in.weight\): it is damaged"
    ):
        read_action(rewritten({"conv_in.weight": torch.zeros(3)}))


@pytest.mark.parametrize(
    "name", ["lora_unet_x.diff", "down_blocks.0.motion_modules.0.temporal_transformer.norm.bias"]
)
def test_values_that_are_not_finite_are_refused(rewritten, name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"wave.safetensors is broken: {name} holds values that are not finite"
    ):
        read_action(rewritten({name: torch.tensor([1.0, float("nan")])}))


def test_an_incomplete_standalone_action_is_refused(rewritten) -> None:
    gone = "up_blocks.3.motion_modules.2.temporal_transformer.proj_in.weight"
    with pytest.raises(
        ValueError, match=rf"wave.safetensors is incomplete: 1 of 520 tensors are missing \({gone}\)"
    ):
        read_action(rewritten({gone: None}, kind="standalone"))


def test_a_standalone_action_of_an_unknown_version_is_refused(rewritten) -> None:
    source = json.dumps({"name": "mm", "sha256": "", "version": "v9"})
    with pytest.raises(
        ValueError, match=r"`version` must be auto or one of v1, v2, v3, AnimateLCM, but it is 'v9'"
    ):
        read_action(rewritten(metadata={"flash.motion_module": source}, kind="standalone"))


def test_a_cut_file_is_refused(write: Write, v3_module) -> None:
    path = write(trained_on(v3_module, "compact"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"wave.safetensors is damaged or cut short"):
        read_action(path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.touch()
    os.truncate(path, 8 * 2**30 + 1)  # takes no room on disk
    with pytest.raises(
        ValueError, match=r"huge.safetensors is larger than 8 GiB, but an action has 0.4 to 1 GB"
    ):
        read_action(path)


def test_a_missing_action_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file wave.safetensors"):
        read_action(tmp_path / "wave.safetensors")


# The plan of an action, which both hosts apply.


def never() -> dict[str, Tensor]:
    raise AssertionError("the base was asked")


@pytest.mark.parametrize("kind", ["compact", "standalone"])
def test_off_is_an_empty_plan_and_the_base_is_not_asked(v3_module, kind: str) -> None:
    action = trained_on(v3_module, kind)
    assert plan_action(action, 0.0, motion=v3_module, keys_values=never) == ActionPlan()
    assert plan_action(None, 1.0, motion=v3_module, keys_values=never) == ActionPlan()


def test_a_plan_holds_differences_of_motion_and_of_keys_and_values(v3_module) -> None:
    action = trained_on(v3_module, "compact")
    plan = plan_action(action, 0.5, motion=v3_module, keys_values=lambda: action.kv_diffs)
    assert plan.kv_diffs is action.kv_diffs
    expected = motion_diffs(action, v3_module.tensors, v3_module.sha256)
    assert plan.motion_diffs.keys() == expected.keys()
    assert all(torch.equal(diff, expected[name]) for name, diff in plan.motion_diffs.items())
    assert len(plan.warnings) == 1
    assert "on another checkpoint it may differ" in plan.warnings[0]


def test_an_action_on_its_own_motion_has_differences_of_keys_and_values_alone(v3_module) -> None:
    action = trained_on(v3_module, "standalone")
    action = dataclasses.replace(action, base=Source(name="it", sha256=fingerprint(action.kv_diffs)))
    plan = plan_action(action, 1.0, motion=None, keys_values=lambda: action.kv_diffs)
    assert plan == ActionPlan(kv_diffs=action.kv_diffs)


def test_a_plan_for_parts_that_do_not_fit_is_refused(v3_module) -> None:
    action = trained_on(v3_module, "compact")
    with pytest.raises(ValueError, match="does not fit this checkpoint"):
        plan_action(action, 1.0, motion=v3_module, keys_values=dict)
    other = dataclasses.replace(
        v3_module, tensors={name: tensor + 1 for name, tensor in v3_module.tensors.items()}
    )
    with pytest.raises(ValueError, match="this one has other weights"):
        plan_action(action, 1.0, motion=other, keys_values=lambda: action.kv_diffs)


def test_nothing_to_animate_with_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to animate with: give a motion module, or a standalone"):
        own_motion(None, 1.0)
