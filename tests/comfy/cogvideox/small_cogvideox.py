"""A small random CogVideoX-5b-I2V, diffusers' and ComfyUI's, and FlexiAct written slowly.

Every part of the layout is there: learned and rotary positions, text rows that are not zero, 32 channels.
"""

import math
from dataclasses import dataclass, field

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import get_resize_crop_region_for_grid
from einops import rearrange
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from flash_pack.flash_modules.flexiact.action_file import TransferAction
from flash_pack.flash_modules.flexiact.ref_adapter_file import PARTS, LowRank, RefAdapter
from flash_pack.tests.backends.small_models import randomise

LAYERS, HEADS, HEAD, TEXT, TEXT_WIDTH = 3, 3, 64, 10, 48
WIDTH = HEADS * HEAD
FRAMES, HEIGHT, WIDE = 3, 8, 12
"""Of the latents."""
TOKENS, RANK = 7, 4


def diffusers_transformer(**changes) -> CogVideoXTransformer3DModel:
    """diffusers' model; `changes` of its settings."""
    settings = {
        "num_attention_heads": HEADS,
        "attention_head_dim": HEAD,
        "in_channels": 32,
        "out_channels": 16,
        "time_embed_dim": 32,
        "text_embed_dim": TEXT_WIDTH,
        "num_layers": LAYERS,
        "sample_width": WIDE,
        "sample_height": HEIGHT,
        "sample_frames": 4 * (FRAMES - 1) + 1,
        "max_text_seq_length": TEXT,
        "spatial_interpolation_scale": 1.875,
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    }
    transformer = randomise(CogVideoXTransformer3DModel(**{**settings, **changes}), 0)
    if changes.get("use_learned_positional_embeddings", True):
        positions = transformer.patch_embed.pos_embedding
        positions.copy_(torch.randn(positions.shape, generator=torch.Generator().manual_seed(1)) * 0.5)
    return transformer


def comfyui_model(twin: CogVideoXTransformer3DModel):
    """ComfyUI's MODEL with the same weights, as its own loader would give it, had it read so small a file."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    from flash_pack.flash_modules.backends.comfy.cogvideox.names import core_names

    config = twin.config
    kept = ("num_attention_heads", "in_channels", "time_embed_dim", "text_embed_dim", "num_layers")
    kept += ("sample_width", "sample_height", "sample_frames", "max_text_seq_length")
    settings = {name: config[name] for name in kept}
    settings |= {
        "image_model": "cogvideox",
        "use_learned_positional_embeddings": True,
        "dtype": torch.float32,
    }
    model_config = comfy.supported_models.CogVideoX_I2V(settings)
    model_config.latent_format = comfy.latent_formats.CogVideoX1_5()  # ComfyUI tells it by 48 heads
    model_config.set_inference_dtype(torch.float32, None)
    base = comfy.model_base.CogVideoX(model_config, image_to_video=True)
    weights = {name: weight.clone() for name, weight in core_names(twin.state_dict()).items()}
    base.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.ModelPatcher(base.eval(), torch.device("cpu"), torch.device("cpu"))


def random_action(
    seed: int = 5, tokens: int = TOKENS, name: str = "jump", layers: int = LAYERS
) -> TransferAction:
    draw = torch.Generator().manual_seed(seed)
    return TransferAction(name=name, tokens_LMC=torch.randn(layers, tokens, WIDTH, generator=draw))


def random_adapter(seed: int = 6, layers: int = LAYERS) -> RefAdapter:
    draw = torch.Generator().manual_seed(seed)
    parts = {
        (layer, part): LowRank(
            down_RC=torch.randn(RANK, WIDTH, generator=draw) / 14,
            up_CR=torch.randn(WIDTH, RANK, generator=draw) / 14,
            alpha=RANK / 2,
        )
        for layer in range(layers)
        for part in PARTS
    }
    return RefAdapter(name="adapter", parts=parts)


@dataclass
class SlowPerformance:
    """What the oracle does: tokens of one layer as text that is thrown away, and a dense mask."""

    action: TransferAction | None = None
    adapter: RefAdapter | None = None
    adapter_strength: float = 1.0
    boost: float = 0.0
    strength: float = 1.0
    further: list["SlowPerformance"] = field(default_factory=list)
    """More actions, each with its boost and strength."""

    @property
    def all(self) -> list["SlowPerformance"]:
        return [each for each in (self, *self.further) if each.action is not None]


class SlowProcessor:
    """FlexiAct's attention in one layer of diffusers' model, written from the paper's words alone."""

    def __init__(self, layer: int, slow: SlowPerformance):
        self.layer, self.slow = layer, slow

    def __call__(
        self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None
    ):
        batch, num_text, num_video = (
            len(hidden_states),
            encoder_hidden_states.shape[1],
            hidden_states.shape[1],
        )
        motion = [each.action.tokens_LMC[self.layer].expand(batch, -1, -1) for each in self.slow.all]
        tokens = torch.cat([encoder_hidden_states, *motion, hidden_states], dim=1)
        q, k, v = (
            rearrange(self._project(attn, part, tokens), "b n (h d) -> b h n d", h=attn.heads)
            for part in "qkv"
        )
        q, k = attn.norm_q(q), attn.norm_k(k)
        q[:, :, -num_video:] = apply_rotary_emb(q[:, :, -num_video:], image_rotary_emb)
        k[:, :, -num_video:] = apply_rotary_emb(k[:, :, -num_video:], image_rotary_emb)
        bias = torch.zeros(tokens.shape[1], tokens.shape[1])
        start = num_text
        for each, its_tokens in zip(self.slow.all, motion, strict=True):
            end = start + its_tokens.shape[1]
            bias[:, start:end] += math.log(each.strength)
            bias[-num_video:, start:end] += each.boost
            start = end
        out = rearrange(_masked_attention(q, k, v, bias), "b h n d -> b n (h d)")
        out = self._project(attn, "out", out)
        return out[:, -num_video:], out[:, :num_text]

    def _project(self, attn, part: str, tokens: Tensor) -> Tensor:
        layer = attn.to_out[0] if part == "out" else getattr(attn, f"to_{part}")
        weight = layer.weight
        if self.slow.adapter is not None:
            weight = weight + self.slow.adapter.parts[self.layer, part].delta(self.slow.adapter_strength)
        return linear(tokens, weight, layer.bias)


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """With a dense mask; some queries after the others, since 17,550 at once would take gigabytes."""
    rows = zip(q.split(2048, dim=2), bias.split(2048), strict=True)
    outs = [scaled_dot_product_attention(some, k, v, attn_mask=its) for some, its in rows]
    return torch.cat(outs, dim=2)


def slow_velocity(
    twin: CogVideoXTransformer3DModel,
    latents_BFCHW: Tensor,
    picture_BFCHW: Tensor,
    timestep: int,
    text_BNC: Tensor,
    slow: SlowPerformance,
) -> Tensor:
    """Velocity (B, F, 16, H, W); the picture is a scaled latent, padded with zeros to all frames."""
    for layer, block in enumerate(twin.transformer_blocks):
        block.attn1.processor = SlowProcessor(layer, slow)
    return twin(
        hidden_states=torch.cat([latents_BFCHW, picture_BFCHW], dim=2),
        encoder_hidden_states=text_BNC,
        timestep=torch.full((len(latents_BFCHW),), timestep),
        image_rotary_emb=rotary(twin, latents_BFCHW.shape[1]),
        return_dict=False,
    )[0]


def rotary(twin: CogVideoXTransformer3DModel, frames: int) -> tuple[Tensor, Tensor]:
    """As diffusers' pipeline makes it."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    grid = (twin.config.sample_height // 2, twin.config.sample_width // 2)
    crops = get_resize_crop_region_for_grid(grid, grid[1], grid[0])
    return get_3d_rotary_pos_embed(
        embed_dim=HEAD, crops_coords=crops, grid_size=grid, temporal_size=frames, device=torch.device("cpu")
    )
