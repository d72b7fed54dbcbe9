"""Learning from one clip on a node: gone on with, shown, saved whatever ends it, given back as an action."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import comfy.model_management
import torch
from torch import Tensor

from .....flexiact.action_file import write_transfer_action
from .....flexiact.training.encoded import encode_views
from .....flexiact.training.lesson import LESSON, Lesson, kept_lesson
from .....flexiact.training.sheet import draw_sheet
from .....flexiact.training.token_training import TokenTraining
from .....training.run_folder import Progress
from ...folders import input_file_state
from ...learning.alone import train_and_write, training_alone, unload_models
from ...learning.encoders import vae_in_use
from ...learning.needs import used_memory
from ...learning.own_weights import baked_in
from ...learning.result import run_state
from ...learning.show import NodeDisplay, as_output, write_sheet
from ...pictures import as_image
from .encode import embed_prompt, encode_moments
from .needs import estimate, out_of_memory, save_what_is_needed
from .plan import OneClipLesson, OneClipPlan, make_plan
from .report import LearnedFromOneClip, report
from .samples import Samples, picture_latent
from .tokens import LearningTokens


def learn_from_one_clip(lesson: OneClipLesson) -> LearnedFromOneClip:
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


def _train(plan: OneClipPlan) -> int:
    """The step that the action in the file has learned."""
    wishes, loop, device = plan.lesson, plan.config.loop, comfy.model_management.get_torch_device()
    host = LearningTokens(wishes.model, wishes.options.tokens)
    needs = save_what_is_needed(host, wishes.options.memory, device, sure=plan.goes_on)
    run = plan.open_run()
    says = [*plan.source.notes, estimate(host, needs, loop, loop.steps - run.newest_step(), device)]
    display = NodeDisplay(
        loop.steps, len(plan.source.caption_of), partial(used_memory, device), " · ".join(says)
    )
    scale = wishes.model.get_model_object("latent_format").scale_factor
    lesson, picture = _prepared(plan, run.path / LESSON, scale, display)
    host.to(device)
    training = TokenTraining(host, lesson, plan.config)
    samples = None if picture is None else Samples(plan, training, host, picture, scale)
    return train_and_write(
        partial(training.run, run, on_note=display.say),
        partial(_write, plan, training),
        _Sitting(plan, display, samples).step,
        partial(out_of_memory, host),
    )


def _prepared(
    plan: OneClipPlan, path: Path, scale: float, display: NodeDisplay
) -> tuple[Lesson, Tensor | None]:
    """What is learned from, kept in the run's folder, and the latent of the picture, if there is one."""
    image = plan.lesson.image
    try:
        with vae_in_use(plan.lesson.vae):
            lesson = kept_lesson(path, partial(_make_lesson, plan, scale, display))
            return lesson, None if image is None else picture_latent(plan, image, scale)
    except comfy.model_management.OOM_EXCEPTION as error:
        raise ValueError(
            "Encoding the clip takes more memory than is free, once: close what else uses it, or take "
            "another device."
        ) from error


def _make_lesson(plan: OneClipPlan, scale: float, display: NodeDisplay) -> Lesson:
    """What is taken of the clip, shown and encoded; the text encoder is off the device again."""
    wishes, source = plan.lesson, plan.source
    sheet = write_sheet(wishes.run_name, 0, as_image([draw_sheet(source)])[0])
    display.show(as_output(sheet))
    max_text = wishes.model.model.diffusion_model.max_text_seq_length
    text_embeds, empty_embeds = (embed_prompt(wishes.clip, text, max_text) for text in (*source.captions, ""))
    unload_models()
    encode: Callable[[Tensor], tuple[Tensor, Tensor]] = partial(encode_moments, wishes.vae, scale)
    return Lesson(
        views=encode_views(source.videos(), encode, display.entry),
        caption=source.captions[0],
        text_embeds=text_embeds,
        empty_embeds=empty_embeds,
        clip_sha256=source.sha256,
        caption_of=source.caption_of,
    )


def _write(plan: OneClipPlan, training: TokenTraining, step: int) -> None:
    header = {**plan.result.header, **baked_in(plan.lesson.model)}
    action = training.learned(plan.lesson.run_name, step)
    write_transfer_action(plan.result.path, replace(action, header=header))


@dataclass(frozen=True)
class _Sitting:
    """What is seen of learning while it goes on."""

    plan: OneClipPlan
    display: NodeDisplay
    samples: Samples | None

    def step(self, progress: Progress) -> None:
        self.display.step(progress)
        at_the_end = progress.step == self.plan.config.loop.steps
        due = at_the_end or progress.step % self.plan.lesson.options.sample_every == 0
        if self.samples is not None and due:
            self.display.show(as_output(self.samples.write(progress.step)))


def one_clip_state(file: str, run_name: str) -> str:
    """Changes when the clip does, and when the run has gone on: then the node must look again."""
    return f"{input_file_state(file)} {run_state(run_name)}"
