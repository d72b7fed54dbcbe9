"""Learning an action on Wan 2.2 from a node: gone on with, shown, saved whatever ends it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .....files.tensor_file import read_tensors
from .....flash.training.action_training import ActionTraining
from ...folders import LORAS, RUNS
from ...learning import action_report
from ...learning.action_run import run_action
from ...learning.alone import training_alone
from ...learning.clip_sheet import clip_sheet
from ...learning.own_weights import MODEL
from ...learning.show import NodeDisplay, as_output, write_sheet
from .host import WanHost
from .needs import remedy_for
from .plan import WanLesson, WanPlan, file_header, make_plan


@dataclass(frozen=True, kw_only=True)
class LearnedLoRA:
    """What the node gives."""

    lora: Mapping[str, Tensor]
    """As core's LORA_MODEL."""
    report: action_report.Report


def learn_lora(lesson: WanLesson) -> LearnedLoRA:
    """Learn, from where the run of that name is; a finished run gives its file, and no model is loaded.

    Cancel saves the last whole step and a LoRA of it, and the same lesson goes on from there. Raises
    ValueError, with a sentence, for what cannot be learned.
    """
    with torch.inference_mode(False), torch.enable_grad():
        plan = make_plan(lesson)
        steps = plan.steps_if_done()
        if steps is None:
            with training_alone():
                steps = _train(plan)
        end = [
            *_notes(lesson.model),
            f"LoRA: {plan.result.path.name} in models/{LORAS}; the run itself in models/{RUNS}.",
        ]
        lora, _ = read_tensors(plan.result.path)
        return LearnedLoRA(lora=lora, report=action_report.report(plan, steps, True, end))


def _train(plan: WanPlan) -> int:
    """The step that the LoRA in the file has learned."""
    lesson = plan.lesson
    host = WanHost(
        lesson.model, lesson.clip, lesson.vae, plan.config, plan.options.lora, header=file_header(plan)
    )
    training = ActionTraining(host, plan.clips.used, plan.config, plan.hashes)
    first = partial(_show_clips, plan)
    return run_action(plan, training, remedy_for, [*_notes(lesson.model)], first)


def _show_clips(plan: WanPlan, display: NodeDisplay) -> None:
    """What is taken of each clip, before anything is learned from it."""
    config = plan.config
    augment, exam = config.method.augment, config.exam is not None
    sheet, _ = clip_sheet(plan.clips, config.sampling, augment, config.seed, exam=exam)
    display.show(as_output(write_sheet(plan.lesson.run_name, 0, sheet[0])))


def _notes(model: ModelPatcher) -> Iterator[str]:
    """What the user should know."""
    if any(key.startswith(MODEL) for key in model.patches):
        yield (
            "The LoRAs on this MODEL are baked in, and the action fits a MODEL that has them too. Take those "
            "for few steps (Lightning, lightx2v) away while it learns: they spoil what noisy steps teach."
        )
