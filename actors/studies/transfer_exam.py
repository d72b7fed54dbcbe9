"""The exam of the study of transfer: how well figures are denoised, in looks that were taught and others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from einops import rearrange
from torch import Tensor

from flash_modules.flash.training.action_training import ActionTraining, Host
from flash_modules.training.sampling import seeded

from ..base.pool import covered
from ..world.clips import Clip, clip_video, make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion

UNSEEN = 6 * 10**6
"""Seeds from here on are of performances and looks that nobody learns from."""
TIMESTEPS = (100, 300, 500, 700, 900)

Errors = Mapping[str, Mapping[str, float]]
"""By set of clips: mean squared errors of what is predicted, of "figures" and "around" them."""


def exam_clips(taught: Sequence[Clip], action: str, control: str, size: int) -> dict[str, list[Clip]]:
    """Clips by set: motion and look that were taught, one of them, none of them; and another action.

    New looks are such as the small base has never seen either.
    """
    motions = [clip.motion for clip in taught]
    new = [draw_motion(action, UNSEEN + i, close=True) for i in range(2 * len(taught))]
    other = [draw_motion(control, UNSEEN + i, close=True) for i in range(2 * len(taught))]
    looks = [draw_look(UNSEEN + i, held_out=True) for i in range(2 * len(taught))]
    performances = {
        "taught": [(clip.motion, clip.look) for clip in taught],
        "taught motion, new look": [*zip(motions, looks, strict=False)],
        "new motion, taught look": [(motion, taught[0].look) for motion in new[: len(taught)]],
        "new": [*zip(new, looks, strict=True)],
        "control": [*zip(other, looks, strict=True)],
    }
    return {
        name: [make_clip(*performance, size=size) for performance in performed]
        for name, performed in performances.items()
    }


@dataclass(frozen=True)
class Exam:
    """Sets of clips as latents, asked about with the same noise each time."""

    sets: Sequence[str]
    """The set of each clip."""
    places: Sequence[int]
    """Its place in its set; clips of one place share their noise."""
    latents_BFCHW: Tensor
    text_embeds_BMC: Tensor
    figures_BFHW: Tensor
    """How much of each latent pixel people and things cover, 0 to 1."""

    @torch.no_grad()
    def errors(self, training: ActionTraining[Host]) -> Errors:
        """What is learned so far is asked at each timestep."""
        by_timestep = [self._errors(training, timestep) for timestep in TIMESTEPS]
        figures_B, around_B = (torch.stack(of).mean(0).tolist() for of in zip(*by_timestep, strict=True))
        return {
            name: {
                "figures": fmean(e for e, of in zip(figures_B, self.sets, strict=True) if of == name),
                "around": fmean(e for e, of in zip(around_B, self.sets, strict=True) if of == name),
            }
            for name in dict.fromkeys(self.sets)
        }

    def _errors(self, training: ActionTraining[Host], timestep: int) -> tuple[Tensor, Tensor]:
        """Of each clip (B): the mean over what figures cover, and over the rest; frame 0 does not count."""
        host, shape = training.host, self.latents_BFCHW.shape[1:]
        drawn = [torch.randn(shape, generator=seeded(place, "transfer", timestep)) for place in self.places]
        noise_BFCHW = torch.stack(drawn).to(host.device)
        timestep_B = torch.full((len(drawn),), timestep, device=host.device)
        noised_BFCHW = host.noise.noised(self.latents_BFCHW, noise_BFCHW, timestep_B)
        found_BFCHW = host.predict(noised_BFCHW, timestep_B, self.text_embeds_BMC)
        wanted_BFCHW = host.noise.target(self.latents_BFCHW, noise_BFCHW, timestep_B)
        errors_BFHW = (found_BFCHW.float() - wanted_BFCHW)[:, 1:].square().mean(2)
        weights_BFHW = self.figures_BFHW[:, 1:]
        return _weighted(errors_BFHW, weights_BFHW), _weighted(errors_BFHW, 1 - weights_BFHW)


def _weighted(errors_BFHW: Tensor, weights_BFHW: Tensor) -> Tensor:
    return ((errors_BFHW * weights_BFHW).sum((1, 2, 3)) / weights_BFHW.sum((1, 2, 3))).cpu()


def make_exam(training: ActionTraining[Host], clips: Mapping[str, Sequence[Clip]]) -> Exam:
    """The clips, encoded once."""
    everything = [(name, place, clip) for name, of in clips.items() for place, clip in enumerate(of)]
    with torch.no_grad(), training.host.encoder() as encode:
        videos = [rearrange(clip_video(clip), "f h w c -> f c h w") for *_, clip in everything]
        latents_BFCHW = torch.stack([encode(video_FCHW).clone() for video_FCHW in videos])
    figures = [torch.from_numpy(covered(clip.masks_FHW > 0)).float() / 255 for *_, clip in everything]
    return Exam(
        sets=[name for name, *_ in everything],
        places=[place for _, place, _ in everything],
        latents_BFCHW=latents_BFCHW.to(training.host.device),
        text_embeds_BMC=torch.cat([training.embeds(clip.caption) for *_, clip in everything]),
        figures_BFHW=torch.stack(figures).to(training.host.device),
    )
