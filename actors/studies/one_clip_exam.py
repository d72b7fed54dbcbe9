"""The exam of the study of one clip: how well figures are denoised, of the motion learned and of another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from einops import rearrange
from torch import Tensor

from flash_modules.flexiact.noise_schedule import alphas_cumprod
from flash_modules.flexiact.training.loss import noisy_latents
from flash_modules.training.sampling import seeded

from ..base.patch_code import encode
from ..base.pool import covered
from ..base.sizes import IMAGE_SIZE
from ..base.video_base import NUM_FRAMES, beside, figure_shares, text_embeds
from ..world.clips import Clip, clip_video, make_clip
from ..world.looks import draw_look
from ..world.motion import Motion, draw_motion

UNSEEN = 8 * 10**6
"""Seeds from here on are of performances and looks that nobody learns from."""
TIMESTEPS = (100, 300, 500, 700, 900)
SAME, OTHER, ANOTHER = "same motion", "same action", "another action"
"""Sets, all in the same looks: the clip's own motion, other performances of its action, and of another's."""

Predict = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``predict(latents_BFCHW, picture_BFCHW, timestep_B, text_embeds_BMC) -> velocity_BFCHW``"""
Errors = Mapping[str, float]
"""By set: mean squared error of the velocity, of figures; frame 0 does not count."""


def exam_clips(motion: Motion, control: str, count: int) -> dict[str, list[Clip]]:
    """Clips by set, so many of each, in looks that the base has never seen."""
    looks = [draw_look(UNSEEN + i, held_out=True) for i in range(count)]
    motions = {
        SAME: [motion] * count,
        OTHER: [draw_motion(motion.action, UNSEEN + i, close=True) for i in range(count)],
        ANOTHER: [draw_motion(control, UNSEEN + i, close=True) for i in range(count)],
    }
    return {
        name: [
            make_clip(one, look, num_frames=NUM_FRAMES, size=IMAGE_SIZE)
            for one, look in zip(of, looks, strict=True)
        ]
        for name, of in motions.items()
    }


@dataclass(frozen=True)
class Exam:
    """Sets of clips as latents, asked about with the same noise each time."""

    latents: Mapping[str, Tensor]
    """By set, (B, F, C, h, w)."""
    texts: Mapping[str, Tensor]
    """(B, M, C)"""
    figures: Mapping[str, Tensor]
    """How much of each latent pixel people and things cover, (B, F, h, w)."""

    @torch.no_grad()
    def errors(self, predict: Predict) -> Errors:
        """By set, the mean over timesteps and clips."""
        return {
            name: fmean(self._error(predict, name, timestep) for timestep in TIMESTEPS)
            for name in self.latents
        }

    def _error(self, predict: Predict, name: str, timestep: int) -> float:
        clean_BFCHW, weights_BFHW = self.latents[name], self.figures[name][:, 1:]
        shape, alpha = clean_BFCHW.shape[1:], float(alphas_cumprod()[timestep])
        noise_BFCHW = torch.stack(
            [torch.randn(shape, generator=seeded(i, "one clip", timestep)) for i in range(len(clean_BFCHW))]
        )
        found_BFCHW = predict(
            noisy_latents(clean_BFCHW, noise_BFCHW, timestep),
            beside(clean_BFCHW),
            torch.full((len(clean_BFCHW),), timestep),
            self.texts[name],
        )
        wanted_BFCHW = alpha**0.5 * noise_BFCHW - (1 - alpha) ** 0.5 * clean_BFCHW
        off_BFHW = (found_BFCHW - wanted_BFCHW)[:, 1:].square().mean(2)
        per_clip_B = (off_BFHW * weights_BFHW).sum((1, 2, 3)) / weights_BFHW.sum((1, 2, 3))
        return float(per_clip_B.mean())


def make_exam(clips: Mapping[str, Sequence[Clip]]) -> Exam:
    """The clips as latents."""
    return Exam(
        latents={name: torch.stack([clip_latents(clip) for clip in of]) for name, of in clips.items()},
        texts={name: torch.cat([text_embeds(clip.caption) for clip in of]) for name, of in clips.items()},
        figures={
            name: figure_shares(
                torch.stack([torch.from_numpy(covered(clip.masks_FHW > 0)).float() / 255 for clip in of])
            )
            for name, of in clips.items()
        },
    )


def clip_latents(clip: Clip) -> Tensor:
    """(F, C, h, w)"""
    return encode(rearrange(clip_video(clip), "f h w c -> f c h w"))
