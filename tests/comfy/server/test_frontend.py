"""The shipped workflows and help pages in ComfyUI's real frontends, in headless Chromium.

Beside the frontend that ComfyUI has, others are tried: folders with comfyui_frontend_package in them, named
in COMFYUI_FRONTENDS or called `frontend*` beside ComfyUI's folder (`pip install --no-deps --target FOLDER
comfyui-frontend-package==1.58.1`).
"""

import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import av
import pytest

from flash_pack.flash_modules.flexiact.action_file import read_transfer_action

sync_api = pytest.importorskip("playwright.sync_api", reason="THE FRONTEND TESTS DID NOT RUN: no playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("THE FRONTEND TESTS DID NOT RUN: no Chromium", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[3]
API = ROOT / "tests" / "comfy" / "api"
OLD = ROOT / "tests" / "old" / "graphs"
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BY_NAME = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)

READY = "() => window.app?.graph && window.app?.canvas && window.app?.extensionManager"
HARMLESS = re.compile(
    r"user\.css|api/userdata|ComfyApp graph accessed before initialization"  # every new ComfyUI has these
    r"|huggingface\.co"  # the default graph asks for the sizes of its models
    r"|TimeoutError: Fetch timeout"  # 1.58 asks for the jobs while a busy processor does nothing but sample
    r"|docs/\w+/en\.md"  # asked for before docs/<node>.md
)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        options += ["--disable-features=LocalNetworkAccessChecks"]  # for pages that `serve` answers for
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


def other_frontends() -> list[Path]:
    named = [Path(name) for name in os.environ.get("COMFYUI_FRONTENDS", "").split(os.pathsep) if name]
    folders = named or sorted(COMFYUI.parent.glob("frontend*"))
    return [folder / "comfyui_frontend_package" / "static" for folder in folders]


@pytest.fixture(
    params=[None, *other_frontends()], ids=lambda path: path.parents[1].name if path else "its own"
)
def frontend(request) -> Path | None:
    """The static files of a frontend, or None for ComfyUI's own."""
    return request.param


def serve(context, frontend: Path) -> None:
    """Let the browser get this frontend, and all else from the server, as `--front-end-root` does."""

    def answer(route):
        file = frontend / (urlsplit(route.request.url).path.lstrip("/") or "index.html")
        if file.is_file():
            route.fulfill(path=file)
        else:
            route.continue_()

    context.route("**/*", answer)


@pytest.fixture
def page(server, browser, frontend):
    """A fresh tab; the test fails if the frontend reports an error."""
    settings = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False}
    server.post("/settings", settings)  # else the templates open by themselves
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    if frontend:
        serve(context, frontend)
    page = context.new_page()
    page.set_default_timeout(180_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: m.type == "error" and errors.append(f"{m.text} {m.location.get('url')}"))
    yield page
    context.close()
    assert [error for error in errors if not HARMLESS.search(error)] == []


def open_link(page, server, workflow: Path) -> None:
    page.goto(f"{server.url}/?template={workflow.stem}&source=flash-animation")
    page.wait_for_function(READY)
    wait_for_nodes(page, workflow)


def wait_for_nodes(page, workflow: Path) -> None:
    """Wait until exactly the file's nodes are there; then nothing may be missing or wrong."""
    types = sorted(node["type"] for node in json.loads(workflow.read_text())["nodes"])
    loaded = "types => JSON.stringify(app.graph._nodes.map(n => n.type).sort()) === JSON.stringify(types)"
    page.wait_for_function(loaded, arg=types)
    page.wait_for_timeout(1500)  # the frontend looks for missing nodes, models and media after loading
    assert_no_errors(page)


def assert_no_errors(page) -> None:
    assert page.evaluate("() => app.graph._nodes.filter(n => n.has_errors).map(n => n.type)") == []
    assert page.get_by_test_id("error-overlay").count() == 0
    assert page.get_by_role("dialog").count() == 0


def api_form(page) -> dict:
    """The prompt that a run would send, without what only some frontends write: packs and their versions."""
    form = json.loads(page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))
    return {i: node | {"_meta": {"title": node["_meta"]["title"]}} for i, node in form.items()}


def use_vue_nodes(page, on: bool) -> None:
    page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", on)
    page.wait_for_timeout(2500)


def set_mode(page, node_type: str, mode: int) -> None:
    page.evaluate(
        "([type, mode]) => { app.graph._nodes.find(node => node.type === type).mode = mode }",
        [node_type, mode],
    )


def overlaps(page) -> list[list[str]]:
    """Pairs of node types that cover each other by more than 2 pixels, as they are drawn."""
    return page.evaluate(
        """() => {
            const drawn = [...document.querySelectorAll('[data-node-id]')], scale = app.canvas.ds.scale
            const boxes = LiteGraph.vueNodesMode
                ? drawn.map(e => [e.dataset.nodeId, e.getBoundingClientRect()])
                    .map(([id, r]) => [id, r.x / scale, r.y / scale, r.width / scale, r.height / scale])
                : app.graph._nodes.map(node => [String(node.id), ...node.boundingRect])
            const type = id => app.graph._nodes.find(node => String(node.id) === id)?.type
            const meet = (a, b, i) => Math.min(a[i] + a[i + 2], b[i] + b[i + 2]) - Math.max(a[i], b[i]) > 2
            return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => meet(a, b, 1) && meet(a, b, 2))
                .map(b => [type(a[0]), type(b[0])]))
        }"""
    )


@BY_NAME
def test_link_opens_the_workflow(page, server, workflow):
    open_link(page, server, workflow)
    assert api_form(page) == json.loads((API / workflow.name).read_text()), (
        f"The API form is out of date: {json.dumps(api_form(page))}"
    )
    # What is saved is what we ship: the same nodes in the same places, whatever each frontend adds to them.
    kept = ("type", "pos", "mode", "widgets_values", "properties")

    def nodes_of(graph: dict) -> list[dict]:
        nodes = [{key: node.get(key) for key in kept} for node in graph["nodes"]]
        for node in nodes:
            node["pos"] = [round(value) for value in node["pos"]]
            node["widgets_values"] = node["widgets_values"] or []
            node["properties"] = {
                key: value for key, value in node["properties"].items() if key not in ("cnr_id", "ver")
            }
        return sorted(nodes, key=json.dumps)

    saved = json.loads(page.evaluate("() => JSON.stringify(app.graph.serialize())"))
    assert nodes_of(saved) == nodes_of(json.loads(workflow.read_text()))


@BY_NAME
def test_no_node_covers_another(page, server, workflow):
    open_link(page, server, workflow)
    assert overlaps(page) == []
    use_vue_nodes(page, True)
    assert overlaps(page) == []


def test_a_saved_graph_of_before_keeps_its_links_and_values(page, server):
    """Of 0.1.0, when `decoder` was not optional and `keep_first_frame` was on."""
    page.goto(server.url)
    page.wait_for_function(READY)
    page.wait_for_timeout(1500)  # until the frontend has opened its own graph
    graph = json.loads((OLD / "Perform-a-learned-action.json").read_text())
    page.evaluate("async graph => { await app.loadGraphData(graph, true, true, 'old') }", graph)
    page.wait_for_function("() => app.graph._nodes.some(node => node.type === 'FLASH_DetailDecode')")
    expected = json.loads((OLD / "Perform-a-learned-action.api.json").read_text())
    assert expected["18"]["inputs"]["keep_first_frame"] is True
    assert api_form(page) == expected


def test_bypassing_a_loader_is_enough(page, server):
    open_link(page, server, ROOT / "workflows" / "Perform-a-learned-action.json")

    def inputs(node_type: str) -> dict:
        (node,) = (node for node in api_form(page).values() if node["class_type"] == node_type)
        return node["inputs"]

    assert "decoder" not in inputs("FLASH_DetailDecode")
    set_mode(page, "FLASH_LoadDetailDecoder", 0)
    assert inputs("FLASH_DetailDecode")["decoder"] == ["17", 0]
    set_mode(page, "FLASH_LoadAction", 4)
    assert "action" not in inputs("FLASH_ApplyAction")
    assert api_form(page)["7"]["inputs"]["text"] == "a person is shooting a soccer ball"


def test_the_node_search_finds_ours(page, server):
    page.goto(server.url)
    page.wait_for_function(READY)
    page.wait_for_timeout(1500)
    page.evaluate("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    for words, found in (
        ("AnimateDiff Loader", "Load Motion Module (FLASH)"),
        ("img2vid", "First Frame (FLASH)"),
        ("video", "FLASH Video Sampler"),
        ("v3_sd15", "Load Motion Module (FLASH)"),
        ("vae decode", "Detail Decode (FLASH)"),
    ):
        page.locator("input[role=combobox]").fill(words)
        ours = page.get_by_test_id("result-item").filter(has_text=found)
        ours.first.wait_for(state="attached", timeout=20_000)


def test_template_browser_opens_every_workflow(page, server):
    page.goto(server.url)
    page.wait_for_function(READY)
    for workflow in WORKFLOWS:
        page.locator(".templates-tab-button").click()
        page.get_by_role("dialog").get_by_text("flash-animation", exact=True).click()
        page.get_by_test_id(f"template-workflow-{workflow.stem}").click()
        wait_for_nodes(page, workflow)


@pytest.mark.parametrize("name", ["Animate-a-picture", "Animate-a-picture-one-node"])
def test_run_button_makes_a_video_and_its_previews_cover_nothing(page, server, name):
    open_link(page, server, ROOT / "workflows" / f"{name}.json")
    page.evaluate("() => app.extensionManager.setting.set('Comfy.Execution.PreviewMethod', 'latent2rgb')")
    page.evaluate(
        """sizes => app.graph._nodes.flatMap(node => node.widgets ?? []).forEach(widget => {
            if (widget.name in sizes) widget.value = sizes[widget.name]
        })""",
        {"width": 64, "height": 64, "frames": 4, "steps": 2, "seed": 3},
    )
    before = set(server.get("/history"))
    page.get_by_test_id("queue-button").click()
    (prompt_id,) = server.wait_for(lambda: set(server.get("/history")) - before, "the video")
    assert server.output(server.get("/history")[prompt_id]).suffix == ".mp4"
    page.locator("video").first.wait_for(state="attached")
    assert_no_errors(page)
    for on in (False, True):
        use_vue_nodes(page, on)
        assert overlaps(page) == []


def picture_of(page, name: str) -> None:
    """Keep a screenshot in the folder FLASH_SCREENSHOTS, if there is one, to be looked at."""
    if folder := os.environ.get("FLASH_SCREENSHOTS"):
        page.evaluate(
            """() => {
                app.canvas.ds.scale = 0.9
                app.canvas.centerOnNode(app.graph._nodes.find(node => node.type === 'FLASH_LearnAction'))
            }"""
        )
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_learning_is_seen_while_it_goes_on_and_when_it_is_done(page, server, frontend):
    open_link(page, server, ROOT / "workflows" / "Learn-an-action.json")
    run_name = f"seen in {frontend.parents[1].name if frontend else 'its own'}"
    page.evaluate(
        """changes => app.graph._nodes.flatMap(node => node.widgets ?? []).forEach(widget => {
            if (widget.name in changes) widget.value = changes[widget.name]
        })""",
        {
            **{"width": 64, "height": 64, "size": 64, "frames": 4, "steps": 4, "seed": 3},
            **{"pool": 1, "sample_every": 1, "sample_steps": 1, "run_name": run_name},
        },
    )
    before = set(server.get("/history"))
    page.get_by_test_id("queue-button").click()
    shown = """type => {
        const node = app.graph._nodes.find(node => node.type === type)
        return [...(node.widgets ?? []).map(w => String(w.value)), app.nodeOutputs?.[node.id] ? 'sample' : '']
            .join(' ')
    }"""

    def says(words: str):
        return lambda: re.search(words, page.evaluate(shown, "FLASH_LearnAction"))

    server.wait_for(says(r"Step [1-3] of 4 · loss .* s a step · .* left · .* in use.*sample"), "a step")
    assert not set(server.get("/history")) - before  # it still runs
    picture_of(page, "learning")
    (prompt_id,) = server.wait_for(lambda: set(server.get("/history")) - before, "the end")
    assert server.output(server.get("/history")[prompt_id]).suffix == ".mp4"
    page.wait_for_timeout(1000)
    assert says("sample")()
    assert_no_errors(page)
    picture_of(page, "learned")


def new_in_history(server, known: set[str]) -> set[str]:
    return set(server.get("/history")) - known


def test_an_action_is_learned_from_one_clip(page, server, frontend):
    """The template up to the action, on small models; the rest of it knows one size alone."""
    page.goto(server.url)
    page.wait_for_function(READY)
    page.wait_for_timeout(1500)
    stand_ins = {"FLASH_LoadCogVideoX": "StandInCogVideoX", "CLIPLoader": "StandInT5"}
    stand_ins |= {"VAELoader": "StandInVae"}
    kept = {"FLASH_LearnFromOneClip", "LossGraphNode", "LoadImage"}
    graph = json.loads((ROOT / "workflows" / "Learn-from-one-clip.json").read_text())
    for node in graph["nodes"]:
        if stand_in := stand_ins.get(node["type"]):
            node.update(type=stand_in, inputs=[], widgets_values=[], properties={})
        elif node["type"] not in kept:
            node["mode"] = 2  # muted
    page.evaluate("async graph => { await app.loadGraphData(graph, true, true, 'one clip') }", graph)
    page.wait_for_function("() => app.graph._nodes.some(node => node.type === 'FLASH_LearnFromOneClip')")
    run_name = f"one clip in {frontend.parents[1].name if frontend else 'its own'}"
    page.evaluate(
        """changes => app.graph._nodes.flatMap(node => node.widgets ?? []).forEach(widget => {
            if (widget.name in changes) widget.value = changes[widget.name]
        })""",
        {"steps": 2, "sample_every": 1, "sample_steps": 1, "ref_adapter": "none", "run_name": run_name},
    )
    for _ in range(2):  # the second time it gives its file
        known = set(server.get("/history"))
        page.get_by_test_id("queue-button").click()
        (prompt_id,) = server.wait_for(partial(new_in_history, server, known), "the action")
        history = server.get(f"/history/{prompt_id}")[prompt_id]
        assert history["status"]["status_str"] == "success", history["status"]["messages"]
        shown = [output for output in history["outputs"].values() if output.get("animated")]
        assert [one["filename"] for one in shown[0]["images"]] == ["sample-000002.webp"]
        action = read_transfer_action(server.base / f"models/flash_actions/{run_name}.safetensors")
        assert (action.tokens_LMC.shape, action.steps) == ((3, 226, 48), 2)
        page.evaluate("() => app.graph._nodes.find(n => n.type === 'LossGraphNode').widgets[0].value += 'x'")
    assert_no_errors(page)


def test_an_action_is_transferred(page, server):
    """The template in true size, on a transformer of true width and one layer; text and VAE stand in."""
    page.goto(server.url)
    page.wait_for_function(READY)
    page.wait_for_timeout(1500)
    graph = json.loads((ROOT / "workflows" / "Transfer-an-action.json").read_text())
    for node in graph["nodes"]:
        stand_in = {"CLIPLoader": "StandInClip", "VAELoader": "StandInVae"}.get(node["type"])
        if stand_in:
            node.update(type=stand_in, inputs=[], widgets_values=[], properties={})
    page.evaluate("async graph => { await app.loadGraphData(graph, true, true, 'transfer') }", graph)
    page.wait_for_function("() => app.graph._nodes.some(node => node.type === 'FLASH_TransferAction')")
    page.evaluate(
        """() => app.graph._nodes.find(node => node.type === 'KSampler').widgets.forEach(widget => {
            if (['steps', 'cfg'].includes(widget.name)) widget.value = 1
        })"""
    )
    before = set(server.get("/history"))
    page.get_by_test_id("queue-button").click()
    (prompt_id,) = server.wait_for(lambda: set(server.get("/history")) - before, "the video", seconds=1200)
    with av.open(str(server.output(server.get("/history")[prompt_id]))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 48
    assert frames[0].shape == (480, 720, 3)
    page.get_by_text("320 x 240 became 720 x 480.").first.wait_for(state="attached")
    assert_no_errors(page)


def test_help_page_of_a_node_opens(page, server):
    open_link(page, server, ROOT / "workflows" / "Animate-a-picture.json")
    page.evaluate(
        """() => {
            const node = app.graph._nodes.find(node => node.type === 'FLASH_FirstFrame')
            app.canvas.centerOnNode(node)
            app.canvas.selectNode(node)
        }"""
    )
    page.wait_for_timeout(1000)  # the toolbox moves to the node
    page.get_by_test_id("info-button").click()
    first_line = (ROOT / "web" / "docs" / "FLASH_FirstFrame.md").read_text().splitlines()[0].lstrip("# ")
    page.get_by_role("heading", name=first_line, exact=True).wait_for()
