"""Save Action and Load Action: what is written, and what a node shows of it."""

import html
from dataclasses import replace
from types import SimpleNamespace

import folder_paths
import pytest
import torch
from PIL import Image

from flash_pack import nodes as our_nodes
from flash_pack.flash_modules.backends.comfy import notes
from flash_pack.flash_modules.backends.comfy.save_action import SaveWishes, save_action
from flash_pack.flash_modules.backends.comfy.sd15 import add_action
from flash_pack.flash_modules.files.label import read_label
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flash.action_file import read_action
from flash_pack.flash_modules.flexiact.action_file import TransferAction
from flash_pack.tests.disks import small_disk


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """models/flash_actions, empty."""
    place = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "flash_actions", place)
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture
def learned(action):
    """As Learn Action gives it."""
    header = {
        "flash.trainable": '"attention"',
        "flash.steps": "40",
        "flash.run": "1234",
        "modelspec.title": "jump run",
        "modelspec.date": "2025-01-02",
    }
    return replace(action, header=header)


@pytest.fixture
def node():
    """A node of ours by its id, that runs as number 7 of a graph."""
    classes = {one.GET_SCHEMA().node_id: one for one in our_nodes.NODES}

    def running(node_id: str):
        cls = classes[node_id]
        shown = SimpleNamespace(unique_id="7", prompt=None, extra_pnginfo=None)
        return type("Running", (cls,), {"hidden": shown})

    return running


@pytest.fixture
def said(monkeypatch):
    """Texts that were sent to a browser, as they went."""
    texts = []
    server = SimpleNamespace(send_progress_text=lambda text, node_id: texts.append((node_id, text)))
    monkeypatch.setattr(notes, "PromptServer", SimpleNamespace(instance=server))
    return texts


def tensors_of(path):
    return read_tensors(path)[0]


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_title_and_picture_are_saved_and_shown_when_it_is_loaded(node, folder, learned, said):
    picture = torch.zeros(1, 60, 90, 4)
    picture[..., 0] = 1.0
    node("FLASH_SaveAction").execute(
        action=learned,
        file_name="jump",
        title="A jump",
        author="Ann",
        licence="CC-BY-4.0",
        description="With both feet.",
        kind="as it is",
        thumbnail=picture,
    )
    assert said == [("7", f"Saved as jump_00001_.safetensors in {folder}")]
    said.clear()
    given = node("FLASH_LoadAction").execute("jump_00001_.safetensors")
    action, prompt = given.args
    assert prompt == "a person jumps"
    assert same(action.motion, learned.motion)
    assert same(action.kv_diffs, learned.kv_diffs)
    ((_, text),) = said
    assert html.unescape(text).split("\n") == [
        "A jump, by Ann (CC-BY-4.0).",
        'Prompt: "a person jumps".',
        "For small_motion (v2), 40 steps.",
        "With both feet.",
    ]
    (image,) = given.ui.as_dict()["images"]
    with Image.open(folder / "temp" / image["filename"]) as shown:
        assert shown.size == (256, 256)
        assert shown.getpixel((128, 128))[0] > 250 > 5 > shown.getpixel((128, 128))[2]


def test_without_a_picture_only_text_is_shown(node, folder, learned, said):
    save_action(SaveWishes(action=learned, file_name="jump", kind="as it is"))
    given = node("FLASH_LoadAction").execute("jump_00001_.safetensors")
    assert given.ui is None
    assert said[0][1].startswith("jump run.\n")


def test_every_save_is_a_new_file(folder, learned):
    wishes = SaveWishes(action=learned, file_name="jump", kind="as it is")
    first = save_action(wishes)
    before = first.read_bytes()
    second = save_action(replace(wishes, title="Another"))
    assert [first.name, second.name] == ["jump_00001_.safetensors", "jump_00002_.safetensors"]
    assert first.read_bytes() == before
    assert read_label(read_tensors(second)[1], "jump").title == "Another"


def test_a_copy_keeps_the_header_and_belongs_to_no_run(folder, learned):
    path = save_action(SaveWishes(action=learned, file_name="jump", kind="as it is", author="Ann"))
    _, header = read_tensors(path)
    assert "flash.run" not in header
    assert header["modelspec.title"] == "jump run"
    assert header["modelspec.author"] == "Ann"
    assert header["modelspec.date"] == "2025-01-02"
    assert header["flash.steps"] == "40"


def test_standalone_animates_without_a_motion_module_and_compact_again_is_the_same(
    folder, learned, motion, model, sample
):
    wishes = SaveWishes(action=learned, file_name="jump", kind="standalone", motion=motion)
    whole = read_action(save_action(wishes))
    assert whole.kind == "standalone"
    ours, theirs = (
        sample(add_action(model, loaded, one)) for loaded, one in ((None, whole), (motion, learned))
    )
    assert float((ours - theirs).norm() / theirs.norm()) < 2e-3  # a file's motion is in fp16
    compact = save_action(SaveWishes(action=whole, file_name="small", kind="compact"))
    found = read_action(compact)
    assert found.kind == "compact"
    assert same(found.motion, {name: tensor.half() for name, tensor in learned.motion.items()})
    again = save_action(replace(wishes, action=whole, motion=None, kind="as it is"))
    assert same(tensors_of(again), tensors_of(folder / "jump_00001_.safetensors"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "standalone"}, r"connect small_motion \(v2\), on which 'jump' was trained, to `motion`"),
        ({"file_name": ""}, "must be a name, or folders and a name, in models/flash_actions"),
        ({"file_name": "../jump"}, "must be a name"),
        ({"file_name": "/away/jump"}, "must be a name"),
        ({"file_name": "sports/"}, "must be a name"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(folder, learned, changes, sentence):
    wishes = {"action": learned, "file_name": "jump", "kind": "as it is", **changes}
    with pytest.raises(ValueError, match=sentence):
        save_action(SaveWishes(**wishes))
    assert not list(folder.iterdir())


def test_names_may_have_folders(folder, learned):
    path = save_action(SaveWishes(action=learned, file_name="sports/kick", kind="as it is"))
    assert path == folder / "sports" / "kick_00001_.safetensors"
    assert path.is_file()


def test_a_full_disk_leaves_nothing(folder, learned, monkeypatch):
    with small_disk(folder / "disk", 2**18) as disk:
        place = ([str(disk)], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, "flash_actions", place)
        with pytest.raises(OSError, match="could not be written"):
            save_action(SaveWishes(action=learned, file_name="jump", kind="as it is"))
        assert not list(disk.iterdir())


def test_what_a_stranger_wrote_is_shown_sign_by_sign(node, folder, learned, said):
    hostile = {
        "modelspec.title": '<img src=x onerror="alert(1)">[[here|https://evil.example]]',
        "modelspec.author": "<script>alert(2)</script>",
        "modelspec.thumbnail": "data:image/png;base64," + "A" * (2 * 2**20),
    }
    strange = replace(learned, header={**learned.header, **hostile})
    save_action(SaveWishes(action=strange, file_name="x", kind="as it is"))
    given = node("FLASH_LoadAction").execute("x_00001_.safetensors")
    assert given.ui is None
    ((_, text),) = said
    assert "<" not in text
    assert "[[" not in text
    assert text.startswith("&lt;img src=x onerror=&quot;alert(1)&quot;&gt;")


def test_an_action_of_flexiact_is_saved_as_it_is(node, folder, said):
    tokens = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(1))
    action = TransferAction(name="spin", tokens_LMC=tokens, steps=1000, prompt="a man spins")
    wishes = SaveWishes(action=action, file_name="spin", kind="as it is", title="A spin")
    save_action(wishes)
    given = node("FLASH_LoadAction").execute("spin_00001_.safetensors")
    assert torch.equal(given.args[0].tokens_LMC, tokens)
    assert html.unescape(said[0][1]).split("\n") == [
        "A spin.",
        'Prompt: "a man spins".',
        "For CogVideoX-5b-I2V, 1000 steps.",
    ]
    with pytest.raises(ValueError, match="'spin' is FlexiAct's, which is never compact: choose 'as it is'"):
        save_action(replace(wishes, kind="compact"))
