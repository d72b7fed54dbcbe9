import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageSequence

from flash_pack.flash_modules.evaluation.study_page import study_page
from flash_pack.flash_modules.files.video_files import write_video
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.core.made_videos import CIRCLE, DOWN, RIGHT, scene, shuffled

sync_api = pytest.importorskip("playwright.sync_api", reason="THE STUDY'S PAGE WAS NOT OPENED: no playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAYS = {"a": RIGHT, "<img src=x>": DOWN, "c": CIRCLE}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    for name in ("good", "bad", "truth"):
        (root / name).mkdir()
    for i, (name, way) in enumerate(WAYS.items()):
        write_video(root / "good" / f"{name}.webp", iter(scene(way, i)), 8)
        write_video(root / "bad" / f"{name}.mp4", iter(shuffled(scene(way, i))), 12)
        write_video(root / "truth" / f"t{i}.webp", iter(scene(way, i)), 8)
    (root / "truth" / "t0.txt").write_text("a disc </script><script>window.harmed = true</script>")
    return root


@pytest.fixture(scope="module")
def study(material: Path) -> tuple[Path, dict[str, Any]]:
    arguments = {
        "videos": [material / "good", f"<b>bad={material / 'bad'}"],
        "truth": material / "truth",
        "prompt": "a <script>window.harmed = true</script> person",
        "seed": 5,
        "out": material / "raters",
    }
    assert run_command("study", arguments) == 0
    return material / "raters", json.loads((material / "raters-key.json").read_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("THE STUDY'S PAGE WAS NOT OPENED: no chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def wait_for_the_store(page: Any) -> None:
    """Reload until what a page writes is still there then: Chromium forgets it in its first moments."""
    end = time.monotonic() + 60
    while page.evaluate("localStorage.getItem('tried')") is None:
        assert time.monotonic() < end, "Chromium keeps nothing that a page writes"
        page.evaluate("localStorage.setItem('tried', 'yes')")
        page.reload()


def test_nothing_that_raters_get_tells_whose_a_video_is(study: tuple[Path, dict[str, Any]]) -> None:
    folder, key = study
    page = (folder / "index.html").read_text(encoding="utf-8")
    data = page.partition('id="data">')[2].partition("</script>")[0]
    for word in (*(f'"{pair["name"]}"' for pair in key["pairs"]), "good", "bad", "truth", "control", "right"):
        assert word not in data
    files = [path for path in folder.iterdir() if path.suffix in (".webp", ".png")]
    assert len(files) == 6 * 3
    for path in files:
        with Image.open(path) as picture:
            assert picture.size == (96, 64)
            assert not {"exif", "xmp", "comment"} & picture.info.keys()
            picture.load()
            if getattr(picture, "n_frames", 1) > 1:
                assert picture.info["duration"] % 83 <= 2  # all at 12 frames per second
    assert not list(folder.glob("*.json"))


def test_videos_of_other_rates_keep_their_speeds(study: tuple[Path, dict[str, Any]]) -> None:
    """The good ones last 1 s (8 frames, 8 a second), the bad ones 2/3 s (12 a second)."""
    folder, key = study
    page = (folder / "index.html").read_text(encoding="utf-8")
    questions = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["questions"]
    by_id = {question["id"]: question for question in questions}
    for pair in key["pairs"]:
        for method, name in zip(pair["methods"], by_id[pair["question"]]["videos"], strict=True):
            with Image.open(folder / name) as video:
                milliseconds = sum(frame.info["duration"] for frame in loaded(video))
            assert milliseconds == pytest.approx(1000 if method == "good" else 667, abs=10)


def loaded(video: Image.Image) -> Iterator[Image.Image]:
    for frame in ImageSequence.Iterator(video):
        frame.load()
        yield frame


def test_every_question_has_a_control_with_one_true_clip(study: tuple[Path, dict[str, Any]]) -> None:
    folder, key = study
    page = (folder / "index.html").read_text(encoding="utf-8")
    questions = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["questions"]
    by_id = {question["id"]: question for question in questions}
    assert len(key["pairs"]) == 3
    places = [question["id"] for question in questions]
    for pair in key["pairs"]:
        assert sorted(pair["methods"]) == ["<b>bad", "good"]
        assert abs(places.index(pair["question"]) - places.index(pair["control"])) == 1
        control = by_id[pair["control"]]
        moving = []
        for name in control["videos"]:
            with Image.open(folder / name) as video:
                moving.append(getattr(video, "n_frames", 1) > 1)
        assert moving == [index == pair["right"] for index in range(2)]
    assert len({tuple(pair["methods"]) for pair in key["pairs"]}) == 2 or key["seed"] != 5


def answer(page: Any, choose: Mapping[str, int], total: int) -> None:
    for _ in range(total):
        question = page.evaluate("questions[state.place].id")
        assert page.locator("#next").is_disabled() or question in page.evaluate("state.answers")
        page.locator("input[name=choice]").nth(choose[question]).check()
        page.locator("#next").click()


def test_the_page_is_answered_in_a_browser_saved_and_counted(
    study: tuple[Path, dict[str, Any]], browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = study
    for rater, honest in enumerate((True, True, False)):
        context = browser.new_context(accept_downloads=True)
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
        page.goto((folder / "index.html").as_uri())
        wait_for_the_store(page)
        choose = {}
        for pair in key["pairs"]:
            choose[pair["question"]] = pair["methods"].index("good")
            choose[pair["control"]] = pair["right"] if honest else 1 - pair["right"]
        answer(page, choose, 2)
        page.reload()  # what was answered is kept
        assert page.evaluate("state.place") == 2
        answer(page, choose, 4)
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / f"answers-{rater}.json")
        assert page.evaluate("window.harmed") is None
        assert problems == []
        context.close()
    key_file, out = folder.with_name("raters-key.json"), tmp_path.with_suffix(".json")
    arguments = {"count": tmp_path, "key": key_file, "out": out}
    assert run_command("study", arguments) == 0
    said = capsys.readouterr().out
    assert "| good | 100.0% | " in said
    assert "6 valid answers of 3 raters; 3 invalid ones" in said
    counted = json.loads(out.read_text())
    assert counted["shares"][0]["votes"] == 6


def test_prompts_are_text_and_pictures_are_seen(study: tuple[Path, dict[str, Any]], browser: Any) -> None:
    page = browser.new_page()
    page.goto((study[0] / "index.html").as_uri())
    page.wait_for_load_state("networkidle")
    prompt = page.locator("#prompt").inner_text()
    assert "<script>window.harmed = true</script>" in prompt
    sizes = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert sizes == [96, 96, 96]
    page.close()


def test_a_page_with_200_questions_stays_quick(browser: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "v.webp", iter(torch.rand(4, 32, 32, 3)), 8)
    questions = [
        {
            "id": f"q{i}",
            "picture": "v.webp",
            "prompt": "p" * 500,
            "videos": [f"v.webp?{i}"] * 7,
        }
        for i in range(400)
    ]
    (tmp_path / "index.html").write_text(study_page("s", questions), encoding="utf-8")
    page = browser.new_page()
    start = time.monotonic()
    page.goto((tmp_path / "index.html").as_uri())
    assert page.locator("#count").inner_text() == "1 of 400"
    took = page.evaluate(
        """() => { const start = performance.now();
        for (const question of questions) { state.answers[question.id] = 0; go(1); }
        return performance.now() - start; }"""
    )
    assert page.evaluate("document.images.length") <= 8
    assert page.locator("#done").is_visible()
    assert took < 8000
    assert time.monotonic() - start < 40
    page.close()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"videos": ["good"]}, "A study compares two methods or more"),
        ({"prompt": None}, "shows an action best, and that of <img src=x> is not told: give --prompt"),
        ({"truth": None}, "Control questions need true clips"),
        ({"key": "none/key.json"}, "There is no folder"),
        ({"key": "new/key.json"}, "would lie in the folder that raters get"),
        ({"out": "raters"}, "raters is there already: give a new folder's name"),
        ({"out": None}, "A study needs --videos of two methods or more, and --out"),
        ({"count": "good", "key": None}, "Answers are counted with the study's key"),
        ({"count": "good", "key": "raters-key.json"}, "There are no answers in good"),
        ({"count": "good", "key": "raters/index.html"}, "index.html is damaged"),
        ({"videos": ["good", "x=truth"]}, "No picture has a video of every method"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    material: Path,
    study: tuple[Path, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: Mapping[str, object],
    wanted: str,
) -> None:
    monkeypatch.chdir(material)
    arguments = {"videos": ["good", "bad"], "truth": "truth", "out": "new", "key": "k.json"}
    arguments |= {"prompt": "a disc moves", **changes}
    assert run_command("study", arguments) == 2
    assert wanted in sentence_of(capsys.readouterr().err)
    assert not (material / "new").exists()
