"""Graphs that users have saved, and files they have, go on working: ids, inputs and outputs as they were.

`tests/old/nodes.json` says how they were in version 0.1.0. What comes on top of it must not be in the way.
"""

import json
import zipfile
from pathlib import Path

import pytest

OLD = Path(__file__).resolve().parents[1] / "old"
NODES = json.loads((OLD / "nodes.json").read_text())
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
BY_ID = pytest.mark.parametrize("node_id", NODES)


def inputs_of(node_type: type) -> dict[str, dict]:
    """All inputs in their order, as nodes.json has them."""
    return {
        name: {"type": kind, **options, "optional": group == "optional"}
        for group, members in node_type.INPUT_TYPES().items()
        if group != "hidden"  # which ComfyUI fills in
        for name, (kind, options) in members.items()
    }


def widgets(inputs: dict[str, dict]) -> list[str]:
    return [name for name, one in inputs.items() if one["type"] in WIDGETS]


@BY_ID
def test_an_old_node_has_its_inputs(node_classes, node_id: str) -> None:
    found = inputs_of(node_classes[node_id])
    for name, old in NODES[node_id]["inputs"].items():
        new = found[name]
        assert new["type"] == old["type"]
        assert new["optional"] or not old.get("optional", False)  # what was asked for may become optional
        assert new.get("control_after_generate") == old.get("control_after_generate")
        assert set(old.get("options", ())) <= set(new.get("options", ()))
        if "min" in old:
            assert new["min"] <= old["min"] <= old["max"] <= new["max"]


@BY_ID
def test_an_old_node_asks_for_no_more_than_it_did(node_classes, node_id: str) -> None:
    found = inputs_of(node_classes[node_id])
    assert all(new["optional"] for name, new in found.items() if name not in NODES[node_id]["inputs"])


@BY_ID
def test_the_widgets_of_an_old_node_have_their_places(node_classes, node_id: str) -> None:
    """Saved graphs hold values of widgets without names, so new ones come last."""
    old = widgets(NODES[node_id]["inputs"])
    assert widgets(inputs_of(node_classes[node_id]))[: len(old)] == old


@BY_ID
def test_the_outputs_of_an_old_node_have_their_places(node_classes, node_id: str) -> None:
    old = NODES[node_id]["outputs"]
    assert list(node_classes[node_id].RETURN_TYPES)[: len(old)] == old


@pytest.mark.parametrize(
    ("node_id", "key", "file", "found"),
    [
        ("FLASH_LoadMotionModule", "animatediff_models", "motion.safetensors", "motion: AnimateDiff v3 "),
        ("FLASH_LoadAction", "flash_actions", "runs/wave/wave.safetensors", "wave hands"),
        ("FLASH_LoadAction", "flash_actions", "runs/both/both.safetensors", "waving"),
        (
            "FLASH_LoadDetailDecoder",
            "flash_decoders",
            "runs/details/details.safetensors",
            "details: 2 levels",
        ),
    ],
)
def test_an_old_file_is_loaded(
    node_classes, tmp_path: Path, monkeypatch, node_id: str, key: str, file: str, found: str
) -> None:
    import folder_paths

    with zipfile.ZipFile(OLD / "tensors.zip") as packed:
        path = Path(packed.extract(file, tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, key, ([str(path.parent)], {".safetensors"}))
    node = node_classes[node_id]
    assert node.validate_inputs(path.name) is True
    version = {"version": "auto"} if "version" in NODES[node_id]["inputs"] else {}
    loaded, said = node.execute(path.name, **version).args
    assert loaded is not None
    assert said.startswith(found)
