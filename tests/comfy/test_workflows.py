"""The shipped workflows and help pages fit the nodes, without a server."""

import asyncio
import json
import re
from pathlib import Path

import execution
import folder_paths
import nodes
import pytest
from PIL import Image

from flash_pack import nodes as pack_nodes
from flash_pack.flash_modules.flash.first_frame import PROMISE

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
NOTES = {"Note", "MarkdownNote"}
ONLY_IN_THE_FRONTEND = {"control_after_generate", "upload"}
BY_NAME = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
SD15_FILES = {
    "checkpoints": "v1-5-pruned-emaonly-fp16.safetensors",
    "animatediff_models": "v3_sd15_mm.ckpt",
}
COGVIDEOX_FILES = {
    "diffusion_models": "CogVideoX_1_0_5b_I2V_bf16.safetensors",
    "vae": "cogvideox_vae_bf16.safetensors",
    "text_encoders": "t5xxl_fp16.safetensors",
    "loras": "refnetlora_step40000_model.pt",
    "flash_actions": "rotate.pt",
}
WAN_FILES = {
    "diffusion_models": "wan2.2_ti2v_5B_fp16.safetensors",
    "vae": "wan2.2_vae.safetensors",
    "text_encoders": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
}
"""Which the frontend can download."""
LEARNED = {"loras": "my action.safetensors"}
"""Which the other template learns, under the name that its node has."""
TRAINED = {"flash_actions": "shooting.safetensors", "flash_decoders": "details.safetensors"}
"""Which users train themselves, as the README's commands name them."""
MUTED, BYPASSED = 2, 4


@pytest.fixture(scope="module")
def node_types(node_classes) -> dict[str, type]:
    asyncio.run(nodes.init_builtin_extra_nodes())
    return node_classes


@pytest.fixture(scope="module")
def our_nodes() -> list[type]:
    return pack_nodes.NODES


@pytest.fixture
def empty_folders(node_classes, tmp_path, monkeypatch) -> Path:
    """ComfyUI's model and input folders without any file."""
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for key in SD15_FILES | COGVIDEOX_FILES | WAN_FILES | TRAINED:
        (tmp_path / key).mkdir()
        extensions = folder_paths.folder_names_and_paths[key][1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, key, ([str(tmp_path / key)], extensions))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def full_folders(empty_folders) -> Path:
    for files in (SD15_FILES, COGVIDEOX_FILES, WAN_FILES, LEARNED, TRAINED):
        for key, name in files.items():
            (empty_folders / key / name).touch()
    (empty_folders / "example.png").touch()
    (empty_folders / "my_clips").mkdir()
    (empty_folders / "my_clip.mp4").touch()
    return empty_folders


def downloads(path: Path) -> dict[str, str]:
    """Files by their folders that the frontend can download for a workflow."""
    if path.stem.endswith("on-Wan"):
        return WAN_FILES
    if path.stem == "Learn-from-one-clip":  # which makes the action
        return {folder: name for folder, name in COGVIDEOX_FILES.items() if folder != "flash_actions"}
    return COGVIDEOX_FILES if path.stem == "Transfer-an-action" else SD15_FILES


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def api_form(path: Path) -> dict:
    return read(ROOT / "tests" / "comfy" / "api" / path.name)


def schema_inputs(node_type: type) -> dict:
    inputs = node_type.INPUT_TYPES()
    return {**inputs.get("required", {}), **inputs.get("optional", {})}


def validate(prompt: dict) -> tuple[bool, dict]:
    good, _, _, node_errors = asyncio.run(execution.validate_prompt("test", prompt, None))
    return good, node_errors


def test_there_are_workflows():
    assert WORKFLOWS


@BY_NAME
def test_name_works_in_a_link(path):
    assert re.fullmatch(r"[a-zA-Z0-9_.-]+", path.stem), "The frontend refuses it in ?template="


@BY_NAME
def test_nodes_are_known_and_say_where_they_come_from(path, node_types):
    for node in read(path)["nodes"]:
        if node["type"] not in NOTES:
            assert node["type"] in node_types
            assert node["properties"]["Node name for S&R"] == node["type"]
            ours = node["type"].startswith("FLASH_")
            assert node["properties"]["cnr_id"] == ("flash-animation" if ours else "comfy-core")


@BY_NAME
def test_links_join_sockets_of_their_type(path, node_types):
    workflow = read(path)
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for _, source, output, target, slot, link_type in workflow["links"]:
        name = by_id[target]["inputs"][slot]["name"]
        assert node_types[by_id[source]["type"]].RETURN_TYPES[output] == link_type
        assert schema_inputs(node_types[by_id[target]["type"]])[name][0] == link_type


@BY_NAME
def test_values_stand_in_the_order_of_the_schema(path, node_types):
    for node in read(path)["nodes"]:
        named = node.get("widgets_values_named", {})
        assert list(named.values()) == (node.get("widgets_values") or [])
        if node["type"] not in NOTES:
            schema = schema_inputs(node_types[node["type"]])
            assert [name for name in named if name in schema] == [name for name in schema if name in named]
            assert {name.split(".")[0] for name in named} <= schema.keys() | ONLY_IN_THE_FRONTEND


@BY_NAME
def test_api_form_says_the_same(path):
    workflow = read(path)
    left_out = {node["id"] for node in workflow["nodes"] if node["mode"] in (MUTED, BYPASSED)}
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"] if link[1] not in left_out}
    converted = {}
    for node in workflow["nodes"]:
        if node["type"] not in NOTES and node["id"] not in left_out:
            named = node.get("widgets_values_named", {})
            inputs = {name: value for name, value in named.items() if name not in ONLY_IN_THE_FRONTEND}
            inputs |= {i["name"]: sources[i["link"]] for i in node["inputs"] if i["link"] in sources}
            converted[str(node["id"])] = (node["type"], inputs)
    assert converted == {i: (node["class_type"], node["inputs"]) for i, node in api_form(path).items()}


@BY_NAME
def test_comfyui_accepts_the_workflow(path, node_types, full_folders):
    assert validate(api_form(path)) == (True, {})


@BY_NAME
def test_frontend_can_offer_every_model_for_download(path):
    offered = {
        hint["directory"]: (hint["name"], node["widgets_values"][0], hint["url"].rpartition("/")[2])
        for node in read(path)["nodes"]
        for hint in node["properties"].get("models", [])
    }
    assert offered == {folder: (name,) * 3 for folder, name in downloads(path).items()}


@BY_NAME
def test_note_says_which_files_go_where(path):
    workflow = read(path)
    (note,) = (node for node in workflow["nodes"] if node["type"] in NOTES)
    values = [value for node in workflow["nodes"] for value in node.get("widgets_values") or []]
    for files in (downloads(path), LEARNED, TRAINED):
        for folder, name in files.items():
            if name in values:
                assert name in note["widgets_values"][0]
                assert f"models/{folder}" in note["widgets_values"][0]


@BY_NAME
def test_every_file_can_be_got_or_made(path):
    """The frontend offers it, or a command of the README writes it, or its own word says that any will do."""
    readme = (ROOT / "README.md").read_text()
    made = {
        f"{name}.safetensors"
        for name in re.findall(r"train(?:-decoder)? [^`]*? --out ([\w-]+)$", readme, re.MULTILINE)
    }
    assert made == set(TRAINED.values())
    named = {
        value
        for node in read(path)["nodes"]
        if node["type"] not in NOTES
        for value in node.get("widgets_values") or []
        if isinstance(value, str) and value.endswith((".safetensors", ".ckpt", ".pt"))
    }
    assert named <= made | set(downloads(path).values()) | set(LEARNED.values())


@BY_NAME
def test_frame_0_is_decoded_in_new_graphs(path):
    for node in read(path)["nodes"]:
        if node["type"] == "FLASH_DetailDecode":
            assert node["widgets_values_named"]["keep_first_frame"] is False


def test_the_promise_of_frame_0_is_the_same_everywhere(our_nodes):
    def promises(text):
        return PROMISE in " ".join(text.replace("Frame 0's", "frame 0's").split())

    nodes = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in our_nodes}
    pages = [ROOT / "README.md"]
    pages += [
        ROOT / "web" / "docs" / f"FLASH_{name}.md" for name in ("FirstFrame", "Sampler", "DetailDecode")
    ]
    assert [page.name for page in pages if not promises(page.read_text())] == []
    assert promises(nodes["FLASH_FirstFrame"].description)
    assert any(promises(one.tooltip) for one in nodes["FLASH_Sampler"].inputs)
    assert any(promises(one.tooltip) for one in nodes["FLASH_DetailDecode"].inputs)


def test_every_template_has_a_card(node_classes):
    for path in WORKFLOWS:
        with Image.open(path.with_suffix(".jpg")) as card:
            assert card.format == "JPEG"
            assert card.width == card.height
        assert path.with_suffix(".jpg").stat().st_size < 100_000


def test_empty_folders_say_where_files_go(node_types, empty_folders):
    for node_id, folder in (
        ("FLASH_LoadMotionModule", "animatediff_models"),
        ("FLASH_LoadAction", "flash_actions"),
        ("FLASH_LoadDetailDecoder", "flash_decoders"),
        ("FLASH_LoadCogVideoX", "diffusion_models"),
    ):
        info = node_types[node_id].GET_NODE_INFO_V1()
        options = json.dumps(info["input"]["required"]["file_name"])
        assert f"{folder} is empty" in options
        tooltip = info["input"]["required"]["file_name"][1]["tooltip"]
        assert f"models/{folder}" in tooltip
        said = node_types[node_id].validate_inputs(f"{folder} is empty")
        assert said == f"models/{folder} is empty: put a file there, press R and choose it."


@BY_NAME
def test_missing_file_is_refused_with_its_folder(path, node_types, full_folders):
    for folder, name in downloads(path).items():
        if name in WAN_FILES.values():
            continue  # ComfyUI's own nodes read them
        if folder in ("animatediff_models", "diffusion_models", "loras", "flash_actions"):  # which ours read
            (full_folders / folder / name).unlink()
            _, node_errors = validate(api_form(path))  # what needs no such file runs all the same
            assert f"There is no file '{name}' in models/{folder}" in json.dumps(node_errors)


def test_every_node_explains_itself(our_nodes):
    for node in our_nodes:
        schema = node.GET_SCHEMA()
        assert schema.description
        assert schema.search_aliases
        assert schema.node_id.startswith("FLASH_")
        assert [i.id for i in schema.inputs if not i.tooltip] == []


def test_every_help_page_names_every_socket(our_nodes):
    for node in our_nodes:
        schema = node.GET_SCHEMA()
        page = (ROOT / "web" / "docs" / f"{schema.node_id}.md").read_text()
        assert page.startswith(f"# {schema.display_name}\n")
        sockets = [i.display_name or i.id for i in schema.inputs]
        sockets += [o.display_name or o.io_type for o in schema.outputs]
        assert [name for name in sockets if f"| {name} |" not in page] == []


def test_every_help_page_belongs_to_a_node(our_nodes):
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == {node.GET_SCHEMA().node_id for node in our_nodes}
