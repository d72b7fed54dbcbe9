"""The package that ComfyUI users download, which is also what the server of these tests runs."""

from flash_pack import nodes as pack_nodes

AT_THE_ROOT = {"LICENSE", "README.md", "__init__.py", "pyproject.toml", "requirements.txt"}
FOLDERS = {"flash_modules", "nodes", "web", "workflows"}


def test_it_holds_what_the_nodes_need_and_nothing_else(package):
    assert {name for name in package if "/" not in name} == AT_THE_ROOT
    assert {name.split("/")[0] for name in package if "/" in name} == FOLDERS
    not_for_nodes = ("flash_modules/cli/", "flash_modules/__main__.py", "flash_modules/backends/diffusers/")
    assert [name for name in package if name.startswith(not_for_nodes)] == []


def test_it_loads_with_all_nodes(package, server):
    nodes = server.get("/object_info")
    assert [one for one in pack_nodes.NODES if one.GET_SCHEMA().node_id not in nodes] == []
    for node in pack_nodes.NODES:
        assert nodes[node.GET_SCHEMA().node_id]["python_module"] == "custom_nodes.flash-animation"
