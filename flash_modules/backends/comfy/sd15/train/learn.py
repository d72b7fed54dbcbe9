"""A training from a node: gone on with, shown, saved whatever ends it, given back as an action."""

import torch

from .....flash.training.action_training import ActionTraining
from .....flash.training.start import begin_with
from ...learning.action_run import run_action
from ...learning.alone import training_alone
from .action import ComfyHost
from .needs import remedy_for
from .plan import Lesson, Plan, make_plan
from .report import Learned, report


def learn_action(lesson: Lesson) -> Learned:
    """Learn, from where the run of that name is; a finished run gives its file, and no model is loaded.

    Cancel saves the last whole step and an action of it, and the same lesson goes on from there. Raises
    ValueError, with a sentence, for what cannot be learned.
    """
    with torch.inference_mode(False), torch.enable_grad():
        plan = make_plan(lesson)
        steps = plan.steps_if_done()
        if steps is not None:
            return report(plan, steps)
        with training_alone():
            return report(plan, _train(plan))


def _train(plan: Plan) -> int:
    """The step that the action in the file has learned."""
    lesson = plan.lesson
    host = ComfyHost(
        lesson.model, lesson.clip, lesson.vae, lesson.motion, plan.config, header=plan.result.header
    )
    training = ActionTraining(host, plan.clips.used, plan.config, plan.hashes)
    notes = begin_with(training, lesson.start) if lesson.start is not None else []
    return run_action(plan, training, remedy_for, notes)
