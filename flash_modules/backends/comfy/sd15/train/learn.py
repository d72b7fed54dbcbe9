"""A training from a node: gone on with, shown, saved whatever ends it, given back as an action."""

from dataclasses import dataclass
from functools import partial

import comfy.model_management
import comfy.utils
import torch
from einops import rearrange
from torch import Tensor

from .....flash.sampling import SamplerConfig
from .....flash.training.action_training import ActionTraining
from .....flash.training.start import begin_with
from .....training.run_folder import Progress
from ...folders import clip_folder_state
from ...learning.alone import train_and_write, training_alone, unload_models
from ...learning.needs import used_memory
from ...learning.result import run_state
from ...learning.show import NodeDisplay, as_output, write_sample
from .action import ComfyHost
from .needs import check_memory, estimate, out_of_memory
from .plan import Lesson, Plan, make_plan
from .report import Learned, report


def learn_action(lesson: Lesson) -> Learned:
    """Learn, from where the run of that name is; a finished run gives its file, and no model is loaded.

    Cancel saves the last whole step and an action of it, and the same lesson goes on from there. Raises
    ValueError, with a sentence, for what cannot be learned.
    """
    with torch.inference_mode(False), torch.enable_grad():
        plan = make_plan(lesson)
        steps = plan.result.steps_if_done(plan.open_run() if plan.goes_on else None, plan.config.loop.steps)
        if steps is not None:
            return report(plan, steps)
        with training_alone():
            return report(plan, _train(plan))


def _train(plan: Plan) -> int:
    """The step that the action in the file has learned."""
    lesson, loop = plan.lesson, plan.config.loop
    host = ComfyHost(
        lesson.model, lesson.clip, lesson.vae, lesson.motion, plan.config, header=plan.result.header
    )
    training = ActionTraining(host, plan.clips.used, plan.config, plan.hashes)
    notes = begin_with(training, lesson.start) if lesson.start is not None else []
    training.embeds(plan.sample_prompt)
    unload_models()  # the text encoder is needed no more
    if not plan.goes_on:  # a run that goes on has shown that it fits
        check_memory(training)
    run = plan.open_run()
    display = NodeDisplay(
        loop.steps,
        len(training.pool(run.path)),
        partial(used_memory, host.device),
        estimate(training, loop.steps - run.newest_step()),
    )
    sitting = _Sitting(plan, training, display)
    for note in notes:
        display.say(note)
    return train_and_write(
        partial(training.run, run, on_entry=display.entry, on_marks=display.marks, on_note=display.say),
        partial(training.write, plan.result.path, standalone=False),
        sitting.step,
        partial(out_of_memory, training),
    )


@dataclass(frozen=True)
class _Sitting:
    """What is seen of a training while it goes on."""

    plan: Plan
    training: ActionTraining[ComfyHost]
    display: NodeDisplay

    def step(self, progress: Progress) -> None:
        self.display.step(progress)
        at_the_end = progress.step == self.plan.config.loop.steps
        if self.plan.lesson.image is not None and (
            at_the_end or progress.step % self.plan.options.sample_every == 0
        ):
            self._sample(self.plan.lesson.image, progress.step)

    def _sample(self, image_BHWC: Tensor, step: int) -> None:
        config = self.plan.config
        picture_1HWC = _square(image_BHWC[:1, ..., :3].clone(), config.method.augment.size)
        sampler = SamplerConfig(num_frames=config.sampling.num_frames, steps=self.plan.options.sample_steps)
        with torch.no_grad():
            frames = self.training.animate(picture_1HWC, self.plan.sample_prompt, config.seed, sampler)
            path = write_sample(self.plan.lesson.run_name, step, frames)
        self.display.show(as_output(path))


def _square(image_1HWC: Tensor, size: int) -> Tensor:
    """The picture, cut to the centre and resized."""
    image_1CHW = rearrange(image_1HWC, "1 h w c -> 1 c h w")
    scaled_1CHW = comfy.utils.common_upscale(image_1CHW, size, size, "lanczos", "center")
    return rearrange(scaled_1CHW, "1 c h w -> 1 h w c")


def lesson_state(folder_name: str, run_name: str) -> str:
    """Changes when the clips do, and when the run has gone on: then the node must look again."""
    return f"{clip_folder_state(folder_name)} {run_state(run_name)}"
