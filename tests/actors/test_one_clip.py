"""The study of one clip: its tiny base and fixed code, the exam on figures, lessons that are kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.__main__ import main
from actors.base import pool, video_base
from actors.base.patch_code import CHANNELS, encode
from actors.base.pool import ClipPool
from actors.base.video_base import VideoData, base_loss, make_clips, new_transformer, text_embeds
from actors.studies import one_clip
from actors.studies.one_clip_exam import ANOTHER, OTHER, SAME, TIMESTEPS, Errors, Exam, exam_clips
from actors.studies.one_clip_tables import saved, tables
from actors.world.clips import caption
from actors.world.looks import draw_look
from actors.world.motion import draw_motion
from flash_modules.backends.diffusers.cogvideox.guidance import predict_velocity
from flash_modules.flexiact.noise_schedule import alphas_cumprod
from flash_modules.training.sampling import seeded


def test_the_code_is_linear_and_its_channels_are_cosines_of_a_patch() -> None:
    video = torch.rand(2, 3, 16, 24)
    latents = encode(video)
    assert latents.shape == (2, CHANNELS, 2, 3)
    both = encode(0.5 * video + 0.5 * video.flip(0))
    torch.testing.assert_close(both, 0.5 * latents + 0.5 * latents.flip(0))
    rows = [math.cos(math.pi * 2 * (i + 0.5) / 8) for i in range(8)]
    patch = video[1, :, 8:16, 16:24] - 0.5
    norm = math.sqrt(sum(row**2 for row in rows))
    down = sum(rows[y] / norm * float(patch[:, y].sum()) / math.sqrt(8 * 3) for y in range(8))
    brightness = 2.4, 0.54, 0.58, 0.31, 0.27, 0.33, 0.21, 0.2, 0.18, 0.21
    colors = 1.28, 0.28, 0.34, 0.58, 0.14, 0.14
    scale = math.sqrt(brightness[5] * sum(brightness + colors) / CHANNELS)
    assert float(latents[1, 5, 1, 2]) == pytest.approx(down / scale, abs=1e-5)


def test_a_grey_picture_is_nothing_and_a_brighter_one_in_the_first_channel_alone() -> None:
    assert not encode(torch.full((1, 3, 8, 8), 0.5)).any()
    latents = encode(torch.full((1, 3, 8, 8), 0.9)).flatten()
    assert latents[0] > 0.1
    assert latents[1:].abs().max() < 1e-5


def test_text_tells_words_and_their_places() -> None:
    red, blue = text_embeds("red shirt, blue pants"), text_embeds("blue shirt, red pants")
    assert red.shape == (1, 24, 64)
    assert torch.equal(red, text_embeds("red shirt, blue pants"))
    assert not torch.allclose(red[0, 0], blue[0, 0])
    assert not torch.allclose(red[0, 0], blue[0, 2])  # the same word elsewhere
    assert torch.equal(red[0, 1], blue[0, 1])
    assert not red[0, 4:].any()
    with pytest.raises(ValueError, match="A caption has at most 24 words, and this one 25"):
        text_embeds("word " * 25)
    for seed in range(200):
        text_embeds(caption(draw_motion("chopping wood", seed), draw_look(seed)))


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipPool:
    monkeypatch.setattr(pool, "CHUNK", 2)
    return make_clips(tmp_path, 3, seed=0)


def test_the_bases_loss_is_that_of_the_velocity_and_figures_count_three_times(
    clips: ClipPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, transformer = VideoData(clips), new_transformer(0).eval()
    assert data.latents_KFCHW.shape == (3, 9, 16, 12, 12)
    assert float(data.latents_KFCHW.float().square().mean()) == pytest.approx(1, abs=0.6)
    seen = []

    def predict(transformer: object, *inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return predict_velocity(transformer, *inputs)

    monkeypatch.setattr(video_base, "predict_velocity", predict)
    loss = base_loss(transformer, data, 2, torch.Generator().manual_seed(5))
    ((noisy, picture, timestep, text),) = seen
    draws = torch.Generator().manual_seed(5)
    numbers = torch.randint(3, (2,), generator=draws)
    total, weight = 0.0, 0.0
    for b, number in enumerate(numbers.tolist()):
        clean, alpha = data.latents_KFCHW[number].float(), float(alphas_cumprod()[timestep[b]])
        noise = (noisy[b] - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha)
        inputs = (one[b : b + 1] for one in (noisy, picture, timestep, text))
        velocity = predict_velocity(transformer, *inputs).detach()
        off = (velocity[0] - math.sqrt(alpha) * noise + math.sqrt(1 - alpha) * clean) ** 2
        file = clips.paths[number // 2]
        covered = torch.from_numpy(np.load(file.with_name(f"{file.stem}-figures.npy")))[number % 2] / 255
        for f, y, x in product(range(9), range(12), range(12)):
            share = float(covered[f, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean())
            total += float(off[f, :, y, x].mean()) * (1 + 2 * share)
            weight += 1 + 2 * share
        assert not picture[b, 1:].any()
        assert torch.equal(picture[b, 0], clean[0])
    assert loss.item() == pytest.approx(total / weight, rel=1e-3)


def test_sets_of_the_exam_share_what_their_names_say() -> None:
    motion = draw_motion("arm wave", 3, close=True)
    sets = exam_clips(motion, "soccer shoot", 2)
    motions = {name: [clip.motion for clip in of] for name, of in sets.items()}
    assert motions[SAME] == [motion, motion]
    assert {one.action for one in motions[OTHER]} == {"arm wave"}
    assert {one.action for one in motions[ANOTHER]} == {"soccer shoot"}
    assert motion not in motions[OTHER]
    looks = [[clip.look for clip in of] for of in sets.values()]
    assert looks[0] == looks[1] == looks[2]
    assert all(look.held_out for look in looks[0])
    assert sets[SAME][0].frames_FHW3.shape == (9, 96, 96, 3)


def test_errors_are_of_figures_alone_and_frame_0_does_not_count() -> None:
    shape = (2, 3, 4, 5, 6)
    clean, found = torch.randn(shape), torch.randn(shape)
    figures = torch.rand(2, 3, 5, 6)
    exam = Exam({"a": clean}, {"a": torch.zeros(2, 7, 8)}, {"a": figures})
    pictures = []

    def predict(noisy: Tensor, picture: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        pictures.append(picture)
        return found

    total = 0.0
    for timestep in TIMESTEPS:
        alpha = float(alphas_cumprod()[timestep])
        for b in range(2):
            noise = torch.randn(shape[1:], generator=seeded(b, "one clip", timestep))
            wanted = math.sqrt(alpha) * noise - math.sqrt(1 - alpha) * clean[b]
            errors = weights = 0.0
            for f in (1, 2):
                for y in range(5):
                    for x in range(6):
                        off = float((found[b, f, :, y, x] - wanted[f, :, y, x]).square().mean())
                        errors += off * float(figures[b, f, y, x])
                        weights += float(figures[b, f, y, x])
            total += errors / weights
    assert exam.errors(predict)["a"] == pytest.approx(total / 2 / len(TIMESTEPS), rel=1e-4)
    assert all(torch.equal(one[:, 0], clean[:, 0]) and not one[:, 1:].any() for one in pictures)


@dataclass(frozen=True)
class Done:
    """A lesson whose errors are told."""

    action: str
    control: str
    seed: int
    after: tuple[float, float, float]

    def exams(self) -> Mapping[int, Errors]:
        before = dict(zip((SAME, OTHER, ANOTHER), (1.0, 2.0, 4.0), strict=True))
        return {0: before, 9: dict(zip(before, self.after, strict=True))}


def test_tables_tell_what_a_lesson_takes_off_beyond_another_one() -> None:
    runs = [Done("a", "b", 0, (0.5, 1.6, 3.6)), Done("b", "a", 0, (0.9, 1.9, 4.0))]
    assert saved(runs[0], SAME) == pytest.approx(50)
    said = tables(runs, {"steps": 7, "minutes": 1.5})
    assert said.startswith("The base: steps 7, minutes 1.5.")
    assert "| a, clip 0 | 1.0000, 0.5000 | 2.0000, 1.6000 | 4.0000, 3.6000 |" in said
    assert f"| {SAME} | 30.00 ± 28.28 |" in said
    assert f"| {SAME}, less {ANOTHER} | 25.00 ± 21.21 | 2 of 2 |" in said
    # of the second's clips the lesson on the first takes 10 % off, of the first's the second's nothing
    assert f"| {OTHER}, less the lesson on the other | 7.50 ± 17.68 | 1 of 2 |" in said
    assert f"| {OTHER}, less {ANOTHER} | 7.50 ± 3.54 | 2 of 2 |" in said


WORDS = ("--clips", "2", "--base-steps", "2", "--batch", "1", "--steps", "2", "--seeds", "1", "--looks", "1")


def test_the_study_goes_on_from_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "CHUNK", 2)
    words = ["one-clip", "--out", str(tmp_path), *WORDS]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "The base: steps 2" in first
    assert "| chopping wood, clip 0 |" in first
    monkeypatch.delattr(one_clip, "pretrain")
    monkeypatch.delattr(one_clip, "read_transformer")
    assert main(words) == 0
    assert capsys.readouterr().out == first
    assert main([*words, "--tokens", "5"]) == 2
    assert "was made with other settings" in capsys.readouterr().err


def test_one_action_is_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one-clip", "--actions", "arm wave"]) == 2
    assert "Each action is the control of another: give two or more." in capsys.readouterr().err
