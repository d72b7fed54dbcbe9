"""Reads joints and looks from frames of actors: a judge of videos, which knows all actions and looks."""

import math
from pathlib import Path

import torch
import torch.nn.functional as nnf
from einops import rearrange
from torch import Tensor, nn

from flash_modules.files.tensor_file import read_tensors

from ..world.clips import Clip
from ..world.skeleton import JOINTS

WEIGHTS = Path(__file__).parents[1] / "weights" / "reader.safetensors"
SIZE = 128
CELL = 4
"""Pixels of the frame for one of the maps of joints."""
MAP = SIZE // CELL
_LOOK = 48

PELVIS = JOINTS.index("pelvis")
MIRRORED = [JOINTS.index({"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]) for name in JOINTS]
"""The joint that each joint is when left and right are exchanged."""


class _Block(nn.Module):
    def __init__(self, channels: int, num_convs: int) -> None:
        super().__init__()
        layers = [(nn.GroupNorm(8, channels), nn.SiLU(), _conv(channels, channels)) for _ in range(num_convs)]
        self.layers = nn.Sequential(*(part for layer in layers for part in layer))

    def forward(self, frames_BCHW: Tensor) -> Tensor:
        return torch.add(frames_BCHW, self.layers(frames_BCHW))


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)


class Reader(nn.Module):
    """One small U-shaped network with two heads: maps of the joints at 32 x 32, and a look."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16, 2), nn.SiLU(), _conv(16, 32, 2), _Block(32, 2))
        self.down = nn.ModuleList(
            (nn.Sequential(_conv(32, 80, 2), _Block(80, 2)), nn.Sequential(_conv(80, 128, 2), _Block(128, 1)))
        )
        self.up = nn.ModuleList((nn.Conv2d(128, 80, 1), nn.Conv2d(80, 32, 1)))
        self.joints = nn.Sequential(
            _Block(32, 2), nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, len(JOINTS), 1)
        )
        self.look = nn.Sequential(nn.Linear(2 * (32 + 80 + 128), 96), nn.SiLU(), nn.Linear(96, _LOOK))

    def forward(self, frames_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the joints (B, J, 32, 32) and looks (B, 48) of unit length, of frames in [0, 1]."""
        levels = [self.stem(2 * frames_BCHW - 1)]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        merged_BCHW = levels[-1]
        for layer, level_BCHW in zip(self.up, reversed(levels[:-1]), strict=True):
            merged_BCHW = level_BCHW + nnf.interpolate(layer(merged_BCHW), scale_factor=2.0, mode="bilinear")
        statistics = [part for level in levels for part in (level.mean((2, 3)), level.std((2, 3)))]
        look_BE = nnf.normalize(self.look(torch.cat(statistics, dim=1)), dim=1)
        return self.joints(merged_BCHW), look_BE


def load_reader(path: Path = WEIGHTS) -> Reader:
    """The reader of a file, as `train` writes it."""
    tensors, _ = read_tensors(path)
    reader = Reader()
    reader.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return reader.eval().requires_grad_(False)


def read_joints(reader: Reader, video_FHWC: Tensor, *, right_person: bool = False) -> Tensor:
    """Joints (F, 15, 2) of the person on the left in pixels (x, y) of the video, in the order of JOINTS.

    One frame does not tell which of two people is the actor; `right_person` reads the other one, in a mirror.
    """
    h, w = video_FHWC.shape[1:3]
    frames_FCHW = _frames(video_FHWC)
    if not right_person:
        return joint_places(reader(frames_FCHW)[0]) * torch.tensor([w / SIZE, h / SIZE])
    mirrored_FJ2 = joint_places(reader(frames_FCHW.flip(-1))[0])[:, MIRRORED]
    return (torch.tensor([SIZE, 0]) + mirrored_FJ2 * torch.tensor([-1, 1])) * torch.tensor(
        [w / SIZE, h / SIZE]
    )


def actor_is_right(clip: Clip) -> bool:
    """Whether the actor stands to the right of a second person."""
    return bool(clip.joints_FPJ2[0, :, PELVIS, 0].argmin() > 0)


def read_looks(reader: Reader, video_FHWC: Tensor) -> Tensor:
    """The look (F, 48) of every frame, of unit length. The dot product of two is their likeness."""
    look_FE: Tensor = reader(_frames(video_FHWC))[1]
    return look_FE


def _frames(video_FHWC: Tensor) -> Tensor:
    frames_FCHW = rearrange(video_FHWC.float(), "f h w c -> f c h w")
    if frames_FCHW.shape[-2:] == (SIZE, SIZE):
        return frames_FCHW
    return nnf.interpolate(frames_FCHW, size=(SIZE, SIZE), mode="bilinear", antialias=True)


def joint_places(logits_BJHW: Tensor) -> Tensor:
    """Places (B, J, 2) in pixels of the 128 x 128 frame: the mean of the 5 x 5 cells around the highest one.

    Not the mean of the whole map: that lies between the legs where left and right look the same.
    """
    axis = torch.arange(MAP)
    peak_BJ = logits_BJHW.flatten(2).argmax(dim=-1)
    near_BJW = (axis - (peak_BJ % MAP)[..., None]).abs() <= 2
    near_BJH = (axis - (peak_BJ // MAP)[..., None]).abs() <= 2
    masked_BJHW = logits_BJHW.masked_fill(~(near_BJH[..., :, None] & near_BJW[..., None, :]), -math.inf)
    chances_BJHW = masked_BJHW.flatten(2).softmax(dim=-1).view_as(logits_BJHW)
    x_BJ = (chances_BJHW.sum(dim=2) * axis).sum(dim=-1)
    y_BJ = (chances_BJHW.sum(dim=3) * axis).sum(dim=-1)
    return (torch.stack([x_BJ, y_BJ], dim=-1) + 0.5) * CELL


def joint_distance(found_FJ2: Tensor, true_FJ2: Tensor) -> float:
    """Mean distance in pixels, the smaller one with left and right as found or exchanged.

    From the side the two are hardly told apart; they are exchanged in the whole clip, never in single frames.
    """
    both = (found_FJ2, found_FJ2[:, MIRRORED])
    return min(float((joints_FJ2 - true_FJ2).norm(dim=-1).mean()) for joints_FJ2 in both)
