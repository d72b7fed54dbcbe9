"""Action files: what was learned from a few clips, as safetensors with a header.

Motion tensors are stored whole, under AnimateDiff's names; keys and values of the spatial attentions as
differences to the checkpoint they were trained on, under the names that LoRA loaders know.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ..animatediff.motion_file import MotionWeights, motion_weights
from ..animatediff.motion_layout import POSITIONS
from ..animatediff.motion_module import MotionConfig, sinusoidal_positions
from ..files.json_file import parse_json, parse_list
from ..files.model_card import model_spec
from ..files.tensor_file import (
    Tensors,
    check_numbers,
    fingerprint,
    read_tensors,
    short,
    some,
    write_tensors,
)

FORMAT = "1"
Kind = Literal["compact", "standalone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_DIFF = ".diff"
_MAX_BYTES = 8 * 2**30
_MAX_FRAMES = 1024
"""More than any motion module knows."""
_PART = re.compile(r"((?:down_blocks|up_blocks|mid_block)(?:\.\d+)?\.motion_modules\.\d+)\.(.*)")
"""A motion module, and a weight in it."""
TRAINED = {'"attention"': ".attention_blocks.", '"motion_module"': ".motion_modules."}
"""By what a header says: what is in the names of all weights of the motion that learned."""
_OWN_ENTRIES = (
    "format",
    "flash.format",
    "flash.kind",
    "flash.base",
    "flash.motion_module",
    "flash.frames",
    "flash.prompts",
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that an action was trained on, known by its weights and not by its file."""

    name: str
    sha256: str
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Action:
    """A learned action."""

    name: str
    kind: Kind
    """compact: the trained tensors alone; standalone: a whole motion module."""
    motion: Tensors
    """Trained weights of the motion model, AnimateDiff names; positions may be among them."""
    kv_diffs: Tensors
    """(trained - base) by `spatial_key`."""
    base: Source
    motion_module: Source
    frames: int
    prompts: tuple[str, ...] = ()
    header: Mapping[str, str] = field(default_factory=dict)
    """Further entries of the file's header, kept as they are."""

    @property
    def summary(self) -> str:
        said = f' "{self.prompts[0]}"' if self.prompts else ""
        return (
            f"{self.name}:{said} {self.kind}, trained with {self.frames} frames on {self.base.name} and "
            f"{self.motion_module.name} ({self.motion_module.version})"
        )


def spatial_key(module_path: str) -> str:
    """Name in an action file of a projection of the U-Net, by diffusers' path of the module."""
    return "lora_unet_" + module_path.replace(".", "_")


def read_action(path: Path) -> Action:
    """Read and check an action file. Raises ValueError with what is wrong and what was expected."""
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise ValueError(
            f"{path.name} is larger than 8 GiB, but an action has 0.4 to 1 GB: choose another file."
        )
    tensors, metadata = read_tensors(path)
    if metadata.get("flash.format") != FORMAT:
        raise ValueError(_not_an_action(path.name, metadata))
    told = metadata.get("flash.kind", "")
    kind = next((kind for kind in KINDS if kind == told), None)
    if kind is None:
        raise ValueError(
            f"{path.name} is a FLASH file of the kind '{short(told)}', not an action: choose another."
        )
    check_numbers(tensors, path.name)
    kv_diffs = {name.removesuffix(_DIFF): t for name, t in tensors.items() if name.endswith(_DIFF)}
    motion = {name: t for name, t in tensors.items() if ".motion_modules." in name}
    unknown = [n for n in tensors if not n.endswith(_DIFF) and ".motion_modules." not in n]
    if unknown:
        raise ValueError(f"{path.name} holds tensors that no action has ({some(unknown)}): it is damaged.")
    base, motion_module, frames, prompts = _parse_header(metadata, path.name)
    action = Action(
        name=path.stem,
        kind=kind,
        motion=motion,
        kv_diffs=kv_diffs,
        base=base,
        motion_module=motion_module,
        frames=frames,
        prompts=prompts,
        header={name: value for name, value in metadata.items() if name not in _OWN_ENTRIES},
    )
    if kind == "standalone":
        standalone_motion(action)
    else:
        _check_parts(action)
    return action


def _module(name: str) -> str:
    """The motion module that a weight belongs to."""
    found = _PART.fullmatch(name)
    return found[1] if found else name


def _check_parts(action: Action) -> None:
    """Raise ValueError unless training changed the same in all motion modules, and keys with their values."""
    parts = {found[2] for found in map(_PART.fullmatch, action.motion) if found}
    wanted = {f"{_module(name)}.{part}" for name in action.motion for part in parts}
    pairs = {name[:-1] + end for name in action.kv_diffs if name.endswith(("to_k", "to_v")) for end in "kv"}
    _refuse_missing(action, (wanted - action.motion.keys()) | (pairs - action.kv_diffs.keys()))


def _check_trained(action: Action, motion: Mapping[str, Tensor], keys_values: Iterable[str]) -> None:
    """Raise ValueError unless all is there that this training changes, as its header tells."""
    trainable = action.header.get("flash.trainable")
    if action.kind == "standalone" or trainable not in TRAINED:
        return
    wanted = {name for name in motion if TRAINED[trainable] in name} | set(keys_values)
    _refuse_missing(action, wanted - action.motion.keys() - action.kv_diffs.keys())


def _refuse_missing(action: Action, missing: Collection[str]) -> None:
    if missing:
        raise ValueError(
            f"The action '{action.name}' is incomplete: {len(missing)} of its tensors are missing "
            f"({some(missing)}). Download it again, or write it again by its training."
        )


def _not_an_action(file_name: str, metadata: Mapping[str, str]) -> str:
    if "flash.format" in metadata:
        return (
            f"{file_name} is an action of format {short(metadata['flash.format'])}, and this pack reads "
            f"format {FORMAT}: update ComfyUI-FLASH."
        )
    return (
        f"{file_name} is not a FLASH action (its header does not say so): choose a file that FLASH trained."
    )


def _parse_header(metadata: Mapping[str, str], file_name: str) -> tuple[Source, Source, int, tuple[str, ...]]:
    try:
        base, motion_module = (
            Source(**parse_json(metadata[f"flash.{key}"])) for key in ("base", "motion_module")
        )
        frames = int(metadata["flash.frames"])
        prompts = parse_list(metadata["flash.prompts"])
        texts = [*vars(base).values(), *vars(motion_module).values(), *prompts]
        if not 1 <= frames <= _MAX_FRAMES or not all(isinstance(text, str) for text in texts):
            raise ValueError("an entry is not what it should be")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file_name} has a damaged header ({short(error)}): download it again.") from error
    return base, motion_module, frames, tuple(prompts)


def write_action(path: Path, action: Action, config: MotionConfig | None) -> None:
    """Write an action; a standalone one gets its position rows, so that other packs can load it too.

    `config` is that of its motion module; a compact one needs none.
    """
    tensors = {**action.motion, **{name + _DIFF: t for name, t in action.kv_diffs.items()}}
    if action.kind == "standalone":
        assert config is not None
        tensors.update(_position_rows(action.motion, config))
    metadata = {
        **model_spec("stable-diffusion-v1/flash-action", action.name),
        "ss_base_model_version": "sd_1.5",
        **action.header,
        "format": "pt",
        "flash.format": FORMAT,
        "flash.kind": action.kind,
        "flash.base": json.dumps(vars(action.base)),
        "flash.motion_module": json.dumps(vars(action.motion_module)),
        "flash.frames": str(action.frames),
        "flash.prompts": json.dumps(action.prompts),
    }
    write_tensors(path, tensors, metadata)


def _position_rows(motion: Mapping[str, Tensor], config: MotionConfig) -> Tensors:
    rows: Tensors = {}
    for name, weight in motion.items():
        attention, found, _ = name.partition(".to_q.weight")
        if found:
            positions_FC = sinusoidal_positions(config.max_frames, weight.shape[0])
            rows[attention + POSITIONS] = positions_FC.unsqueeze(0).to(weight.dtype)
    return rows


class KnownMotion(Protocol):
    """A motion module that a user gave, as a host holds it."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """AnimateDiff names, without any action's part."""

    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class ActionPlan:
    """What a host does for an action at a strength: all that it has to decide is decided here."""

    motion_diffs: Tensors = field(default_factory=dict)
    """(trained - base) by names of the motion model, to be added times the strength."""
    kv_diffs: Tensors = field(default_factory=dict)
    """(trained - base) by `spatial_key`, likewise."""
    warnings: tuple[str, ...] = ()
    """Sentences about models that differ from the ones of the training."""


def plan_action(
    action: Action | None,
    strength: float,
    *,
    motion: KnownMotion | None,
    keys_values: Callable[[], Mapping[str, Tensor]],
) -> ActionPlan:
    """The plan for an action, if there is one, on a base and a motion module; without one on `own_motion`.

    `keys_values` gives the base's spatial keys and values by `spatial_key`, without any action's part; it is
    asked only where an action acts. Raises ValueError if the parts do not belong together.
    """
    if not math.isfinite(strength):
        raise ValueError(f"The action's strength must be a number, but it is {strength}: 1 is as trained.")
    if action is None or strength == 0.0:
        return ActionPlan()
    base = keys_values()
    check_kv_diffs(action, base)
    if motion is not None:
        _check_trained(action, motion.tensors, base)
    motion_sha256 = action.motion_module.sha256 if motion is None else motion.sha256
    return ActionPlan(
        motion_diffs={} if motion is None else motion_diffs(action, motion.tensors, motion.sha256),
        kv_diffs=action.kv_diffs,
        warnings=tuple(mismatches(action, base_sha256=fingerprint(base), motion_sha256=motion_sha256)),
    )


def standalone_motion(action: Action) -> MotionWeights:
    """The whole motion module of a standalone action. Raises ValueError for a compact one."""
    if action.kind != "standalone":
        raise ValueError(
            f"The action '{action.name}' is compact: it holds only what training changed. Give it the motion "
            f"module it was trained on, {action.motion_module.name} ({action.motion_module.version})."
        )
    return motion_weights(action.motion, f"{action.name}.safetensors", action.motion_module.version or "auto")


def own_motion(action: Action | None, strength: float) -> MotionWeights:
    """The motion of an action that is used without a motion module.

    Raises ValueError unless there is one, it is standalone, and at full strength.
    """
    if action is None:
        raise ValueError("There is nothing to animate with: give a motion module, or a standalone action.")
    weights = standalone_motion(action)
    if strength != 1.0:
        raise ValueError(
            f"At strength {strength} an action is mixed with the motion module it was trained on: give "
            f"{action.motion_module.name} as `motion` too, or set strength to 1."
        )
    return weights


def check_kv_diffs(action: Action, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless every key and value finds a weight of its shape under its `spatial_key`."""
    unfit = [n for n, diff in action.kv_diffs.items() if n not in weights or weights[n].shape != diff.shape]
    if unfit:
        raise ValueError(
            f"The action '{action.name}' does not fit this checkpoint: {len(unfit)} of its "
            f"{len(action.kv_diffs)} keys and values have no place in it ({some(unfit)}). It was trained on "
            f"{action.base.name}."
        )


def check_module(action: Action, sha256: str) -> None:
    """Raise ValueError if a compact action meets another motion module than its own."""
    if action.kind == "compact" and sha256 != action.motion_module.sha256:
        raise ValueError(
            f"The action '{action.name}' was trained on the motion module {action.motion_module.name} "
            f"({action.motion_module.version}), and this one has other weights: load that module."
        )


def motion_diffs(action: Action, base: Mapping[str, Tensor], base_sha256: str) -> Tensors:
    """(trained - base) of every trained motion tensor; base + s * diff is the motion at strength s.

    Raises ValueError if a compact action meets another motion module than its own, or shapes differ.
    """
    check_module(action, base_sha256)
    diffs: Tensors = {}
    for name, trained in action.motion.items():
        if name.endswith(POSITIONS):
            continue
        if name not in base or base[name].shape != trained.shape:
            found = f"the shape {tuple(base[name].shape)}" if name in base else "no such part"
            raise ValueError(
                f"The action '{action.name}' does not fit this motion module: {name} has shape "
                f"{tuple(trained.shape)}, the module has {found}. Load {action.motion_module.name}."
            )
        dtype = torch.promote_types(trained.dtype, base[name].dtype)
        diffs[name] = (trained.float() - base[name].to(trained.device).float()).to(dtype)
    return diffs


def mismatches(action: Action, *, base_sha256: str, motion_sha256: str) -> list[str]:
    """Sentences about models that differ from the ones of the training, for a warning."""
    said = []
    trained_on = f"The action '{action.name}' was trained on"
    if base_sha256 != action.base.sha256:
        said.append(f"{trained_on} {action.base.name}; on another checkpoint it may differ.")
    if motion_sha256 != action.motion_module.sha256:
        said.append(f"{trained_on} {action.motion_module.name}; this is another motion module.")
    return said
