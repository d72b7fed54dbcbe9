"""Learn Action From One Clip as a graph uses it: its files, its answers, and what it leaves behind."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.tests.backends.flexiact_oracle import small_inputs
from flash_pack.tests.backends.small_cogvideox import TOKENS, small_adapter, small_vae
from flash_pack.tests.comfy.cogvideox.small_encoders import comfyui_clip, comfyui_vae, small_text_encoder
from flash_pack.tests.comfy.cogvideox.two_hosts import comfyui_velocity, difference


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """Empty folders for what is written."""
    import folder_paths

    for key in ("flash_actions", "flash_runs"):
        (tmp_path / key).mkdir()
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, key, ([str(tmp_path / key)], {".safetensors"})
        )
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    write_clip(tmp_path / "dog.gif", 12)
    return tmp_path


def write_clip(path: Path, frames: int) -> None:
    """A disc that crosses the picture."""
    pictures = [Image.new("RGB", (96, 64), (40, 120, 90)) for _ in range(frames)]
    for place, picture in enumerate(pictures):
        ImageDraw.Draw(picture).ellipse((6 * place, 20, 6 * place + 24, 44), fill=(230, 60, 40))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=125)


@pytest.fixture(scope="module")
def encoders() -> tuple:
    with torch.inference_mode():
        return comfyui_vae(small_vae()), comfyui_clip(small_text_encoder())


@pytest.fixture
def lesson(folders, model, encoders):
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.options import OneClipOptions
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.plan import OneClipLesson

    vae, clip = encoders
    return OneClipLesson(
        model=model,
        clip=clip,
        vae=vae,
        file=folders / "dog.gif",
        prompt="a dog",
        steps=3,
        run_name="turn",
        options=OneClipOptions(tokens=TOKENS, sample_every=2, sample_steps=2, keep=9),
    )


@pytest.fixture
def room():
    from flash_pack.flash_modules.backends.comfy.cogvideox.train import learn

    return learn


@pytest.fixture
def learn(room):
    return room.learn_from_one_clip


@pytest.fixture
def no_model(room, monkeypatch):
    """From now on nothing may be trained."""

    def forbidden(*args, **kwargs):
        raise AssertionError("a host was made")

    return lambda: monkeypatch.setattr(room, "LearningTokens", forbidden)


def cancel_at(room, monkeypatch, step: int) -> None:
    """The user presses Cancel when the node shows that step."""
    import comfy.model_management

    plain = room.NodeDisplay.step

    def press(self, progress):
        plain(self, progress)
        if progress.step == step:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(room.NodeDisplay, "step", press)


def tensors_of(folders: Path, name: str = "turn") -> dict[str, torch.Tensor]:
    return read_tensors(folders / f"flash_actions/{name}.safetensors")[0]


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
    assert all(torch.equal(now, then) for now, then in zip(parts(), before, strict=True))
    assert (lesson.model.object_patches, lesson.model.model_options) == (patches, options)
    assert not lesson.model.patches
    assert not comfy.model_management.in_training
    assert not comfy.model_management.current_loaded_models


def test_what_is_learned_is_performed_by_the_next_node(lesson, folders, learn, unharmed) -> None:
    from flash_pack.flash_modules.backends.comfy import cogvideox as backend

    learned = learn(lesson)
    assert (learned.action.prompt, learned.action.steps) == ("a dog", 3)
    assert same(
        tensors_of(folders), {f"blocks.{i}.tokens": t for i, t in enumerate(learned.action.tokens_LMC)}
    )
    assert len(learned.losses["loss"]) == 3
    lines = learned.report.splitlines()
    assert lines[0] == "Learned 3 of 3 steps from one clip."
    assert lines[1].startswith("dog.gif: 96x64, 12 frames, 1.4 s -> 9 frames, from 0 to 11")
    assert (
        lines[-1] == "Action: turn.safetensors in models/flash_actions; the run itself in models/flash_runs."
    )
    acting = backend.transfer_action(lesson.model, Performance(action=learned.action))
    inputs = small_inputs()
    found, plain = (comfyui_velocity(m, inputs, 900) for m in (acting, backend.corrected(lesson.model)))
    assert difference(found, plain) > 1e-3
    import comfy.model_management

    comfy.model_management.unload_all_models()


def test_a_run_is_that_of_the_command_line(lesson, folders, learn, twin) -> None:
    """Equal settings give equal tokens, and each host goes on with the other's folder."""
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.plan import make_plan
    from flash_pack.flash_modules.backends.diffusers.cogvideox.train import LearningTokens
    from flash_pack.flash_modules.flexiact.training.lesson import LESSON, read_lesson
    from flash_pack.flash_modules.flexiact.training.token_training import TokenTraining
    from flash_pack.flash_modules.training.run_folder import RunFolder

    learned = learn(lesson)
    with torch.inference_mode(False), torch.enable_grad():
        plan = make_plan(lesson)
        kept = read_lesson(folders / "flash_runs/turn" / LESSON)
        from flash_pack.tests.backends.small_cogvideox import small_transformer

        theirs = TokenTraining(LearningTokens(small_transformer(), TOKENS), kept, plan.config)
        assert plan.settings["base"] == theirs.host.fingerprint
        theirs.run(RunFolder(folders, "theirs", plan.settings))
        assert difference(learned.action.tokens_LMC, theirs.learned("turn", 3).tokens_LMC) <= 1e-5


def test_a_finished_run_gives_its_file_and_loads_nothing(lesson, learn, no_model) -> None:
    first = learn(lesson)
    no_model()
    again = learn(lesson)
    assert torch.equal(again.action.tokens_LMC, first.action.tokens_LMC)
    assert (again.losses, again.report, again.ui) == (first.losses, first.report, first.ui)


@pytest.mark.parametrize(("step", "memory"), [(1, "most"), (2, "usual"), (2, "least")])
def test_cancel_leaves_an_action_and_goes_on_exactly(
    lesson, folders, room, learn, monkeypatch, unharmed, step: int, memory: str
) -> None:
    import comfy.model_management

    lesson = replace(lesson, options=replace(lesson.options, memory=memory))
    learn(replace(lesson, run_name="whole"))
    with monkeypatch.context() as patches:
        cancel_at(room, patches, step)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            learn(lesson)
    assert not comfy.model_management.in_training
    _, header = read_tensors(folders / "flash_actions/turn.safetensors")
    assert header["flash.steps"] == str(step)
    assert (folders / f"flash_runs/turn/checkpoint-{step}").is_dir()
    learned = learn(lesson)
    assert same(tensors_of(folders), tensors_of(folders, "whole"))
    assert len(learned.losses["loss"]) == 3


def test_cancel_while_the_clip_is_encoded_leaves_nothing_half(
    lesson, folders, room, learn, monkeypatch, unharmed
):
    import comfy.model_management

    def press(self) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    with monkeypatch.context() as patches:
        patches.setattr(room.NodeDisplay, "entry", press)
        comfy.model_management.interrupt_current_processing()
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            learn(lesson)
    assert not (folders / "flash_runs/turn/lesson.safetensors").exists()
    assert learn(lesson).action.steps == 3


def test_a_finished_run_goes_on_to_more_steps_without_the_clip_encoded_again(
    lesson, folders, room, learn, monkeypatch
) -> None:
    learn(replace(lesson, run_name="whole"))
    learn(replace(lesson, steps=2))

    def forbidden(*args):
        raise AssertionError("the lesson was made again")

    monkeypatch.setattr(room, "_make_lesson", forbidden)
    learn(lesson)
    assert same(tensors_of(folders), tensors_of(folders, "whole"))


def test_the_picture_performs_on_the_way_and_nothing_else_changes(
    lesson, folders, room, learn, monkeypatch, unharmed
) -> None:
    learn(replace(lesson, run_name="unseen"))
    shown = []
    monkeypatch.setattr(room.NodeDisplay, "show", lambda self, output: shown.append(output))
    learned = learn(replace(lesson, image=torch.rand(1, 50, 80, 3), adapter=small_adapter()))
    names = ["sample-000000.png", "sample-000002.webp", "sample-000003.webp"]
    assert [one["images"][0]["filename"] for one in shown] == names
    assert [one["animated"] for one in shown] == [(False,), (True,), (True,)]
    assert learned.ui == shown[-1]
    assert learned.images.shape == (9, 64, 96, 3)
    assert all((folders / "output/flash/turn" / name).is_file() for name in names)
    assert same(tensors_of(folders), tensors_of(folders, "unseen"))


def test_without_a_picture_what_is_taken_of_the_clip_is_shown(lesson, learn) -> None:
    learned = learn(lesson)
    assert learned.ui["images"][0]["filename"] == "sample-000000.png"
    assert learned.images.ndim == 4


def test_a_video_is_learned_from_as_its_file_is(lesson, folders, learn) -> None:
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    from flash_pack.flash_modules.backends.comfy.pictures import as_image

    learn(lesson)
    with Image.open(folders / "dog.gif") as gif:
        pictures = []
        for number in range(gif.n_frames):
            gif.seek(number)
            pictures.append(gif.convert("RGB"))
    parts = Types.VideoComponents(images=as_image(pictures), frame_rate=Fraction(8), audio=None)
    video = InputImpl.VideoFromComponents(parts)
    learn(replace(lesson, video=video, file=folders / "nowhere", run_name="given"))
    assert same(tensors_of(folders, "given"), tensors_of(folders))


def test_the_file_of_another_run_is_not_written_over(lesson, folders, learn, no_model) -> None:
    other = folders / "flash_actions/turn.safetensors"
    other.write_bytes(b"somebody's work")
    no_model()
    with pytest.raises(ValueError, match="this run did not write it"):
        learn(lesson)
    assert other.read_bytes() == b"somebody's work"


def test_another_run_under_one_name_is_refused(lesson, learn, no_model, encoders) -> None:
    learn(lesson)
    no_model()
    for changed in (
        replace(lesson, prompt="a cat"),
        replace(lesson, options=replace(lesson.options, seed=1)),
        replace(lesson, options=replace(lesson.options, start=0.5)),
    ):
        with pytest.raises(ValueError, match="was begun with other settings"):
            learn(changed)
    with pytest.raises(ValueError, match="was begun with another VAE"):
        learn(replace(lesson, vae=comfyui_vae(small_vae(seed=4))))


def test_what_does_not_fit_is_refused_before_anything_is_written(
    lesson, folders, learn, monkeypatch, unharmed
):
    from flash_pack.flash_modules.backends.comfy.cogvideox.train import needs

    def learn_with(free: float, memory: str) -> None:
        monkeypatch.setattr(needs, "free_memory", lambda device, own_bytes: free)
        learn(replace(lesson, options=replace(lesson.options, memory=memory)))

    with pytest.raises(ValueError, match=r"Training needs about .* even `memory` least, which needs about "):
        learn_with(1000, "auto")
    asked: dict[str, int] = {}
    with monkeypatch.context() as patches:
        patches.setattr(needs, "check_fits", lambda needed, *_: asked.update(last=needed) or 1 / 0)
        for memory in ("most", "least"):
            with pytest.raises(ZeroDivisionError):
                learn_with(0, memory)
            asked[memory] = asked["last"]
    with pytest.raises(
        ValueError, match=r"Training needs about .*: set `memory` (usual|less|little|least), "
    ):
        learn_with((asked["most"] + asked["least"]) / 2, "most")
    assert not list((folders / "flash_runs").iterdir())


def test_full_memory_while_encoding_is_one_sentence(lesson, room, learn, monkeypatch, unharmed) -> None:
    def full(self) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(room.NodeDisplay, "entry", full)
    with pytest.raises(ValueError, match="Encoding the clip takes more memory than is free, once: close"):
        learn(lesson)


def test_it_has_comfyui_to_itself(lesson, room, learn, monkeypatch, unharmed) -> None:
    import comfy.model_management as manager

    seen = []
    plain = room.NodeDisplay.step

    def look(self, progress):
        plain(self, progress)
        seen.append((manager.in_training, len(manager.current_loaded_models)))

    monkeypatch.setattr(room.NodeDisplay, "step", look)
    manager.load_models_gpu([lesson.model, lesson.clip.patcher])
    learn(lesson)
    assert seen == [(True, 0)] * 3


def test_full_memory_is_one_sentence_and_the_step_is_kept(
    lesson, folders, room, learn, monkeypatch, unharmed
):
    def full(self, progress):
        if progress.step == 2:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(room.NodeDisplay, "step", full)
    with pytest.raises(ValueError, match=r"The memory of cpu is full.*The last whole step is kept\."):
        learn(lesson)
    assert (folders / "flash_runs/turn/checkpoint-2").is_dir()


def test_clips_that_cannot_be_are_refused_in_a_sentence(lesson, folders, learn, no_model) -> None:
    no_model()
    (folders / "text.gif").write_text("no video")
    for changes, said in (
        ({"file": folders / "text.gif"}, r"text\.gif cannot be used as a clip"),
        ({"file": folders / "nowhere.mp4"}, r"nowhere\.mp4 cannot be used as a clip"),
        ({"prompt": " "}, "There is no `prompt`"),
        ({"prompt": "dog " * 30}, "The prompt has 31 tokens, and CogVideoX-5b-I2V reads 10"),
        ({"run_name": "../turn"}, "must be letters, digits, spaces"),
        ({"options": replace(lesson.options, start=9.0)}, "lasts 1.44 s, and the cut goes from 9"),
        ({"options": replace(lesson.options, start=1.0, end=0.5)}, "it must begin before it ends"),
    ):
        with pytest.raises(ValueError, match=said):
            learn(replace(lesson, **changes))


def test_a_short_clip_is_spread_and_told(lesson, folders, learn, room, monkeypatch) -> None:
    write_clip(folders / "short.gif", 5)
    said = []
    monkeypatch.setattr(room.NodeDisplay, "say", lambda self, text: said.append(text))
    learned = learn(replace(lesson, file=folders / "short.gif"))
    note = "short.gif has 5 frames there, and some are shown twice to make 9."
    assert note in learned.report.splitlines()
    assert said[0].startswith(f"{note} · About ")
    assert said[0].endswith("for 3 steps · encoding clips: 1 of 12")
    assert "Step 1 of 3 · loss " in "\n".join(said)


def test_encoders_of_other_models_are_refused(lesson, learn, no_model) -> None:
    no_model()
    with pytest.raises(ValueError, match="CogVideoX needs T5-XXL"):
        learn(replace(lesson, clip=None))


def test_a_lora_is_told_in_the_file(lesson, folders, learn) -> None:
    m = lesson.model.clone()
    weight = lesson.model.model.diffusion_model.blocks[0].q.weight
    m.add_patches({"diffusion_model.blocks.0.q.weight": (torch.ones_like(weight),)}, 0.1)
    learn(replace(lesson, model=m))
    _, header = read_tensors(folders / "flash_actions/turn.safetensors")
    assert header["flash.baked_in"] == '{"weights": 1, "kinds": ["diff"], "strengths": [0.1]}'


def test_the_node_learns_what_its_widgets_say(node_classes, lesson, folders, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "input_directory", str(folders))
    node = node_classes["FLASH_LearnFromOneClip"]
    inputs = node.INPUT_TYPES()
    widgets = {**inputs["required"], **inputs["optional"]}
    assert widgets["file"][1]["options"] == ["dog.gif"]
    defaults = {name: spec[1]["default"] for name, spec in widgets.items() if "default" in spec[1]}
    assert (defaults["steps"], defaults["sample_every"], defaults["adapter_strength"]) == (2000, 250, 0.7)
    given = {name: getattr(lesson, name) for name in ("model", "clip", "vae", "prompt", "run_name")}
    wishes = {**defaults, **given, "file": "dog.gif", "steps": 1, "tokens": TOKENS, "seed": 3}
    learned = node.execute(**wishes)
    action, losses, sheet, report = learned.args
    assert action.tokens_LMC.shape == (3, TOKENS, 48)
    assert len(losses["loss"]) == 2
    assert sheet.ndim == 4
    assert report.startswith("Learned 1 of 1 steps from one clip.\ndog.gif: 96x64")
    assert learned.ui["images"][0]["filename"] == "sample-000000.png"


def test_the_node_says_which_file_is_missing(node_classes, folders, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "input_directory", str(folders))
    node = node_classes["FLASH_LearnFromOneClip"]
    assert node.validate_inputs("dog.gif", "none") is True
    assert node.validate_inputs("gone.mp4", "none") == (
        "There is no file 'gone.mp4' in ComfyUI's input folder: put it there, press R and choose it again."
    )
    assert node.validate_inputs("gone.mp4", "none", video=None) is True  # a link
    assert "There is no file 'gone.pt' in models/loras" in node.validate_inputs("dog.gif", "gone.pt")
    before = node.fingerprint_inputs("dog.gif", "turn")
    write_clip(folders / "dog.gif", 7)
    assert node.fingerprint_inputs("dog.gif", "turn") != before
