"""A frozen transformer with something in it that learns, wherever its blocks wait."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from .....files.tensor_file import fingerprint
from .....flexiact.training.saving import Saving
from .....flexiact.training.token_training import KNOWN_BY
from ..guidance import latents_shape, predict_velocity
from ..memory import bytes_of


class LearningHost(ABC):
    """What learns is no part of the transformer's modules, so that blocks may be copied and run again."""

    saving: Saving
    """What saves memory."""

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        weights: Mapping[str, nn.Parameter],
        saving: Saving,
    ) -> None:
        """`weights` learn: fp32, by their names in checkpoints."""
        self.transformer = transformer.requires_grad_(False)
        self.weights = weights
        self._device, self.saving = transformer.device, saving

    @abstractmethod
    def put_in(self) -> None:
        """Put what learns into the transformer."""

    @abstractmethod
    def take_out(self) -> None:
        """Take it out again."""

    def add(self) -> None:
        """Put what learns into the transformer, which saves memory from then on."""
        self.put_in()
        self.save_memory(self.saving)

    def remove(self) -> None:
        """Take what learns out of the transformer; `add` puts it back."""
        self.transformer.disable_gradient_checkpointing()
        self.take_out()

    def save_memory(self, saving: Saving) -> None:
        """Save memory in another way from now on; `to` then moves what waits elsewhere."""
        self.saving = saving
        if (run_again := saving.run_again) is None:
            self.transformer.disable_gradient_checkpointing()
        else:
            self.transformer.enable_gradient_checkpointing(run_again)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def num_blocks(self) -> int:
        return len(self.transformer.transformer_blocks)

    @property
    def num_bytes(self) -> int:
        return bytes_of(self.transformer)

    @property
    def block_bytes(self) -> int:
        return bytes_of(self.transformer.transformer_blocks)

    @property
    def input_shapes(self) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
        config = self.transformer.config
        return latents_shape(self.transformer), (config.max_text_seq_length, config.text_embed_dim)

    @contextmanager
    def first_blocks(self, count: int) -> Iterator[None]:
        """So many blocks alone, as long as it lasts."""
        all_blocks = self.transformer.transformer_blocks
        self.transformer.transformer_blocks = nn.ModuleList(all_blocks[:count])
        try:
            yield
        finally:
            self.transformer.transformer_blocks = all_blocks

    @property
    def fingerprint(self) -> str:
        """What the transformer is known by: the hash of a few of its weights, as all take minutes."""
        weights = self.transformer.state_dict()
        return fingerprint({name: weights[name] for name in KNOWN_BY})

    def to(self, device: torch.device) -> None:
        """Move the transformer and what learns; blocks that wait are left on the CPU."""
        self._device = device
        for name, part in self.transformer.named_children():
            waits = self.saving.offload and name == "transformer_blocks"
            part.to("cpu" if waits else device)
        for weight in self.weights.values():
            weight.data = weight.data.to(device)

    def predict(
        self, latents_BFCHW: Tensor, picture_BFCHW: Tensor, timestep_B: Tensor, text_embeds_BMC: Tensor
    ) -> Tensor:
        """Velocity (B, F, C, h, w)."""
        return predict_velocity(self.transformer, latents_BFCHW, picture_BFCHW, timestep_B, text_embeds_BMC)
