"""Learn Action From One Clip in a real server, on small models: cancelled, it goes on where it was."""

import json
from pathlib import Path

from flash_pack.flash_modules.flexiact.action_file import read_transfer_action

API = Path(__file__).resolve().parents[1] / "api" / "Learn-from-one-clip.json"


def lesson(run_name: str, steps: int) -> dict:
    """The template up to the action, with stand-ins for what it loads."""
    stand_ins = {"FLASH_LoadCogVideoX": "StandInCogVideoX", "CLIPLoader": "StandInT5"}
    stand_ins |= {"VAELoader": "StandInVae"}
    prompt = {}
    for key, node in json.loads(API.read_text()).items():
        if stand_in := stand_ins.get(node["class_type"]):
            prompt[key] = {"class_type": stand_in, "inputs": {}}
        elif node["class_type"] == "FLASH_LearnFromOneClip":
            wishes = {"steps": steps, "run_name": run_name, "ref_adapter": "none", "save_steps": 1}
            inputs = {name: value for name, value in node["inputs"].items() if name != "image"}
            prompt[key] = {**node, "inputs": {**inputs, **wishes}}
    return prompt


def test_cancel_saves_and_the_run_goes_on(server):
    cancelled = server.queue(lesson("one clip broken off", 5000))
    run = server.base / "models/flash_runs/one clip broken off"
    server.wait_for(lambda: list(run.glob("checkpoint-*")), "the first step", seconds=90)
    server.post("/interrupt", {})
    assert "execution_interrupted" in json.dumps(server.finished(cancelled)["status"]["messages"])
    file = server.base / "models/flash_actions/one clip broken off.safetensors"
    server.wait_for(file.is_file, "the action", seconds=30)
    steps = read_transfer_action(file).steps
    assert 1 <= steps < 5000
    history = server.finished(server.queue(lesson("one clip broken off", steps + 2)))
    assert history["status"]["status_str"] == "success", json.dumps(history["status"]["messages"], indent=1)
    assert read_transfer_action(file).steps == steps + 2
    shown = next(output for output in history["outputs"].values() if output.get("images"))
    assert [one["filename"] for one in shown["images"]] == ["sample-000000.png"]
