"""ComfyUI's context windows, each made of the clean first frame and the window's own frames.

ComfyUI cuts a long video into windows. Ours need the video's first frame as their frame 0, because
cross-frame attention and the motion start there, so each window is cut again from the whole video.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.context_windows import IndexListContextHandler
from torch import Tensor

from .options import COND_PLACE


@dataclass(frozen=True)
class WholeVideo:
    """One step's video before ComfyUI cut it into windows."""

    x_FCHW: Tensor
    sigma_F: Tensor
    conds: tuple[dict, ...]
    """All prompts; each holds its place here, and so do the copies that ComfyUI makes for windows."""


def whole_video(x_FCHW: Tensor, sigma_F: Tensor, conds: dict[str, list[dict]]) -> WholeVideo:
    """The video of this step. Marks the prompts of the run, so that a window's prompt is found again."""
    prompts = tuple(cond for side in conds.values() for cond in side)
    for place, cond in enumerate(prompts):
        cond[COND_PLACE] = place
    return WholeVideo(x_FCHW, sigma_F, prompts)


def check_windows(
    handler, num_frames: int, max_frames: int | None, *, needs_first: bool, frames_widget: str
) -> None:
    """Raise ValueError if the run would ask for more frames at a time than the motion knows.

    `frames_widget` is where a user sets their number.
    """
    windowed = handler is not None and (
        not isinstance(handler, IndexListContextHandler) or num_frames > handler.context_length
    )
    if not windowed:
        if max_frames is not None and num_frames > max_frames:
            raise ValueError(
                f"The video has {num_frames} frames, but this motion was trained with up to {max_frames}: "
                f"set {frames_widget} to {max_frames} or less, or put Context Windows (Manual) before the "
                "sampler."
            )
        return
    if not isinstance(handler, IndexListContextHandler) or handler.dim != 0:
        raise ValueError(
            "These context windows do not run along the frames: use Context Windows (Manual) with `dim` 0."
        )
    extra = 1 if needs_first or handler.causal_window_fix else 0
    if max_frames is not None and handler.context_length + extra > max_frames:
        raise ValueError(
            f"Context windows of {handler.context_length} frames, each with one frame before them, are "
            f"longer than the {max_frames} frames that this motion was trained with: in Context Windows "
            f"(Manual), set `context_length` to {max_frames - extra} or less."
        )


def run_window(run: Callable, video: WholeVideo, model, conds, x_in: Tensor, model_options) -> list[Tensor]:
    """Run [first frame; own frames of the window], and put the results where ComfyUI expects them."""
    window = model_options["transformer_options"]["context_window"].index_list
    frames = [0] + [frame for frame in window if frame != 0]
    total = video.x_FCHW.shape[0]
    x_FCHW = video.x_FCHW.clone()
    # ComfyUI may have put one more frame before the window, and frames of its choice over others.
    before = x_in.shape[0] - len(window)
    retained = model_options["context_handler"].latent_retain_index_list
    own = [position for position in range(len(window)) if position + before not in retained]
    x_FCHW[[window[position] for position in own]] = x_in[[position + before for position in own]]
    own_conds = [
        None if side is None else [_cut(cond, video.conds, frames, total) for cond in side] for side in conds
    ]
    sigma = video.sigma_F[:1].expand(len(frames))
    outs = run(model, own_conds, x_FCHW[frames], sigma, model_options)
    # The result of the frame before the window is thrown away.
    rows = [frames.index(frame) for frame in [0] * before + list(window)]
    return [out[rows] for out in outs]


def _cut(cond: dict, conds: tuple[dict, ...], frames: list[int], total: int) -> dict:
    """A prompt for these frames: whatever is given per frame is taken from the whole video's prompt."""
    if COND_PLACE not in cond:  # a node's own prompt, which belongs to no frame
        return cond
    whole = conds[cond[COND_PLACE]]

    def per_frame(value) -> bool:
        return isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == total

    cut = {key: whole[key][frames] if per_frame(whole[key]) else value for key, value in cond.items()}
    cut["model_conds"] = {
        name: value._copy_with(value.cond[frames])
        if per_frame(getattr(value, "cond", None))
        else cond["model_conds"][name]
        for name, value in whole["model_conds"].items()
    }
    return cut
