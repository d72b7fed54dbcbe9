"""The study of transfer: perfect twins, the exam on figures, runs that are kept, tables beside a control."""

from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange

from actors.__main__ import main
from actors.judge.measures import Scores
from actors.judge.reader import load_reader
from actors.studies import transfer_runs
from actors.studies.learning import Lesson, prepare
from actors.studies.results import kept
from actors.studies.transfer import plan
from actors.studies.transfer_arms import ARMS, BEFORE
from actors.studies.transfer_exam import Exam, exam_clips, make_exam
from actors.studies.transfer_runs import Judge, Run
from actors.studies.transfer_tables import tables
from actors.world.clips import clip_video, make_clip, true_clips
from actors.world.looks import draw_look
from flash_modules.flash.augment import crop
from flash_modules.flash.motion_alignment import AlignmentConfig
from flash_modules.flash.training.noise_law import DiffusionNoise
from flash_modules.training.sampling import seeded

TWINS = Lesson(actions=("arm wave",), num_clips=1, one_look=True, drawn_twins=True, size=64)
SCORES = Scores(
    **{name: 1.0 for name in Scores.__dataclass_fields__} | {"still_error": 12.0, "joint_floor": 2.0}
)


def test_arms_differ_and_the_fifth_variant_is_the_papers() -> None:
    arms = [arm for name, arm in ARMS.items() if name != BEFORE]
    assert all(arm not in arms[:i] for i, arm in enumerate(arms))
    assert ARMS["#5"].method.alignment == AlignmentConfig()
    assert ARMS["#1, two at a time"].accumulation == 2
    assert all(arm.accumulation == 1 for arm in arms if arm.method.twins)


def test_clips_of_a_lesson_show_one_person_in_one_place() -> None:
    clips = ARMS["#2"].lesson("arm wave", 1, 5, 3, 64).clips["arm wave"]
    assert len({clip.look for clip in clips}) == 1
    assert len({clip.motion for clip in clips}) == 3


def test_a_perfect_twin_is_the_same_motion_in_another_look(tmp_path: Path, tiny_base: Path) -> None:
    training = prepare(TWINS, tmp_path, tiny_base)
    pool = training.pool(tmp_path / "pool")
    clip = TWINS.clips["arm wave"][0]
    twins = []
    for turn in (0, 1):
        original_FCHW, twin_FCHW = pool.draw_videos(1, turn)
        augmentation = pool.draw(1, turn).augmentation
        look = draw_look(int(torch.randint(2**31, (), generator=seeded(0, "look", 1, turn))))
        twin_FHWC, own_FHWC = (clip_video(make_clip(clip.motion, one, size=64)) for one in (look, clip.look))
        assert look != clip.look
        assert torch.equal(
            twin_FCHW, crop(rearrange(twin_FHWC, "f h w c -> f c h w"), (64, 64), augmentation)
        )
        own_FCHW = crop(rearrange(own_FHWC, "f h w c -> f c h w"), (64, 64), augmentation)
        assert (original_FCHW - own_FCHW).abs().mean() < 0.02  # the clip was a WebP file
        twins.append(twin_FCHW)
    assert not torch.allclose(*twins, atol=0.1)


def test_sets_of_the_exam_share_what_their_names_say() -> None:
    taught = TWINS.clips["arm wave"]
    sets = exam_clips(taught, "arm wave", "soccer shoot", 64)
    motions = {name: {clip.motion for clip in clips} for name, clips in sets.items()}
    looks = {name: {clip.look for clip in clips} for name, clips in sets.items()}
    assert motions["taught"] == motions["taught motion, new look"]
    assert looks["taught"] == looks["new motion, taught look"]
    assert looks["taught motion, new look"] < looks["new"] == looks["control"]
    assert motions["new motion, taught look"] < motions["new"]
    assert not motions["taught"] & motions["new"]
    assert not looks["taught"] & looks["new"]
    assert {motion.action for motion in motions["control"]} == {"soccer shoot"}


def test_errors_of_figures_and_around_them_are_apart() -> None:
    """A model that is off by 2 on figures, and by 1 elsewhere, but not in frame 0."""
    latents_BFCHW = torch.randn(3, 4, 2, 5, 6)
    figures_BFHW = (torch.rand(3, 4, 5, 6) > 0.7).float()
    off_BFHW = (1 + figures_BFHW).index_fill(1, torch.tensor([0]), 50.0)
    known: dict[str, Any] = {}

    class Law(DiffusionNoise):
        def noised(
            self, latents: torch.Tensor, noise: torch.Tensor, timestep_B: torch.Tensor
        ) -> torch.Tensor:
            known.update(noise=noise)
            return latents

    law = Law("v_prediction")

    def predict(noised: torch.Tensor, timestep_B: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        wanted = law.target(latents_BFCHW, known["noise"], timestep_B)
        return wanted + off_BFHW[:, :, None]

    host = SimpleNamespace(predict=predict, noise=law, device=torch.device("cpu"))
    exam = Exam(["a", "b", "b"], [0, 0, 1], latents_BFCHW, torch.zeros(3, 1, 1), figures_BFHW)
    errors = exam.errors(SimpleNamespace(host=host))
    assert {*errors} == {"a", "b"}
    for of in errors.values():
        assert of == {"figures": pytest.approx(4.0, abs=1e-4), "around": pytest.approx(1.0, abs=1e-4)}


def run_at(out: Path, base: Path, **changes: Any) -> Run:
    wishes = {"arm": "#2", "action": "arm wave", "control": "soccer shoot", "seed": 0, "steps": 2}
    wishes |= {"num_clips": 1, "num_pictures": 1, **changes}
    return Run(base=base, out=out, **wishes)


def test_a_run_is_kept_and_other_settings_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    run = run_at(tmp_path, tiny_base)
    run.do(torch.device("cpu"))
    assert run.done
    exams = run.exams()
    assert [*exams] == [0, 1, 2]
    assert exams[0]["new"]["figures"] != exams[2]["new"]["figures"]
    losses = (run.folder / "run" / "loss.csv").read_bytes()
    run.do(torch.device("cpu"))
    assert (run.folder / "run" / "loss.csv").read_bytes() == losses
    with pytest.raises(ValueError, match=r"exam-00000.json was made with other settings \(num_clips: 1 then"):
        run_at(tmp_path, tiny_base, num_clips=2).exams()


def test_videos_are_measured_once_in_each_way(
    tmp_path: Path, tiny_base: Path, tiny_details: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_runs, "true_clips", partial(true_clips, num=2))
    run = run_at(tmp_path, tiny_base, arm=BEFORE)
    run.do(torch.device("cpu"))
    assert [*run.exams()] == [0]
    judge = Judge(load_reader(), tiny_base, tiny_details)
    scores, details = run.scores(judge), run.detailed(judge)
    assert {*scores} == {"arm wave", "soccer shoot"}
    assert details["VAE alone"] == scores["arm wave"]
    assert len({of[0].jump_ratio for of in details.values()}) == 3
    (run.folder / "videos.safetensors").write_bytes(b"")
    assert run.scores(judge) == scores


def test_an_exam_is_the_same_each_time(tmp_path: Path, tiny_base: Path) -> None:
    lesson = replace(TWINS, size=96)  # the base's own, for which figures are masked
    training = prepare(lesson, tmp_path, tiny_base)
    clips = exam_clips(lesson.clips["arm wave"], "arm wave", "soccer shoot", 96)
    assert make_exam(training, clips).errors(training) == make_exam(training, clips).errors(training)


def test_kept_results_hold_their_settings(tmp_path: Path) -> None:
    file = tmp_path / "a" / "result.json"
    assert kept(file, {"steps": (1, 2)}, lambda: 7) == 7
    assert kept(file, {"steps": [1, 2]}, lambda: 8) == 7
    with pytest.raises(ValueError, match=r"was made with other settings \(steps: .*give another --out"):
        kept(file, {"steps": [1, 3]}, lambda: 8)
    file.write_text("[1]")
    with pytest.raises(ValueError, match="was made with other settings"):
        kept(file, {"steps": [1]}, lambda: 8)


def fake(run: Run, new: float, control: float, error: float, *, whole: bool = True) -> None:
    """Results as if the run had been done, or broken off before its end."""
    for step in run.exam_steps:
        gap = 0.1 * step / 2
        sets = {"taught": 0.1, "taught motion, new look": 0.1 + gap, "control": control}
        sets |= {"new motion, taught look": new - gap * (1.6 if run.arm == "#5" else 1.0), "new": new}
        errors = {name: {"figures": error, "around": 0.05} for name, error in sets.items()}
        kept(run.folder / f"exam-{step:05d}.json", run.settings, errors.copy)
    if not whole:
        return
    (run.folder / "videos.safetensors").write_bytes(b"")
    scores = {run.action: [vars(replace(SCORES, joint_error=error))], run.control: [vars(SCORES)]}
    kept(run.folder / "scores.json", run.settings, lambda: scores)
    details = {"as it is": [vars(replace(SCORES, jump_ratio=error))]}
    kept(run.folder / "details.json", run.settings, lambda: details)


def test_tables_take_off_what_another_lesson_does(tmp_path: Path, tiny_base: Path) -> None:
    runs = []
    for arm, better in ((BEFORE, -0.3), ("#2", 0.0), ("#5", 0.04)):
        for action, control in (("arm wave", "soccer shoot"), ("soccer shoot", "arm wave")):
            runs.append(run_at(tmp_path, tiny_base, arm=arm, action=action, control=control))
            fake(runs[-1], new=0.5 - better, control=0.7, error=9.0 - 10 * better)
    for arm, new in (("#2", 0.5), ("#5", 0.46)):
        run = run_at(tmp_path, tiny_base, arm=arm, seed=1)
        runs.append(run)
        fake(run, new=new, control=0.7, error=0.0, whole=False)
        (run.folder / "exam-00002.json").unlink()
    judge = SimpleNamespace(decoders=["as it is"])
    denoising, course, gaps, steps, videos, beside, details, way = tables(runs, judge).split("\n\n|")
    assert "| #2 | 2 | 0.5000 ± 0.0000 | 0.7000 ± 0.0000 | 0.2000 ± 0.0000 | 0.0500 ± 0.0000 |" in denoising
    assert "| #5 | 2 | 0.4600 ± 0.0000 | 0.7000 ± 0.0000 | 0.2400 ± 0.0000 |" in denoising
    assert "| #5 | new looks | 0.4600 | 0.4600 | 0.4600 |" in course
    assert "| #2 | the clips | 0.1000 | 0.1000 | 0.1000 |" in course
    assert gaps.splitlines()[0] == " new looks part from the taught one by ↓ |  | 1 | 2 |"
    assert "| #2 | taught motions | 0.0500 ± 0.0000 | 0.1000 ± 0.0000 |" in gaps
    assert "| #5 | new motions | 0.0800 ± 0.0000 | 0.1600 ± 0.0000 |" in gaps
    assert "| #5 | -0.0400 ± 0.0000 (3 of 3) | -0.0400 ± 0.0000 (2 of 2) |" in steps
    assert "| #5 | 2 | 8.6 ± 0.0 | 1.0 ± 0.0 |" in videos
    assert "A still picture: 12.0 %; another true video: 2.0 %." in videos
    expected = "| #5 | -0.0400 ± 0.0000 (2 of 2) | 0.0400 ± 0.0000 (2 of 2) | -0.4 ± 0.0 (2 of 2) |"
    assert expected in beside
    assert "0.00 ± 0.00 (0 of 2)" in beside
    assert "first jump ratio, 1 is best" in details
    assert "| arm wave | 12.0 | 1.0 (110%) | 12.0 | 2.0 |" in way
    assert "| as it is | 1.0 ± 0.0 | 1.00 ± 0.00 | 1.00 ± 0.00 | 8.60 ± 0.00 | 1.00 ± 0.00 |" in details


def test_runs_are_interleaved_seed_by_seed() -> None:
    words = Namespace(actions=["arm wave", "soccer shoot"], arms=["#2", "#5"], seeds=2, first_seed=1)
    for name in ("steps", "clips", "pictures", "base", "out"):
        setattr(words, name, 1)
    runs = [(run.seed, run.arm, run.action, run.control) for run in plan(words)]
    assert runs[:3] == [
        (1, "#2", "arm wave", "soccer shoot"),
        (1, "#2", "soccer shoot", "arm wave"),
        (1, "#5", "arm wave", "soccer shoot"),
    ]
    assert [seed for seed, *_ in runs] == [1] * 4 + [2] * 4


def test_one_action_has_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", "--actions", "arm wave"]) == 2
    assert "Each action is the control of another: give two or more." in capsys.readouterr().err
