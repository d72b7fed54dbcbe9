"""What a training has brought, as the node gives it."""

from dataclasses import dataclass

from .....flash.action_file import Action, read_action
from ...folders import ACTIONS, RUNS
from ...learning import action_report
from .plan import Plan


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What the node gives."""

    action: Action
    report: action_report.Report


def report(plan: Plan, step: int) -> Learned:
    """What the run has learned in so many steps, from its files."""
    path = plan.result.path
    end = f"Action: {path.name} in models/{ACTIONS}; the run itself in models/{RUNS}."
    sampled = plan.lesson.image is not None
    return Learned(action=read_action(path), report=action_report.report(plan, step, sampled, [end]))
