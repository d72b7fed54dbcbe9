"""Files and folders that are written whole, or not at all."""

from pathlib import Path

import pytest

from flash_pack.flash_modules.files.whole import DRAFTS, whole, write_text

INTERRUPTIONS = [OSError, KeyboardInterrupt, SystemExit]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path, error: type[BaseException]) -> None:
    with whole(path) as draft:
        draft.write_text("half")
        raise error


def write_half_a_folder(path: Path, error: type[BaseException]) -> None:
    with whole(path) as draft:
        draft.mkdir()
        (draft / "0.txt").write_text("half")
        raise error


def test_a_file_has_its_new_content_at_the_end_and_the_old_one_until_then(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as draft:
        assert draft.name == "a.txt"  # writers look at the ending
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_draft_lies_on_the_same_disk_where_a_run_finds_it(tmp_path: Path) -> None:
    with whole(tmp_path / "a.txt") as draft:
        assert draft.parent in tmp_path.glob(DRAFTS)
        draft.touch()


def test_a_folder_comes_with_all_its_files(tmp_path: Path) -> None:
    with whole(tmp_path / "a") as draft:
        draft.mkdir()
        for i in range(3):
            (draft / f"{i}.txt").write_text(str(i))
            assert not (tmp_path / "a").exists()
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["0.txt", "1.txt", "2.txt"]


@pytest.mark.parametrize("error", INTERRUPTIONS)
def test_an_interruption_leaves_the_old_file_and_no_draft(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", INTERRUPTIONS)
def test_an_interruption_leaves_no_folder_and_no_draft(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_half_a_folder(tmp_path / "a", error)
    assert not names(tmp_path)


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(Path("a.txt"), "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_text_is_in_utf_8_everywhere(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "läuft 女孩\n")
    assert (tmp_path / "a.txt").read_bytes() == "läuft 女孩\n".encode()
