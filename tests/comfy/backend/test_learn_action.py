"""Learn Action as a graph uses it: its files, its answers, and what it leaves behind."""

from dataclasses import replace
from fractions import Fraction

import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from comfy_api.latest import InputImpl, Types
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image, ImageSequence

from flash_pack.flash_modules.backends.comfy.learning import action_run, needs
from flash_pack.flash_modules.backends.comfy.sd15 import add_action
from flash_pack.flash_modules.backends.comfy.sd15.train import learn as room
from flash_pack.flash_modules.backends.comfy.sd15.train.learn import learn_action
from flash_pack.flash_modules.backends.comfy.sd15.train.options import TrainingOptions
from flash_pack.flash_modules.backends.comfy.sd15.train.plan import Lesson, make_plan
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flash.training.exam import ActionExam
from flash_pack.flash_modules.training import clips
from flash_pack.flash_modules.training.exam import read_marks
from flash_pack.tests.comfy.backend import two_hosts
from flash_pack.tests.comfy.backend.test_learning import clip_of_comfyui, vae_of_comfyui

OPTIONS = TrainingOptions(size=64, frames=4, pool=1, sample_every=2, sample_steps=2, learning_rate=1e-3)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty folders for what is written."""
    for key in ("flash_actions", "flash_runs"):
        (tmp_path / key).mkdir()
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, key, ([str(tmp_path / key)], {".safetensors"})
        )
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    two_hosts.write_clips(tmp_path / "a_turn")
    return tmp_path


@pytest.fixture
def lesson(folders, model, motion) -> Lesson:
    with torch.inference_mode(False):  # these are shared by all tests
        clip, vae = clip_of_comfyui(), vae_of_comfyui()
    return Lesson(
        model=model,
        clip=clip,
        vae=vae,
        motion=motion,
        folder=folders / "a_turn",
        prompt="",
        preset="draft",
        steps=3,
        run_name="turn",
        options=OPTIONS,
    )


@pytest.fixture
def no_model(monkeypatch):
    """From now on nothing may be trained."""

    def forbidden(*args, **kwargs):
        raise AssertionError("a host was made")

    return lambda: monkeypatch.setattr(room, "ComfyHost", forbidden)


def cancel_at(monkeypatch, step: int) -> None:
    """The user presses Cancel when the node shows that step."""
    plain = action_run.NodeDisplay.step

    def press(self, progress):
        plain(self, progress)
        if progress.step == step:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(action_run.NodeDisplay, "step", press)


def tensors_of(folders) -> dict[str, torch.Tensor]:
    return read_tensors(folders / "flash_actions" / "turn.safetensors")[0]


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_what_is_learned_is_performed_by_the_next_node(lesson, folders, sample):
    before = two_hosts.copies(lesson.model)
    learned = learn_action(lesson)
    assert learned.action.prompts == ("a turn",)
    assert len(learned.report.losses["loss"]) == 3
    assert "Learned 3 of 3 steps from 2 clips, 4 frames of 64 x 64." in learned.report.text
    assert isinstance(learned.report.images, ExecutionBlocker)
    assert same(lesson.model.model.state_dict(), before)
    plain, acting = (add_action(lesson.model, lesson.motion, action) for action in (None, learned.action))
    assert not torch.equal(sample(plain), sample(acting))


def test_finished_run_gives_its_file_and_loads_nothing(lesson, no_model):
    first = learn_action(lesson)
    no_model()
    again = learn_action(lesson)
    assert same(again.action.motion, first.action.motion)
    assert again.report.losses == first.report.losses
    assert again.report.text == first.report.text


def as_before(**alignment):
    """Options as they were when the blur of twins was not scaled, and with other defaults of alignment."""
    plain = TrainingOptions.config

    def config(self, *args):
        now = plain(self, *args)
        augment = replace(now.method.augment, kernels_of=now.method.augment.size)
        aligned = replace(now.method.alignment, **alignment)
        return replace(now, method=replace(now.method, augment=augment, alignment=aligned))

    return config


def test_a_run_from_before_goes_on_as_it_began(lesson, monkeypatch):
    with monkeypatch.context() as then:
        then.setattr(TrainingOptions, "config", as_before())
        learn_action(replace(lesson, steps=2))
    assert len(learn_action(lesson).report.losses["loss"]) == 3


def test_frames_that_options_name_stay_and_without_options_the_runs_are_taken(lesson, monkeypatch):
    with monkeypatch.context() as then:
        then.setattr(TrainingOptions, "config", as_before(exclude_first=True))
        learn_action(replace(lesson, steps=1))
    with pytest.raises(ValueError, match="alignment: exclude_first: true then, false now"):
        learn_action(lesson)
    assert make_plan(replace(lesson, options=None)).config.method.alignment.exclude_first


def test_finished_run_goes_on_to_more_steps(lesson, folders):
    learn_action(replace(lesson, steps=2))
    learned = learn_action(lesson)
    assert len(learned.report.losses["loss"]) == 3
    found = tensors_of(folders)
    learn_action(replace(lesson, run_name="whole"))
    whole, _ = read_tensors(folders / "flash_actions" / "whole.safetensors")
    assert same(found, whole)


def test_cancel_leaves_an_action_and_goes_on_exactly(lesson, folders, monkeypatch):
    learn_action(replace(lesson, run_name="whole"))
    whole, _ = read_tensors(folders / "flash_actions" / "whole.safetensors")
    with monkeypatch.context() as patches:
        cancel_at(patches, 2)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            learn_action(lesson)
    assert not comfy.model_management.in_training
    _, header = read_tensors(folders / "flash_actions" / "turn.safetensors")
    assert header["flash.steps"] == "2"
    assert [path.name for path in (folders / "flash_runs" / "turn").glob("checkpoint-*")] == ["checkpoint-2"]
    learned = learn_action(lesson)
    assert same(tensors_of(folders), whole)
    assert len(learned.report.losses["loss"]) == 3


def test_picture_performs_the_action_on_the_way(lesson, folders, monkeypatch):
    learn_action(replace(lesson, run_name="unseen"))
    shown = []
    monkeypatch.setattr(action_run.NodeDisplay, "show", lambda self, output: shown.append(output))
    learned = learn_action(replace(lesson, image=torch.rand(1, 50, 80, 3)))
    names = ["sample-000002.webp", "sample-000003.webp"]
    assert [one["images"][0]["filename"] for one in shown] == names
    assert learned.report.ui == {
        "images": [{"filename": names[1], "subfolder": "flash/turn", "type": "output"}],
        "animated": (True,),
    }
    assert learned.report.images.shape == (4, 64, 64, 3)
    assert all((folders / "output" / "flash" / "turn" / name).is_file() for name in names)
    unseen, _ = read_tensors(folders / "flash_actions" / "unseen.safetensors")
    assert same(tensors_of(folders), unseen)


def test_file_of_another_run_is_not_written_over(lesson, folders, no_model):
    other = folders / "flash_actions" / "turn.safetensors"
    other.write_bytes(b"somebody's work")
    no_model()
    with pytest.raises(ValueError, match="this run did not write it"):
        learn_action(lesson)
    assert other.read_bytes() == b"somebody's work"


def test_other_settings_under_one_name_are_refused(lesson, no_model):
    learn_action(lesson)
    no_model()
    for changed in (
        replace(lesson, options=replace(OPTIONS, tau=80.0)),
        replace(lesson, prompt="somebody turns"),
    ):
        with pytest.raises(ValueError, match="was begun with other settings"):
            learn_action(changed)


def test_another_vae_under_one_name_is_refused(lesson, no_model):
    learn_action(lesson)
    no_model()
    with torch.inference_mode(False):
        other = two_hosts.vae()
        other.encoder.conv_out.weight.data += 1.0
        other = two_hosts.comfy_vae(other)
    with pytest.raises(ValueError, match="was begun with another VAE"):
        learn_action(replace(lesson, vae=other))


def test_what_does_not_fit_is_refused_before_anything_is_written(lesson, folders, monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda device, own_bytes: 30 * 2**20)
    with pytest.raises(ValueError, match=r"Training needs about .* in Training Options set `checkpointing`"):
        learn_action(lesson)
    assert not list((folders / "flash_runs").iterdir())
    assert not comfy.model_management.in_training


def test_full_memory_is_one_sentence_and_the_step_is_kept(lesson, folders, monkeypatch):
    def full(self, progress):
        if progress.step == 2:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(action_run.NodeDisplay, "step", full)
    with pytest.raises(ValueError, match="The memory of cpu is full"):
        learn_action(lesson)
    assert (folders / "flash_runs" / "turn" / "checkpoint-2").is_dir()
    assert not comfy.model_management.in_training


def test_folder_without_clips_is_refused(lesson, folders):
    (folders / "nothing").mkdir()
    with pytest.raises(ValueError, match="holds no clips"):
        learn_action(replace(lesson, folder=folders / "nothing"))


def test_exams_are_shown_and_told(lesson, folders, monkeypatch):
    two_hosts.write_clips(folders / "a_turn", count=6)
    monkeypatch.setattr(ActionExam, "every", 1)
    said = []
    monkeypatch.setattr(action_run.NodeDisplay, "say", lambda self, text: said.append(text))
    learned = learn_action(replace(lesson, steps=2))
    marks = read_marks(folders / "flash_runs" / "turn")
    assert [one.step for one in marks] == [0, 1, 2]
    assert learned.report.exam == {"loss": [one.kept_aside for one in marks]}
    assert "Learned 2 of 2 steps from 5 clips" in learned.report.text
    assert "\nKept aside for the exam: " in learned.report.text
    assert "\nExam (error on moving parts of what it never saw): " in learned.report.text
    assert any(text.startswith("About ") and "for 2 steps · encoding clips: 1 of 5" in text for text in said)
    shown = f"exam {marks[1].kept_aside:.4f} (of what it learns from {marks[1].learned_from:.4f})"
    assert shown in next(text for text in said if text.startswith("Step 1 of 2"))


def test_videos_are_learned_from_as_their_files_are(lesson, folders):
    """Bit for bit; an action begins where another ended."""
    first = learn_action(replace(lesson, prompt="a turn"))
    videos = [InputImpl.VideoFromComponents(parts(folders / "a_turn" / f"{i}.gif")) for i in range(2)]
    given = replace(lesson, folder=folders / "nowhere", videos=videos, texts=["a turn", ""], prompt="a turn")
    again = learn_action(replace(given, run_name="given"))
    assert same(again.action.motion, first.action.motion)
    assert same(again.action.kv_diffs, first.action.kv_diffs)
    options = replace(OPTIONS, learning_rate=1e-7)
    more = learn_action(replace(given, run_name="more", start=first.action, steps=1, options=options))
    for name, weight in first.action.motion.items():
        torch.testing.assert_close(more.action.motion[name], weight, atol=2e-3, rtol=2e-3)
    for name, diff in first.action.kv_diffs.items():
        torch.testing.assert_close(more.action.kv_diffs[name], diff, atol=1e-6, rtol=1e-4)
    assert "It began with the action turn." in more.report.text
    with pytest.raises(ValueError, match=r"was begun with other settings .*start: "):
        learn_action(replace(given, run_name="more", options=options))


def parts(path):
    """What a node that loads the file would give."""
    with Image.open(path) as file:
        pictures = [picture.convert("RGB") for picture in ImageSequence.Iterator(file)]
    images_FHWC = torch.stack([torch.from_numpy(np.array(one)) for one in pictures]) / 255
    return Types.VideoComponents(images=images_FHWC, frame_rate=Fraction(8), audio=None)


@pytest.mark.parametrize("name", ["", "../turn", "a/b", ".hidden"])
def test_a_name_that_is_no_folders_is_refused_first(lesson, folders, no_model, name):
    no_model()
    with pytest.raises(ValueError, match=r"The run.s name .* must be letters, digits, spaces"):
        learn_action(replace(lesson, run_name=name, folder=folders / "nowhere"))


def test_clips_are_hashed_once(lesson, monkeypatch):
    hashed = []
    plain = clips._hash_file
    monkeypatch.setattr(clips, "_hash_file", lambda path: (hashed.append(path.name), plain(path))[1])
    learn_action(replace(lesson, steps=1))
    assert sorted(hashed) == ["0.gif", "1.gif"]


def test_twins_from_elsewhere_are_learned_from_and_belong_to_the_run(lesson, folders):
    """Pairs of negatives teach other weights than augmented ones do, and so do other twins."""
    given = []
    for name in ("0.gif", "1.gif"):
        whole = parts(folders / "a_turn" / name)
        given.append([replace(whole, images=images) for images in (1 - whole.images, whole.images.sqrt())])
    negatives, brighter = (
        [InputImpl.VideoFromComponents(one) for one in some] for some in zip(*given, strict=True)
    )
    plain = learn_action(replace(lesson, run_name="plain"))
    learned = learn_action(replace(lesson, twins=negatives))
    other = learn_action(replace(lesson, twins=brighter, run_name="other"))
    assert not same(learned.action.motion, plain.action.motion)
    assert not same(learned.action.motion, other.action.motion)
    assert "from 2 clips and given twins, 4 frames" in learned.report.text
    assert "twins_sha256" in learned.action.header["flash.data"]
    with pytest.raises(ValueError, match=r"was begun with other settings .*twin_sha256: "):
        learn_action(replace(lesson, twins=brighter))
    options = replace(OPTIONS, twins=False, tau=100.0, p=0.0)
    with pytest.raises(ValueError, match=r"have twins, but training without pairs \(`twins` is off\)"):
        learn_action(replace(lesson, twins=negatives, options=options, run_name="alone"))
