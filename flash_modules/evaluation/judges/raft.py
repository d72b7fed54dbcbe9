"""RAFT (arXiv:2003.12039), optical flow by a network, from torchvision."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.optical_flow import raft_large

from ...files.tensor_file import read_tensors
from .preprocess import filled_square
from .weights import fill

_BATCH = 4


class RaftJudge:
    """torchvision's RAFT (large)."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Raises ValueError if the file does not hold its weights."""
        self._network = raft_large(weights=None, progress=False)
        fill(self._network, read_tensors(path)[0], path)
        self._network.to(device)
        self._device = device

    @torch.inference_mode()
    def flow(self, video_FHWC: Tensor, side: int) -> Tensor:
        """Flow (F - 1, 2, side, side) in pixels between consecutive frames, brought to squares first."""
        seen_FCHW = filled_square(video_FHWC, side, "bilinear") * 2 - 1
        parts = [
            self._network(one_FCHW.to(self._device), then_FCHW.to(self._device))[-1].cpu()
            for one_FCHW, then_FCHW in zip(
                torch.split(seen_FCHW[:-1], _BATCH), torch.split(seen_FCHW[1:], _BATCH), strict=True
            )
        ]
        return torch.cat(parts)
