"""The shipped workflows and help pages in ComfyUI's real frontend, in headless Chromium."""

import json
import re
import shutil
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="THE FRONTEND TESTS DID NOT RUN: no playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("THE FRONTEND TESTS DID NOT RUN: no Chromium", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[3]
API = ROOT / "tests" / "comfy" / "api"
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BY_NAME = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)

READY = "() => window.app?.graph && window.app?.canvas && window.app?.extensionManager"
HARMLESS = re.compile(
    r"user\.css|api/userdata|ComfyApp graph accessed before initialization"  # every new ComfyUI has these
    r"|huggingface\.co"  # the default graph asks for the sizes of its models
    r"|workflow_templates/flash-animation/[\w-]+\.jpg"  # no thumbnail: there is a generic one
    r"|docs/\w+/en\.md"  # asked for before docs/<node>.md
)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(server, browser):
    """A fresh tab; the test fails if the frontend reports an error."""
    server.post("/settings", {"Comfy.TutorialCompleted": True})  # else the templates open by themselves
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
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


@BY_NAME
def test_link_opens_the_workflow(page, server, workflow):
    open_link(page, server, workflow)
    made = json.loads(page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))
    assert made == json.loads((API / workflow.name).read_text()), (
        f"The API form is out of date: {json.dumps(made)}"
    )


def test_template_browser_opens_every_workflow(page, server):
    page.goto(server.url)
    page.wait_for_function(READY)
    for workflow in WORKFLOWS:
        page.locator(".templates-tab-button").click()
        page.get_by_role("dialog").get_by_text("flash-animation", exact=True).click()
        page.get_by_test_id(f"template-workflow-{workflow.stem}").click()
        wait_for_nodes(page, workflow)


def test_run_button_makes_a_video(page, server):
    open_link(page, server, ROOT / "workflows" / "Animate-a-picture-one-node.json")
    page.evaluate(
        """sizes => app.graph._nodes.flatMap(node => node.widgets ?? []).forEach(widget => {
            if (widget.name in sizes) widget.value = sizes[widget.name]
        })""",
        {"width": 64, "height": 64, "steps": 2, "seed": 3},
    )
    before = set(server.get("/history"))
    page.get_by_test_id("queue-button").click()
    (prompt_id,) = server.wait_for(lambda: set(server.get("/history")) - before, "the video")
    assert server.output(server.get("/history")[prompt_id]).suffix == ".mp4"
    page.locator("video").first.wait_for(state="attached")
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
