"""A tiny CogVideoX for pictures, pretrained on drawn clips: what FlexiAct's lessons are tried on.

diffusers' transformer in the layout of CogVideoX-5b-I2V, with a fixed code in the VAE's place and fixed
vectors in the text encoder's, so that all that learns is the transformer. No frames are merged in time.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel
from einops import rearrange, reduce
from torch import Tensor, nn
from tqdm import tqdm

from flash_modules.backends.diffusers.cogvideox.guidance import predict_velocity
from flash_modules.flexiact.noise_schedule import NUM_TIMESTEPS, alphas_cumprod
from flash_modules.training.sampling import seeded

from .patch_code import CHANNELS, SIDE, encode
from .pool import ClipPool, actor_clip, make_pool
from .sizes import IMAGE_SIZE
from .training import Limit, Recipe, averaged_weights, generator, train

NUM_FRAMES = 9
"""4 n + 1, as CogVideoX counts; 1.1 seconds."""
WORDS, TEXT_WIDTH = 24, 64
"""Of a caption, at most, and of a word's vector."""
RECIPE = Recipe(lr=1e-3, parts=("transformer",))

_FIGURES = 3.0
"""Weight of the error of people and things, where places have 1."""
_TEXT_DROP, _PICTURE_DROP = 0.1, 0.05
"""CogVideoX's chances of the empty caption, and of no picture."""
BASE = "base"
"""Folder of the stage."""


def new_transformer(seed: int) -> CogVideoXTransformer3DModel:
    """Of 6 layers, 4 heads of 32, for 9 x 16 x 12 x 12 latents: 324 tokens, and 24 of text. 2.5 million."""
    torch.manual_seed(seed)
    return CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=2 * CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=128,
        text_embed_dim=TEXT_WIDTH,
        num_layers=6,
        sample_width=IMAGE_SIZE // SIDE,
        sample_height=IMAGE_SIZE // SIDE,
        sample_frames=NUM_FRAMES,
        temporal_compression_ratio=1,
        max_text_seq_length=WORDS,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    )


def text_embeds(caption: str) -> Tensor:
    """A caption (1, 24, 64): fixed random vectors of each word and of its place; zeros after the last.

    Raises ValueError for more than 24 words.
    """
    words = caption.replace(",", " ").split()
    if len(words) > WORDS:
        raise ValueError(f"A caption has at most {WORDS} words, and this one {len(words)}: '{caption}'.")
    text_MC = torch.zeros(WORDS, TEXT_WIDTH)
    for place, word in enumerate(words):
        for what in (word, place):
            text_MC[place] += torch.randn(TEXT_WIDTH, generator=seeded(0, "text", what))
    return text_MC[None]


def make_clips(out: Path, num_clips: int, seed: int) -> ClipPool:
    """The clips that are pretrained on, rendered where they are missing."""
    source = partial(actor_clip, num_frames=NUM_FRAMES)
    make_pool(out / "pool", source, num_clips, seed, workers=1)
    return ClipPool(out / "pool", num_clips)


class VideoData:
    """Clips as latents, with their captions and figures; batches are drawn of them."""

    def __init__(self, pool: ClipPool) -> None:
        self.latents_KFCHW = torch.cat(
            [_latents(torch.from_numpy(np.array(chunk))) for chunk in tqdm(pool.chunks_KFHW3, desc="latents")]
        )[: len(pool)]
        self.figures_KFHW = figure_shares(pool.figures_KFHW.float() / 255)
        texts = {caption: text_embeds(caption) for caption in dict.fromkeys(pool.captions)}
        self.texts_KMC = torch.cat([texts[caption] for caption in pool.captions])

    def draw(self, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents (B, F, C, H, W), the picture's beside them, text (B, M, C), and weights of errors."""
        clips = torch.randint(len(self.texts_KMC), (count,), generator=draws)
        latents_BFCHW = self.latents_KFCHW[clips].float()
        kept = torch.rand(2, count, generator=draws) >= torch.tensor([[_TEXT_DROP], [_PICTURE_DROP]])
        weights_BFHW = 1 + (_FIGURES - 1) * self.figures_KFHW[clips]
        return (
            latents_BFCHW,
            beside(latents_BFCHW) * rearrange(kept[1], "b -> b 1 1 1 1"),
            self.texts_KMC[clips] * rearrange(kept[0], "b -> b 1 1"),
            rearrange(weights_BFHW, "b f h w -> b f 1 h w"),
        )


def _latents(frames_KFHW3: Tensor) -> Tensor:
    pixels_XCHW = rearrange(frames_KFHW3, "k f h w c -> (k f) c h w").float() / 255
    return rearrange(encode(pixels_XCHW).half(), "(k f) c h w -> k f c h w", f=frames_KFHW3.shape[1])


def beside(latents_BFCHW: Tensor) -> Tensor:
    """What tells the transformer of the picture: the first frame's latent, then zeros."""
    first_BFCHW = torch.zeros_like(latents_BFCHW)
    first_BFCHW[:, 0] = latents_BFCHW[:, 0]
    return first_BFCHW


def figure_shares(covered_BFHW: Tensor) -> Tensor:
    """How much of each latent pixel figures cover, of how much of each of a finer grid's."""
    times = covered_BFHW.shape[-1] * SIDE // IMAGE_SIZE
    return reduce(covered_BFHW, "b f (h y) (w x) -> b f h w", "mean", y=times, x=times)


def base_loss(
    transformer: CogVideoXTransformer3DModel, data: VideoData, count: int, draws: torch.Generator
) -> Tensor:
    """Mean squared error of the velocity of so many clips, each at a timestep of its own."""
    latents_BFCHW, picture_BFCHW, text_BMC, weights_BF1HW = data.draw(count, draws)
    timestep_B = torch.randint(NUM_TIMESTEPS, (count,), generator=draws)
    noise_BFCHW = torch.randn(latents_BFCHW.shape, generator=draws)
    alpha = rearrange(alphas_cumprod()[timestep_B].float(), "b -> b 1 1 1 1")
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    found_BFCHW = predict_velocity(
        transformer, signal * latents_BFCHW + spread * noise_BFCHW, picture_BFCHW, timestep_B, text_BMC
    )
    off_BFCHW = found_BFCHW - (signal * noise_BFCHW - spread * latents_BFCHW)
    return (off_BFCHW.square() * weights_BF1HW).mean() / weights_BF1HW.mean()


def pretrain(out: Path, pool: ClipPool, limit: Limit, *, seed: int, batch: int) -> None:
    """Train the transformer until the limit, into out/base; what was begun there goes on."""
    transformer, data = new_transformer(seed).train(), VideoData(pool)
    train(
        out / BASE,
        nn.ModuleDict({"transformer": transformer}),
        lambda step, over: base_loss(transformer, data, batch, generator(seed, BASE, step)),
        RECIPE,
        limit,
    )


def read_transformer(out: Path) -> CogVideoXTransformer3DModel:
    """The pretrained transformer, averaged over its last steps. Raises ValueError if there is none."""
    transformer = new_transformer(0)
    missing, unknown = transformer.load_state_dict(averaged_weights(out / BASE, "transformer"), strict=False)
    assert not unknown
    assert set(missing) <= {"patch_embed.pos_embedding"}, missing  # a buffer that nothing changes
    return transformer.eval().requires_grad_(False)
