"""Rows of FlexiAct, measured: a step with guidance, and a step of learning, of random weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from flash_modules.backends.diffusers.cogvideox import (
    add_transfer,
    guided_velocity,
    keep_blocks_on_cpu,
    latents_shape,
)
from flash_modules.backends.diffusers.cogvideox.train import LearningTokens
from flash_modules.flexiact.action_file import TransferAction
from flash_modules.flexiact.performance import Performance
from flash_modules.flexiact.training.saving import SAVINGS, Saving

from .steps import Rows, Step, timed

TRUE = {"num_attention_heads": 48, "num_layers": 42}
"""CogVideoX-5b-I2V, where they differ from diffusers' defaults."""
SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "sample_width": 8,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": 6,
    "text_embed_dim": 24,
    "time_embed_dim": 20,
}
TOKENS = 226
BOOSTED, PLAIN = 900, 500
"""Timesteps with all and with nothing of the early boost."""


@dataclass(frozen=True, kw_only=True)
class TransferLoad:
    """Sizes of everything that is measured."""

    device: str
    dtype: torch.dtype
    settings: Mapping[str, int]
    """Of the transformer."""
    tokens: int
    """Of an action, in each layer."""


CUDA = TransferLoad(device="cuda", dtype=torch.bfloat16, settings=TRUE, tokens=TOKENS)
DRY = TransferLoad(device="cpu", dtype=torch.float32, settings=SMALL, tokens=5)


def labels(load: TransferLoad) -> dict[str, str]:
    """What a row is beside its name, for JSON."""
    with torch.device("meta"):
        config = new_transformer(load.settings).config
    size = f"{8 * config.sample_width}x{8 * config.sample_height}"
    return {"dtype": str(load.dtype).removeprefix("torch."), "video": f"{config.sample_frames} x {size}"}


def flags(saving: Saving) -> str:
    """How the command line spells it."""
    return f"--checkpointing {saving.checkpointing}{' --offload blocks' if saving.offload else ''}"


def rows(load: TransferLoad) -> Rows:
    """All of one transformer, which the first row that is built makes."""
    models = Models(load)
    return {
        "diffusers' own model": partial(models.performing, PLAIN),
        "with an action": partial(models.performing, PLAIN, acting=True),
        "with an action, boosted": partial(models.performing, BOOSTED, acting=True),
        "with an action, blocks on the CPU": partial(models.performing, PLAIN, acting=True, waiting=True),
        **{f"learning, {flags(saving)}": partial(models.learning, saving) for saving in SAVINGS},
    }


def new_transformer(settings: Mapping[str, int]) -> CogVideoXTransformer3DModel:
    """On torch's default device."""
    return CogVideoXTransformer3DModel(
        in_channels=32,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
        **settings,
    )


class Models:
    """A transformer, and what a row has put into it: the next one takes that out again."""

    def __init__(self, load: TransferLoad) -> None:
        self.load, self.device = load, torch.device(load.device)
        self._added: list[Callable[[], None]] = []

    @cached_property
    def _transformer(self) -> CogVideoXTransformer3DModel:
        usual = torch.get_default_dtype()
        torch.set_default_dtype(self.load.dtype)
        try:
            with self.device:
                return new_transformer(self.load.settings).eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(usual)

    def performing(self, timestep: int, *, acting: bool = False, waiting: bool = False) -> Step:
        """A step with guidance, as two predictions."""
        transformer = self._plain()
        if acting:
            self._added.append(add_transfer(transformer, [Performance(action=self._action())]))
        if waiting:
            self._added.append(keep_blocks_on_cpu(transformer, self.device))
        latents_FCHW = self._latents()
        predict = guided_velocity(transformer, latents_FCHW[:1], self._text(), self._text(), 6.0)
        return timed(torch.inference_mode()(lambda: predict(latents_FCHW, timestep)))

    def learning(self, saving: Saving) -> Step:
        """A step: prediction, backward pass, AdamW."""
        host = LearningTokens(self._plain(), self.load.tokens, saving)
        self._added.append(host.remove)
        host.to(self.device)
        latents_1FCHW, text = self._latents()[None], self._text()
        timestep_1 = torch.tensor([PLAIN], device=self.device)
        optimizer = torch.optim.AdamW(host.tokens.values(), lr=3e-3)

        def learn() -> None:
            velocity_1FCHW = host.predict(latents_1FCHW, latents_1FCHW, timestep_1, text)
            velocity_1FCHW.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return timed(learn)

    def _plain(self) -> CogVideoXTransformer3DModel:
        while self._added:
            self._added.pop()()
        return self._transformer.to(self.device)

    def _action(self) -> TransferAction:
        layers, width = len(self._transformer.transformer_blocks), self._transformer.proj_out.in_features
        return TransferAction(name="random", tokens_LMC=torch.randn(layers, self.load.tokens, width))

    def _latents(self) -> Tensor:
        return torch.randn(latents_shape(self._transformer), device=self.device)

    def _text(self) -> Tensor:
        config = self._transformer.config
        return torch.randn(1, config.max_text_seq_length, config.text_embed_dim, device=self.device)
