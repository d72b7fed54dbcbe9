"""A real ComfyUI server with this pack, a picture, and random models in the layout of the real files."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.animatediff.motion_module import MotionConfig, MotionModel
from flash_pack.flash_modules.flash.action_file import Action, Source
from flash_pack.flash_modules.flash.action_file import write_action as write_flash_action
from flash_pack.flash_modules.flash.decoder_file import SIGNATURE, DetailWeights, write_detail_decoder
from flash_pack.flash_modules.flash.detail_decoder import DetailDecoder, DetailDecoderConfig
from flash_pack.tests.comfy.server.cogvideox_files import (
    write_action,
    write_clip,
    write_cogvideox,
    write_ref_adapter,
)
from flash_pack.tests.comfy.server.wan_files import write_lora, write_wan

ROOT = Path(__file__).resolve().parents[3]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 1, 1, 1],  # of SD 1.5 only the widths are missing: 111 M weights instead of 860 M
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "context_dim": 768,
    "legacy": False,
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
VAE_PREFIX = "first_stage_model."
MOTION = MotionConfig(down=((320, 320),) * 4, up=((320,) * 3,) * 4, max_frames=32)


def random_weights(layout: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Weights that neither explode nor die out: norms near 1, biases near 0, matrices by their fan-in."""

    def draw(name: str, shape: torch.Size) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            return noise / noise[0].numel() ** 0.5
        return 0.02 * noise + (1.0 if name.endswith("weight") else 0.0)

    return {name: draw(name, like.shape).half() for name, like in layout.items() if like.is_floating_point()}


def write_checkpoint(path: Path) -> None:
    """A random checkpoint that the stock Load Checkpoint takes for SD 1.5 (about 0.6 GB)."""
    import comfy.ops
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.sd1_clip import SD1ClipModel

    with torch.device("meta"):
        unet = UNetModel(**UNET, operations=comfy.ops.disable_weight_init)
        text = SD1ClipModel(device="meta").clip_l.transformer
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
    parts: dict[str, nn.Module] = {
        "model.diffusion_model.": unet,
        "cond_stage_model.transformer.": text,
        VAE_PREFIX: vae,
    }
    layout = {f"{prefix}{name}": t for prefix, part in parts.items() for name, t in part.state_dict().items()}
    save_file(random_weights(layout, torch.Generator().manual_seed(15)), path)


def write_motion(path: Path) -> None:
    """A random motion module as AnimateDiff v3 stores one, that fits the checkpoint."""
    weights = random_weights(
        MotionModel(MOTION, device="meta").state_dict(), torch.Generator().manual_seed(3)
    )
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)


def write_learned_action(path: Path, motion_path: Path) -> None:
    """A random action for that motion module: other temporal keys and values."""
    motion = read_motion(motion_path)
    names = [name for name in motion.tensors if ".to_k." in name or ".to_v." in name]
    action = Action(
        name=path.stem,
        kind="compact",
        motion=random_weights(
            {name: motion.tensors[name] for name in names}, torch.Generator().manual_seed(4)
        ),
        kv_diffs={},
        base=Source(name="random", sha256=""),
        motion_module=Source(name=motion.name, sha256=motion.sha256, version=motion.version),
        frames=16,
        prompts=("a person is shooting a soccer ball",),
    )
    write_flash_action(path, action, motion.config)


def write_decoder(path: Path, checkpoint: Path) -> None:
    """A random detail decoder for the checkpoint's VAE."""
    with safe_open(checkpoint, "pt") as file:
        signature = {name: file.get_tensor(VAE_PREFIX + name) for name in SIGNATURE}
    config = DetailDecoderConfig(channels=tuple(VAE["ch"] * times for times in VAE["ch_mult"]), width=16)
    layout = DetailDecoder(config, device="meta").state_dict()
    tensors = random_weights(layout, torch.Generator().manual_seed(5))
    write_detail_decoder(
        path,
        DetailWeights(
            name=path.stem, config=config, tensors=tensors, signature=signature, vae_name="random VAE"
        ),
    )


def write_picture(path: Path) -> None:
    """A ball on a meadow, larger than any test and not square, so that it must be scaled and cropped."""
    picture = Image.linear_gradient("L").resize((320, 240))
    picture = Image.merge(
        "RGB", (picture.point(lambda v: v // 3), picture.point(lambda v: 255 - v // 3), picture)
    )
    draw = ImageDraw.Draw(picture)
    draw.ellipse((110, 70, 210, 170), fill=(230, 60, 40))
    draw.rectangle((0, 190, 320, 240), fill=(60, 140, 50))
    picture.save(path)


def packed_files() -> list[str]:
    """What `comfy node pack` would put into the package: git's files without those of .comfyignore."""

    def git_files(*options: str) -> set[str]:
        command = ["git", "ls-files", "--cached", "--others", *options]
        return set(subprocess.check_output(command, cwd=ROOT, text=True).splitlines())

    ignored = git_files("--ignored", "--exclude-from=.comfyignore")
    return sorted(name for name in git_files("--exclude-standard") - ignored if (ROOT / name).is_file())


def write_clips(folder: Path) -> None:
    """Two clips of a disc that crosses the picture."""
    folder.mkdir()
    for i in range(2):
        frames = [Image.new("RGB", (96, 64), (40, 120 + 60 * i, 90)) for _ in range(12)]
        for place, frame in enumerate(frames):
            ImageDraw.Draw(frame).ellipse((6 * place, 20, 6 * place + 24, 44), fill=(230, 60, 40))
        frames[0].save(folder / f"{i}.gif", save_all=True, append_images=frames[1:], duration=125)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("skipped", []):
        if "THE FRONTEND TESTS DID NOT RUN" in str(report.longrepr):
            terminalreporter.write_line(report.longrepr[2], red=True, bold=True)


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """ComfyUI's base directory: this pack as users get it, and every file that the workflows name."""
    with tempfile.TemporaryDirectory(prefix="flash-comfyui-") as folder:
        base = Path(folder)
        for name in (
            "custom_nodes",
            "input",
            "output",
            "user",
            "models/checkpoints",
            "models/animatediff_models",
            "models/flash_actions",
            "models/flash_decoders",
            "models/diffusion_models",
            "models/loras",
            "models/text_encoders",
            "models/vae",
        ):
            (base / name).mkdir(parents=True)
        for name in packed_files():
            target = base / "custom_nodes" / "flash-animation" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        checkpoint = base / "models/checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
        motion = base / "models/animatediff_models/v3_sd15_mm.ckpt"
        write_checkpoint(checkpoint)
        write_motion(motion)
        write_learned_action(base / "models/flash_actions/shooting.safetensors", motion)
        write_decoder(base / "models/flash_decoders/details.safetensors", checkpoint)
        write_cogvideox(
            base / "models/diffusion_models/CogVideoX_1_0_5b_I2V_bf16.safetensors", random_weights
        )
        write_action(base / "models/flash_actions/rotate.pt")
        write_ref_adapter(base / "models/loras/refnetlora_step40000_model.pt")
        write_wan(base / "models/diffusion_models/wan2.2_ti2v_5B_fp16.safetensors", random_weights)
        write_lora(base / "models/loras/my action.safetensors")
        for name in (
            "text_encoders/t5xxl_fp16.safetensors",
            "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
            "vae/cogvideox_vae_bf16.safetensors",
            "vae/wan2.2_vae.safetensors",
        ):
            (base / "models" / name).touch()  # their nodes are exchanged for stand-ins
        shutil.copytree(Path(__file__).parent / "stand_ins", base / "custom_nodes/stand_ins")
        write_picture(base / "input/example.png")
        write_clips(base / "input/my_clips")
        write_clip(base / "input/my_clip.mp4")
        yield base


@pytest.fixture(scope="session")
def package() -> list[str]:
    return packed_files()


@pytest.fixture(scope="session")
def comfyui() -> Path:
    return COMFYUI


@dataclass(frozen=True)
class Server:
    """A running ComfyUI."""

    url: str
    base: Path
    log: Path
    process: subprocess.Popen

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=120) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            pytest.fail(f"POST {path}: {error.code} {error.read().decode()}")

    def queue(self, prompt: dict[str, Any]) -> str:
        answer = self.post("/prompt", {"prompt": prompt})
        assert answer["node_errors"] == {}
        return answer["prompt_id"]

    def finished(self, prompt_id: str, seconds: float = 300) -> dict[str, Any]:
        """The history entry of a prompt, as soon as there is one."""
        return self.wait_for(
            lambda: self.get(f"/history/{prompt_id}").get(prompt_id), f"the end of {prompt_id}", seconds
        )

    def output(self, history: dict[str, Any]) -> Path:
        """The file that a finished prompt saved."""
        assert history["status"]["status_str"] == "success", json.dumps(
            history["status"]["messages"], indent=1
        )
        files = (file for node in history["outputs"].values() for file in node.get("images", []))
        (saved,) = (file for file in files if file["type"] == "output" and "flash" not in file["subfolder"])
        return self.base / "output" / saved["subfolder"] / saved["filename"]

    def wait_for(self, what, description: str, seconds: float = 300) -> Any:
        """The first true answer of `what`, which is asked again and again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if answer := what():
                return answer
            time.sleep(0.2)
        pytest.fail(
            f"Waited {seconds} s in vain for {description}. The server's log ends with:\n{self.log_tail()}"
        )

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@contextmanager
def running_server(base: Path) -> Iterator[Server]:
    """A ComfyUI of its own with that base directory, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--disable-api-nodes",
        "--use-pytorch-cross-attention",
        "--base-directory",
        base,
        "--port",
        port,
    ]
    command = [sys.executable, COMFYUI / "main.py", "--cpu", *options]
    log = base / "server.log"
    with log.open("ab") as file:
        process = subprocess.Popen([str(part) for part in command], stdout=file, stderr=file, cwd=base)
    running = Server(f"http://127.0.0.1:{port}", base, log, process)

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"ComfyUI did not start. Its log ends with:\n{running.log_tail()}")
        try:
            return bool(running.get("/system_stats"))
        except OSError:
            return False

    try:
        running.wait_for(answers, "the server")
        yield running
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[Server]:
    with running_server(base) as server:
        yield server


@pytest.fixture(scope="session")
def small_prompt():
    """A function: the API form of a shipped workflow with only the picture's size and the steps changed."""

    def small_prompt(name: str, *, steps: int = 2, seed: int | None = None) -> dict[str, Any]:
        prompt = json.loads((ROOT / "tests/comfy/api" / f"{name}.json").read_text())
        changes = {"width": 64, "height": 64, "steps": steps} | ({} if seed is None else {"seed": seed})
        for node in prompt.values():
            node["inputs"].update((key, value) for key, value in changes.items() if key in node["inputs"])
            if node["class_type"] == "FLASH_TrainingOptions":
                node["inputs"].update(size=64, frames=4, pool=1, sample_every=1, sample_steps=1)
        return prompt

    return small_prompt
