"""What a video needs from a sampling run of ComfyUI, whatever the sampler.

Checks before the first step, the clean first frame at every call of the U-Net, context windows that begin
with the first frame, and previews that move.
"""

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....flash.first_frame import replace_first_frame
from .context_windows import check_windows, run_window, whole_video
from .links import check_run
from .options import CROSS_FRAME, FIRST_FRAME, MOTION, RUN, VIDEO


def add_run_wrappers(m: ModelPatcher) -> ModelPatcher:
    """The same MODEL, with the wrappers below in place once, whichever nodes of ours came first."""
    wrappers = (
        (WrappersMP.OUTER_SAMPLE, _outer_sample),
        (WrappersMP.PREDICT_NOISE, _predict_noise),
        (WrappersMP.CALC_COND_BATCH, _calc_cond_batch),
    )
    for kind, wrapper in wrappers:
        m.remove_wrappers_with_key(kind, RUN)
        m.add_wrapper_with_key(kind, RUN, wrapper)
    return m


def _outer_sample(executor, noise, latent_image, sampler, sigmas, denoise_mask, callback, *rest, **kwargs):
    guider = executor.class_obj
    options = guider.model_options["transformer_options"]
    first = options.get(FIRST_FRAME)
    check_run(options, latent_image, denoise_mask)
    _check_video(options, noise.shape, guider.model_options.get("context_handler"))
    if first is None:
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, *rest, **kwargs)
    preview = MovingPreview(callback)
    out = executor(noise, latent_image, sampler, sigmas, denoise_mask, preview, *rest, **kwargs)
    preview.finish()
    return replace_first_frame(out, first.latent_1CHW)


def _check_video(options, shape, context_handler) -> None:
    num_frames = shape[0]
    if num_frames < 2:
        raise ValueError(
            "The latent holds 1 frame, but a video needs 2 or more: connect the LATENT of First Frame to the "
            "sampler, or raise the `batch_size` of Empty Latent Image."
        )
    first = options.get(FIRST_FRAME)
    if first is not None and first.latent_1CHW.shape[1:] != shape[1:]:
        height, width = first.latent_1CHW.shape[2:]
        raise ValueError(
            f"The first frame is {width} x {height} in latent pixels and the video is "
            f"{shape[3]} x {shape[2]}: connect the LATENT of First Frame to the sampler, "
            "or use one more First Frame with a reference of the video's size."
        )
    plan = options.get(MOTION)
    needs_first = first is not None or CROSS_FRAME in options
    check_windows(
        context_handler,
        num_frames,
        plan.config.max_frames if plan else None,
        needs_first=needs_first,
        frames_widget=first.frames_widget if first else "the `batch_size` of Empty Latent Image",
    )


def _predict_noise(executor, x, timestep, model_options, seed):
    guider = executor.class_obj
    options = model_options["transformer_options"]
    first = options.get(FIRST_FRAME)
    if first is not None:
        x = replace_first_frame(x, first.in_sampler(guider.inner_model, timestep))
    if model_options.get("context_handler") is not None and (first is not None or CROSS_FRAME in options):
        video = whole_video(x, timestep, guider.conds)
        model_options = {**model_options, "transformer_options": {**options, VIDEO: video}}
    out = executor(x, timestep, model_options, seed)
    return out if first is None else replace_first_frame(out, first.z0(guider.inner_model))


def _calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
    """The innermost call with whole prompts. Guidance nodes that ask the model again come here too."""
    options = model_options["transformer_options"]
    first = options.get(FIRST_FRAME)

    def run(model, conds, x_in, timestep, model_options):
        if first is None:
            return executor(model, conds, x_in, timestep, model_options)
        x_in = replace_first_frame(x_in, first.in_sampler(model, timestep))
        outs = executor(model, conds, x_in, timestep, model_options)
        return [replace_first_frame(out, first.z0(model)) for out in outs]

    if VIDEO in options and "context_window" in options:
        return run_window(run, options[VIDEO], model, conds, x_in, model_options)
    return run(model, conds, x_in, timestep, model_options)


class MovingPreview:
    """Shows a later frame at each step: ComfyUI previews frame 0, which never changes here.

    The callback also carries the result of custom samplers, so it gets all frames, turned until the one to
    show comes first, and at last in their true order.
    """

    def __init__(self, callback):
        self._callback = callback
        self._last = None

    def __call__(self, step, x0, x, total_steps):
        self._last = (step, x0, x, total_steps)
        if self._callback is not None:
            shown = 1 + step % (x0.shape[0] - 1)
            self._callback(step, x0.roll(-shown, dims=0), x, total_steps)

    def finish(self):
        if self._callback is not None and self._last is not None:
            self._callback(*self._last)
