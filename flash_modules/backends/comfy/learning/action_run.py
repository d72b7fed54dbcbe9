"""An action's training on a node: gone on with, shown, and saved whatever ends it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ....flash.training.action_training import ActionTraining, Host
from ....flash.training.needs import Remedy
from ....training.run_folder import Progress
from .action_plan import ActionPlan
from .alone import train_and_write, unload_models
from .needs import check_memory, estimate, out_of_memory, used_memory
from .picture import fitted
from .show import NodeDisplay, as_output, write_sample


def run_action(
    plan: ActionPlan[Any],
    training: ActionTraining[Host],
    remedy: Callable[[ActionTraining[Host]], Remedy],
    notes: Sequence[str] = (),
    first: Callable[[NodeDisplay], object] = lambda display: None,
) -> int:
    """The step that the file has learned in the end.

    `remedy` says what to change where memory is short, `notes` what the user should know; `first` shows
    something before a run's first step.
    """
    loop, goes_on = plan.config.loop, plan.goes_on
    training.embeds(plan.sample_prompt)
    unload_models()  # the text encoder is needed no more
    if not goes_on:  # a run that goes on has shown that it fits
        check_memory(training, remedy(training))
    run = plan.open_run()
    display = NodeDisplay(
        loop.steps,
        len(training.pool(run.path)),
        partial(used_memory, training.host.device),
        estimate(training, loop.steps - run.newest_step()),
    )
    if not goes_on:
        first(display)
    for note in notes:
        display.say(note)
    return train_and_write(
        partial(training.run, run, on_entry=display.entry, on_marks=display.marks, on_note=display.say),
        partial(training.write, plan.result.path, standalone=False),
        _Sitting(plan, training, display).step,
        lambda: out_of_memory(training, remedy(training)),
    )


@dataclass(frozen=True)
class _Sitting:
    """What is seen of a training while it goes on."""

    plan: ActionPlan[Any]
    training: ActionTraining[Host]
    display: NodeDisplay

    def step(self, progress: Progress) -> None:
        self.display.step(progress)
        at_the_end = progress.step == self.plan.config.loop.steps
        due = at_the_end or progress.step % self.plan.options.sample_every == 0
        if self.plan.lesson.image is not None and due:
            self._sample(progress.step)

    def _sample(self, step: int) -> None:
        plan, options = self.plan, self.plan.options
        picture_1HWC = fitted(plan.lesson.image, plan.config.method.augment.shape)
        with torch.no_grad():
            frames = self.training.animate(
                picture_1HWC, plan.sample_prompt, plan.config.seed, options.sampler
            )
            path = write_sample(plan.lesson.run_name, step, frames, fps=options.sample_fps)
        self.display.show(as_output(path))
