"""Learn Action (Wan) as a graph uses it: its files, its answers, and what it leaves behind."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.tests.comfy.wan.small_wan import LAYERS


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """Empty folders for what is written, and two clips."""
    import folder_paths

    for key in ("loras", "flash_runs"):
        (tmp_path / key).mkdir()
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, key, ([str(tmp_path / key)], {".safetensors"})
        )
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    (tmp_path / "roll").mkdir()
    for name, frames in (("a", 12), ("b", 16)):
        write_clip(tmp_path / "roll" / f"{name}.gif", frames)
    return tmp_path


def write_clip(path: Path, frames: int) -> None:
    """A disc that crosses the picture, 20 frames a second."""
    pictures = [Image.new("RGB", (96, 64), (40, 120, 90)) for _ in range(frames)]
    for place, picture in enumerate(pictures):
        ImageDraw.Draw(picture).ellipse((6 * place, 20, 6 * place + 24, 44), fill=(230, 60, 40))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=50)


@pytest.fixture
def lesson(folders, model, vae, clip):
    from flash_pack.flash_modules.backends.comfy.wan.train.options import WanOptions
    from flash_pack.flash_modules.backends.comfy.wan.train.plan import WanLesson

    return WanLesson(
        model=model,
        clip=clip,
        vae=vae,
        folder=folders / "roll",
        prompt="a disc rolls",
        width=96,
        height=64,
        steps=3,
        run_name="roll",
        options=WanOptions(
            frames=9, rank=2, pool=1, sample_every=2, sample_steps=2, learning_rate=1e-2, licence="CC0"
        ),
    )


@pytest.fixture
def room():
    from flash_pack.flash_modules.backends.comfy.wan.train import learn

    return learn


@pytest.fixture
def run():
    from flash_pack.flash_modules.backends.comfy.learning import action_run

    return action_run


@pytest.fixture
def no_model(room, monkeypatch):
    """From now on nothing may be trained."""

    def forbidden(*args, **kwargs):
        raise AssertionError("a host was made")

    return lambda: monkeypatch.setattr(room, "WanHost", forbidden)


def cancel_at(run, monkeypatch, step: int) -> None:
    """The user presses Cancel when the node shows that step."""
    import comfy.model_management

    plain = run.NodeDisplay.step

    def press(self, progress):
        plain(self, progress)
        if progress.step == step:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(run.NodeDisplay, "step", press)


def lora_of(folders: Path, name: str = "roll") -> dict[str, torch.Tensor]:
    return read_tensors(folders / f"loras/{name}.safetensors")[0]


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.fixture
def unharmed(lesson) -> Iterator[None]:
    """All that the graph shares is bit for bit what it was, and ComfyUI trains no longer."""
    import comfy.model_management

    def parts():
        modules = lesson.model.model, lesson.vae.first_stage_model, lesson.clip.cond_stage_model
        return [weight for module in modules for weight in module.state_dict().values()]

    before = [weight.clone() for weight in parts()]
    patches, options = dict(lesson.model.object_patches), dict(lesson.model.model_options)
    yield
    assert all(torch.equal(one, other) for one, other in zip(parts(), before, strict=True))
    assert (lesson.model.object_patches, lesson.model.model_options) == (patches, options)
    assert not lesson.model.patches
    assert not comfy.model_management.in_training


@pytest.mark.usefixtures("unharmed")
def test_an_action_is_a_lora_in_cores_folder(lesson, room, folders):
    learned = room.learn_lora(lesson)
    tensors, header = read_tensors(folders / "loras/roll.safetensors")
    assert len(tensors) == LAYERS * 8
    assert same(dict(learned.lora), tensors)
    assert len(learned.report.losses["loss"]) == 3
    text = learned.report.text
    assert "Learned 3 of 3 steps from 2 clips, 9 frames of 96 x 64." in text
    assert "Prompt: a disc rolls" in text
    assert "LoRA: roll.safetensors in models/loras; the run itself in models/flash_runs." in text
    assert header["modelspec.license"] == "CC0"
    assert header["modelspec.resolution"] == "96x64"
    assert header["flash.frames"] == "9"
    assert header["flash.sampling"] == '{"fps": 24.0}'


def test_finished_run_gives_its_file_and_loads_nothing(lesson, room, no_model):
    first = room.learn_lora(lesson)
    no_model()
    again = room.learn_lora(lesson)
    assert same(dict(again.lora), dict(first.lora))
    assert again.report.text == first.report.text


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("step", [1, 2])
def test_cancel_leaves_a_lora_and_goes_on_exactly(lesson, room, run, folders, monkeypatch, step):
    import comfy.model_management

    room.learn_lora(replace(lesson, run_name="whole"))
    with monkeypatch.context() as patch:
        cancel_at(run, patch, step)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            room.learn_lora(lesson)
    assert read_tensors(folders / "loras/roll.safetensors")[1]["flash.steps"] == str(step)
    room.learn_lora(lesson)
    assert same(lora_of(folders), lora_of(folders, "whole"))


def test_clips_are_shown_first_and_the_picture_performs_on_the_way(lesson, room, run, folders, monkeypatch):
    shown = []
    monkeypatch.setattr(run.NodeDisplay, "show", lambda self, output: shown.append(output["images"][0]))
    picture = torch.rand(1, 80, 80, 3, generator=torch.Generator().manual_seed(0))
    learned = room.learn_lora(replace(lesson, image=picture))
    assert [one["filename"] for one in shown] == [
        "sample-000000.png",
        "sample-000002.webp",
        "sample-000003.webp",
    ]
    assert learned.report.images.shape == (9, 64, 96, 3)
    with Image.open(folders / "output/flash/roll/sample-000003.webp") as sample:
        assert sample.n_frames == 9
        sample.load()
        assert sample.info["duration"] in (41, 42)
    with Image.open(folders / "output/flash/roll/sample-000000.png") as sheet:
        assert sheet.width == 2 * 8 + 9 * 144


def test_samples_change_nothing_that_is_learned(lesson, room, folders):
    room.learn_lora(lesson)
    room.learn_lora(replace(lesson, run_name="seen", image=torch.rand(1, 64, 96, 3)))
    assert same(lora_of(folders), lora_of(folders, "seen"))


def test_without_a_picture_the_sheet_is_the_sample(lesson, room):
    assert room.learn_lora(lesson).report.images.shape[0] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"width": 64},
        {"height": 96},
        {"prompt": "a ball rolls"},
    ],
)
def test_a_run_with_other_settings_is_refused(lesson, room, no_model, change):
    room.learn_lora(lesson)
    no_model()
    with pytest.raises(ValueError, match="begun with other settings"):
        room.learn_lora(replace(lesson, **change))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rank": 4}, 'lora: "rank 2" then, "rank 4" now'),
        ({"text": True}, 'lora: "rank 2" then, "rank 2, text" now'),
        ({"law": "high noise"}, 'law: "shifted" then, "high noise" now'),
        ({"frames": 5}, "num_frames: 9 then, 5 now"),
        ({"seed": 1}, "seed: 0 then, 1 now"),
    ],
)
def test_other_options_are_another_run(lesson, room, no_model, change, told):
    room.learn_lora(lesson)
    no_model()
    with pytest.raises(ValueError, match=told):
        room.learn_lora(replace(lesson, options=replace(lesson.options, **change)))


def test_another_shift_is_another_run(lesson, room, no_model):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    room.learn_lora(lesson)
    no_model()
    (shifted,) = ModelSamplingSD3().patch(lesson.model, 5.0)
    with pytest.raises(ValueError, match='shift: "8" then, "5" now'):
        room.learn_lora(replace(lesson, model=shifted))


def test_what_does_not_fit_is_refused_before_anything_is_written(lesson, room, folders, monkeypatch):
    import comfy.model_management

    from flash_pack.flash_modules.backends.comfy.learning import needs

    monkeypatch.setattr(needs, "free_memory", lambda device, own_bytes: 2**20)
    with pytest.raises(
        ValueError, match=r"Training needs about .* even `checkpointing` all needs .* `width`"
    ):
        room.learn_lora(lesson)
    assert not list((folders / "flash_runs").iterdir())
    assert not comfy.model_management.in_training


def test_memory_that_stronger_checkpointing_needs_is_less(lesson, room, monkeypatch):
    """And what fits is named."""
    from flash_pack.flash_modules.backends.comfy.learning import needs
    from flash_pack.flash_modules.flash.training.needs import training_memory

    asked = {}

    def free(device, own_bytes):
        return asked["free"]

    def check(training, remedy):
        asked.update(
            {name: training_memory(training, checkpointing=name) for name in ("none", "motion", "all")}
        )
        asked["free"] = asked["all"] + 1
        return plain(training, remedy)

    from flash_pack.flash_modules.backends.comfy.learning import action_run

    plain = needs.check_memory
    monkeypatch.setattr(needs, "free_memory", free)
    monkeypatch.setattr(action_run, "check_memory", check)
    whole = replace(lesson, options=replace(lesson.options, checkpointing="none"))
    with pytest.raises(ValueError, match="set `checkpointing` to all, which needs about"):
        room.learn_lora(whole)
    assert asked["none"] > asked["motion"] > asked["all"]


def test_sizes_that_the_base_does_not_take_are_refused(lesson, room):
    with pytest.raises(ValueError, match=r"`width` must be a multiple of 32 .* it is 90: take 96"):
        room.learn_lora(replace(lesson, width=90))
    with pytest.raises(ValueError, match="1 more than a multiple of 4, but it is 8: 5 would do"):
        room.learn_lora(replace(lesson, options=replace(lesson.options, frames=8)))


def test_a_file_of_another_run_is_never_written_over(lesson, room, folders):
    (folders / "loras/roll.safetensors").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"There is a file roll\.safetensors already"):
        room.learn_lora(lesson)
    assert (folders / "loras/roll.safetensors").read_bytes() == b"mine"


def test_loras_on_the_model_are_told(lesson, room, folders):
    with torch.inference_mode():
        changed = lesson.model.clone()
        changed.add_patches(
            {"diffusion_model.blocks.0.self_attn.q.weight": ("diff", (torch.ones(128, 128),))}, 0.1
        )
    learned = room.learn_lora(replace(lesson, model=changed))
    assert "The LoRAs on this MODEL are baked in" in learned.report.text
    assert "flash.baked_in" in read_tensors(folders / "loras/roll.safetensors")[1]


def test_clips_that_are_too_short_are_left_out_and_told(lesson, room, folders):
    write_clip(folders / "roll/c.gif", 3)
    text = room.learn_lora(lesson).report.text
    assert "from 2 clips" in text
    assert "Left out c.gif: it lasts 0.15 s, and the fewest frames" in text


def test_preview_shows_what_is_taken(folders):
    from flash_pack.flash_modules.backends.comfy.wan.train.options import WanOptions
    from flash_pack.flash_modules.backends.comfy.wan.train.preview import preview

    sheet, report = preview(folders / "roll", "a disc rolls", 96, 64, WanOptions(frames=13))
    assert sheet.shape[2] == 2 * 8 + 13 * 144
    lines = report.splitlines()
    assert lines[0].startswith("roll/a.gif  96x64, 12 frames, 0.6 s, 20 fps -> frames ")
    assert "at 24 fps, 0.6 s: 'a disc rolls'" in lines[0]
    assert any("20 frames a second are fewer than 24" in line for line in lines)


def test_the_node_takes_lists_and_gives_what_core_knows(lesson, folders):
    from flash_pack.nodes.wan import LearnActionWan, TrainingOptionsWan

    options = TrainingOptionsWan.execute(frames=9, rank=2, pool=1, learning_rate=1e-2).result[0]
    inputs = {
        "model": lesson.model,
        "clip": lesson.clip,
        "vae": lesson.vae,
        "clips": "roll",
        "prompt": "a disc rolls",
        "width": 96,
        "height": 64,
        "steps": 2,
        "run_name": "by node",
        "options": options,
    }
    lora, losses, images, text, exam = LearnActionWan.execute(**{k: [v] for k, v in inputs.items()}).result
    assert same(dict(lora), lora_of(folders, "by node"))
    assert len(losses["loss"]) == 2
    assert text.startswith("Learned 2 of 2 steps")
    assert images is not None
    assert exam is not None


def moving(seed: int, frames: int = 12, colours=((40, 120, 90), (230, 60, 40))):
    """A VIDEO of a disc that crosses a picture of these colours in its own manner, 24 frames a second."""
    from fractions import Fraction

    import numpy as np
    from comfy_api.latest import InputImpl, Types

    pictures = [Image.new("RGB", (96, 64), colours[0]) for _ in range(frames)]
    for place, picture in enumerate(pictures):
        left, top = (6 * place, 20) if seed == 0 else (40, 4 * place)
        ImageDraw.Draw(picture).ellipse((left, top, left + 24, top + 24), fill=colours[1])
    images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(24)))


def test_twins_from_elsewhere_take_the_place_of_the_augmented_ones(lesson, room, folders):
    videos = [moving(0), moving(1)]
    twins = [moving(i, colours=((200, 180, 40), (20, 30, 160))) for i in range(2)]
    given = replace(lesson, videos=videos, texts=["a disc moves"], run_name="given")
    room.learn_lora(given)
    room.learn_lora(replace(given, twins=twins, run_name="with twins"))
    assert not same(lora_of(folders, "given"), lora_of(folders, "with twins"))
    with pytest.raises(ValueError, match="begun with other settings"):
        room.learn_lora(replace(given, twins=twins))
    with pytest.raises(ValueError, match=r"twin"):
        room.learn_lora(replace(given, twins=twins[:1], run_name="one twin"))


def test_a_generation_afterwards_is_the_one_before(lesson, room, monkeypatch):
    """After a run, and after one that failed in the middle of a step."""
    import comfy.model_management
    import nodes
    from comfy_extras.nodes_wan import Wan22ImageToVideoLatent

    from flash_pack.flash_modules.backends.comfy.wan.train.alignment import LearningWan

    def generate() -> torch.Tensor:
        latent = Wan22ImageToVideoLatent.execute(lesson.vae, 64, 64, 9, 1, start_image=picture).result[0]
        texts = [
            [[lesson.clip.encode_from_tokens(lesson.clip.tokenize(text)), {}]] for text in ("a disc", "")
        ]
        (found,) = nodes.KSampler().sample(lesson.model, 7, 2, 5.0, "euler", "simple", *texts, latent)
        return found["samples"]

    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    before = generate()
    room.learn_lora(lesson)
    assert torch.equal(generate(), before)
    whole = LearningWan.forward

    def fails(self, latents, *args):
        whole(self, latents, *args)
        raise RuntimeError("the cable was pulled")

    monkeypatch.setattr(LearningWan, "forward", fails)
    with pytest.raises(RuntimeError, match="cable"):
        room.learn_lora(replace(lesson, run_name="failed"))
    assert torch.equal(generate(), before)
    assert not comfy.model_management.in_training
