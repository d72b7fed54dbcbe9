"""Several processes that train together, by accelerate."""

from collections.abc import Iterable
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

_PATIENCE = timedelta(days=1)
"""With a process that encodes its share, or animates a sample, while the others wait; by default it is ten
minutes. One that fails is noticed at once: the launcher ends the others."""


class AcceleratedProcesses:
    """The processes that `accelerate launch` started, or this one alone."""

    def __init__(self, device: torch.device) -> None:
        self._accelerator = Accelerator(
            cpu=device.type == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)]
        )
        self.count, self.index = self._accelerator.num_processes, self._accelerator.process_index
        alone = self.count == 1 or device.type == "cpu"
        self.device = device if alone else self._accelerator.device

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return bool(self.index == 0)

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def average_(self, tensors: Iterable[Tensor]) -> None:
        if self.count > 1:
            for tensor in tensors:
                mean = self._accelerator.reduce(tensor.to(self.device), reduction="mean")
                tensor.copy_(mean)

    def any(self, flag: bool) -> bool:
        if self.count == 1:
            return flag
        return bool(self._accelerator.reduce(torch.tensor(float(flag), device=self.device)) > 0)
