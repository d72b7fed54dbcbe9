import csv
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.files.video_files import as_picture, write_picture, write_video
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.small_judges import save_clip, save_videomae
from flash_pack.tests.core.made_videos import CIRCLE, DOWN, RIGHT, noisy, scene, shuffled

WAYS = {"a": RIGHT, "b": DOWN, "c": CIRCLE}


def write(folder: Path, videos: Mapping[str, Tensor], suffix: str = ".webp") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, video_FHWC in videos.items():
        write_video(folder / f"{name}{suffix}", iter(video_FHWC), 8)
    return folder


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that perform as true clips do, others that do not, pictures, true clips and training clips."""
    root = tmp_path_factory.mktemp("evaluate")
    write(root / "good", {n: noisy(scene(way, i), 0.02) for i, (n, way) in enumerate(WAYS.items())})
    write(root / "<b>bad", {n: shuffled(scene(way, i + 5)) for i, (n, way) in enumerate(WAYS.items())})
    write(root / "truth", {n: scene(way, i) for i, (n, way) in enumerate(WAYS.items())}, ".mp4")
    write(root / "training", {f"t{i}": scene(way, i + 5) for i, way in enumerate(WAYS.values())}, ".gif")
    (root / "pictures").mkdir()
    for i, (name, way) in enumerate(WAYS.items()):
        write_picture(root / "pictures" / f"{name}.png", as_picture(scene(way, i)[0]))
    (root / "pictures" / "a.txt").write_text("a disc <script>alert(1)</script>")
    (root / "judges").mkdir()
    save_clip(root / "judges" / "clip")
    save_videomae(root / "judges" / "vit_small.pth")
    return root


@pytest.fixture(autouse=True)
def _no_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("flash_pack.flash_modules.evaluation.judges.find.HF_HUB_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def report(material: Path) -> Path:
    arguments = {
        "videos": [material / "good", material / "<b>bad"],
        "pictures": material / "pictures",
        "truth": material / "truth",
        "training": material / "training",
        "judges": material / "judges",
        "prompt": "a person is jumping",
        "out": material / "report.html",
        "device": "cpu",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(material / "none"))
        patch.setattr("flash_pack.flash_modules.evaluation.judges.find.HF_HUB_CACHE", str(material / "none"))
        assert run_command("evaluate", arguments) == 0
    return material / "report.html"


def numbers(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.with_suffix(".json").read_text())
    return found


def test_every_score_that_can_be_had_is_there_with_its_spread_and_number(report: Path) -> None:
    methods = numbers(report)["methods"]
    assert set(methods) == {"good", "<b>bad", "true clips"}
    keys = {
        "text_alignment",
        "image_alignment",
        "temporal_consistency",
        "motion_agreement",
        "motion_histogram",
    }
    keys |= {"first_jump", "flicker", "likeness", "leak", "frechet", "kernel"}
    for name in ("good", "<b>bad"):
        assert set(methods[name]["scores"]) == keys
        for score in methods[name]["scores"].values():
            assert score["videos"] == 3
            assert math.isfinite(score["spread"])
    assert "frechet" not in methods["true clips"]["scores"]
    values = [scores["flicker"] for scores in methods["good"]["videos"].values()]
    assert methods["good"]["scores"]["flicker"]["value"] == pytest.approx(sum(values) / 3)
    assert methods["good"]["scores"]["flicker"]["spread"] == pytest.approx(
        torch.tensor(values).std().item(), rel=1e-4
    )


def test_scores_tell_the_good_from_the_bad(report: Path) -> None:
    good, bad = (numbers(report)["methods"][name]["scores"] for name in ("good", "<b>bad"))
    for key in ("motion_agreement", "likeness", "image_alignment"):
        assert good[key]["value"] > bad[key]["value"]
    for key in ("motion_histogram", "leak", "frechet", "kernel"):
        assert good[key]["value"] < bad[key]["value"]
    assert good["frechet"]["floor"] == bad["frechet"]["floor"] > 0


def test_the_table_in_csv_has_a_row_for_each_video(report: Path) -> None:
    rows = list(csv.DictReader(report.with_suffix(".csv").read_text().splitlines()))
    assert [(row["method"], row["video"]) for row in rows[:4]] == [("good", n) for n in "abc"] + [
        ("<b>bad", "a")
    ]
    assert (
        float(rows[0]["motion_agreement"])
        == numbers(report)["methods"]["good"]["videos"]["a"]["motion_agreement"]
    )


def test_the_page_stands_alone_and_names_are_text(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "<b>bad" not in text
    assert "&lt;b&gt;bad" in text
    assert "<script>alert" not in text
    assert 'src="http' not in text
    assert text.count("data:image/webp;base64,") == 3 * 4  # picture, truth, two methods
    assert "Fréchet distance (VideoMAE 264x2, patch 56, 7 classes)" in text  # not CD-FVD
    assert "come from CLIP 32x2, patch 56, and not from the paper" in text
    assert "I3D on colours is missing, and Cosine RGB left out: put rgb_imagenet.pt into" in text


def run(material: Path, folder: Path, *flags: str, **changes: object) -> int:
    arguments = {"videos": material / "good", "out": folder / "r.html", "device": "cpu", **changes}
    return run_command("evaluate", arguments, *flags)


def test_without_pictures_truth_and_judges_the_other_scores_go_on(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(material, tmp_path) == 0
    said = capsys.readouterr().err
    scores = numbers(tmp_path / "r.html")["methods"]["good"]["scores"]
    assert set(scores) == {"first_jump", "flicker", "likeness"}
    assert "There are no true clips (--truth): all scores that are held against them are left out." in said
    assert (
        "CLIP ViT-L/14 is missing, and Text Alignment, Image Alignment and Temporal Consistency left out"
        in said
    )
    assert "There is no prompt" in said


def test_one_damaged_video_among_many_is_said_and_left_out(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "some", {"a": scene(), "b": scene()[:2], "c": scene(DOWN)})
    (folder / "c.webp").write_bytes((folder / "c.webp").read_bytes()[:900])
    assert run(material, tmp_path, videos=folder) == 0
    said = capsys.readouterr().err
    assert "c.webp is left out: it cannot be read" in said
    assert "some: b.webp is left out: This measure needs 3 frames or more; the video has 2" in said
    assert list(numbers(tmp_path / "r.html")["methods"]["some"]["videos"]) == ["a"]


def test_true_clips_of_other_lengths_sizes_and_names_are_compared_as_far_as_they_go(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = write(tmp_path / "videos", {"a": scene(), "b": scene(DOWN), "other": scene(RIGHT)})
    truth = write(
        tmp_path / "truth", {"a": scene()[:5, :, :64], "b": scene(DOWN)[:2], "z": scene(RIGHT, 3)}, ".mp4"
    )
    assert run(material, tmp_path, videos=videos, truth=truth) == 0
    said = capsys.readouterr().err
    assert "The true clip a.mp4 lasts for 5 of 8 frames: motion is compared up to there." in said
    assert "The true clip b.mp4 is left out: it lasts for 2 frames of the video, 3 are needed." in said
    found = numbers(tmp_path / "r.html")["methods"]["videos"]["videos"]
    assert found["a"]["motion_agreement"] > 0.8
    assert "motion_agreement" not in found["b"]
    assert found["other"]["motion_agreement"] > 0.8  # like the nearest of all, z


def test_only_equal_numbers_of_videos_are_compared(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("a.webp", "c.webp"):
        (few / name).write_bytes((material / "good" / name).read_bytes())
    arguments = {
        "videos": [material / "good", few],
        "truth": material / "truth",
        "judges": material / "judges",
    }
    assert run(material, tmp_path, **arguments) == 0
    said = capsys.readouterr().err
    assert "Distances of sets take 2 of the 3 videos of good: only equal numbers are compared." in said
    assert "The floor of the sets' distances needs 2 more true clips (there are 1)" in said
    methods = numbers(tmp_path / "r.html")["methods"]
    assert (
        methods["good"]["scores"]["frechet"]["videos"] == methods["few"]["scores"]["frechet"]["videos"] == 2
    )
    assert methods["few"]["scores"]["frechet"]["spread"] is None
    values = [methods[name]["scores"]["frechet"]["value"] for name in ("good", "few")]
    assert values[0] == pytest.approx(values[1])  # of the same names


def test_a_runs_losses_exam_and_settings_are_in_the_page(material: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<i>run"
    folder.mkdir()
    (folder / "settings.json").write_text('{"seed": 7}')
    (folder / "loss.csv").write_text("step,seconds,loss\n1,0.1,0.5\n2,0.2,0.25\n3,0.3,")
    (folder / "exam.csv").write_text("step,seconds,kept_aside,learned_from\n0,0.1,0.9,0.8\n2,0.2,0.7,0.6\n")
    assert run(material, tmp_path, **{"run-folder": folder}) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Run &lt;i&gt;run" in text
    assert "loss: 0.5 to 0.25" in text
    assert "kept_aside: 0.9 to 0.7" in text
    assert "&quot;seed&quot;: 7" in text


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"videos": "empty"}, "No clip .* in .*empty|holds no"),
        ({"videos": "missing"}, "missing"),
        ({"truth": "missing"}, "missing"),
        ({"pictures": "missing"}, "There is no folder .*missing: give the one with the pictures"),
        ({"judges": "missing"}, "There is no folder .*missing: give the one with the judges' weights"),
        ({"out": "r.pdf"}, "r.pdf is no name for the page: let it end in .html"),
        ({"run-folder": "empty"}, "empty is no run of `train` .it has no settings.json"),
        ({"videos": ["x=good", "x=good"]}, "Two rows of the table would be called 'x': give names"),
        ({"videos": "true clips=good"}, "would be called 'true clips'"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: Mapping[str, object],
    wanted: str,
) -> None:
    monkeypatch.chdir(material)
    (material / "empty").mkdir(exist_ok=True)
    assert run(material, tmp_path, **changes) == 2
    error = sentence_of(capsys.readouterr().err)
    assert re.search(wanted, error), error
    assert not (tmp_path / "r.html").exists()
