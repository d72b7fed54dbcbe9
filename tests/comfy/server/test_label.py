"""What Load Action and Save Action show on their nodes, in ComfyUI's real frontend."""

from dataclasses import replace

import pytest
from PIL import Image, ImageDraw

from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.files.label import Label, with_label
from flash_pack.flash_modules.flash.action_file import Action, Source, write_action
from flash_pack.tests.comfy.server.test_frontend import READY, browser, frontend, page, use_vue_nodes

__all__ = ["browser", "frontend", "page"]

HOSTILE = '<img src=x onerror="window.harmed = 1"><b>bold</b>'


@pytest.fixture(scope="module")
def actions(base):
    """An action with a picture, and one whose header a stranger wrote."""
    picture = Image.new("RGB", (400, 300), (40, 120, 200))
    ImageDraw.Draw(picture).ellipse((100, 50, 300, 250), fill=(240, 190, 60))
    motion = read_motion(base / "models/animatediff_models/v3_sd15_mm.ckpt")
    names = [name for name in motion.tensors if ".to_k." in name or ".to_v." in name]
    action = Action(
        name="kick",
        kind="compact",
        motion={name: motion.tensors[name] for name in names},
        kv_diffs={},
        base=Source(name="random", sha256=""),
        motion_module=Source(name="v3_sd15_mm", sha256=motion.sha256, version="v3"),
        frames=16,
        prompts=("a person kicks a ball",),
        header={"flash.steps": "20000"},
    )
    nice = Label(title="A high kick", author="Ann", licence="CC-BY-4.0", thumbnail=picture)
    strange = Label(title=HOSTILE, author="[[here|https://evil.example]]")
    for name, label in (("kick", nice), ("strange", strange)):
        labelled = replace(action, header=with_label(action.header, label))
        write_action(base / f"models/flash_actions/{name}.safetensors", labelled, None)


def show(page, server, name: str) -> None:
    """Load that action and save it again, in a graph of two nodes, and wait for the end."""
    page.goto(server.url)
    page.wait_for_function(READY)
    page.wait_for_timeout(1500)  # until the frontend has opened its own graph
    inputs = {"file_name": f"copies/{name}", "title": "", "author": "", "licence": "", "description": ""}
    graph = {
        "1": {"class_type": "FLASH_LoadAction", "inputs": {"file_name": f"{name}.safetensors"}},
        "2": {"class_type": "FLASH_SaveAction", "inputs": {"action": ["1", 0], "kind": "as it is", **inputs}},
    }
    page.evaluate("graph => app.loadApiJson(graph, 'card')", graph)
    page.wait_for_function("() => app.graph._nodes.some(node => node.type === 'FLASH_SaveAction')")
    before = set(server.get("/history"))
    page.get_by_test_id("queue-button").click()
    (prompt_id,) = server.wait_for(lambda: set(server.get("/history")) - before, "the copy")
    assert server.get("/history")[prompt_id]["status"]["status_str"] == "success"
    page.wait_for_timeout(1500)


def test_title_prompt_module_steps_and_picture_are_seen(page, server, actions):
    show(page, server, "kick")
    lines = (
        "A high kick, by Ann (CC-BY-4.0).",
        'Prompt: "a person kicks a ball".',
        "For v3_sd15_mm (v3), 20000 steps.",
    )
    for vue in (False, True):
        use_vue_nodes(page, vue)
        assert all(words in page.locator("body").inner_text() for words in lines)
    pictures = page.locator("[data-node-id] img")
    sizes = pictures.evaluate_all("pictures => pictures.map(p => [p.naturalWidth, p.naturalHeight])")
    assert [256, 256] in sizes
    assert (server.base / "models/flash_actions/copies/kick_00001_.safetensors").is_file()


def test_what_a_stranger_wrote_stays_text(page, server, actions):
    show(page, server, "strange")
    for vue in (False, True):
        use_vue_nodes(page, vue)
        assert HOSTILE in page.locator("body").inner_text()
        assert page.get_by_role("link", name="here").count() == 0
    assert page.evaluate("() => window.harmed") is None
