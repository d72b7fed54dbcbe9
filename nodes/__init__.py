"""Nodes: each describes its inputs and calls one function of the core or of its ComfyUI backend."""

from comfy_api.latest import ComfyExtension, io

from ..flash_modules.backends.comfy.folders import register_folders
from .action import SaveAction
from .compare import CompareVideos
from .decode import DetailDecode
from .flexiact import CogVideoXImageToVideo, CogVideoXSampler, LoadCogVideoX, TransferAction
from .load import LoadAction, LoadDetailDecoder, LoadMotionModule
from .motion import ApplyAction, ApplyMotionModule, FirstFrame
from .one_clip import LearnFromOneClip
from .sample import AdaINLatents, Sampler
from .train import LearnAction, PreviewClips, TrainingOptionsNode
from .train_decoder import LearnDetailDecoder
from .wan import LearnActionWan, PreviewClipsWan, TrainingOptionsWan

NODES: list[type[io.ComfyNode]] = [
    LoadMotionModule,
    LoadAction,
    LoadDetailDecoder,
    ApplyAction,
    FirstFrame,
    Sampler,
    AdaINLatents,
    DetailDecode,
    ApplyMotionModule,
    PreviewClips,
    LearnAction,
    TrainingOptionsNode,
    LearnDetailDecoder,
    SaveAction,
    LoadCogVideoX,
    TransferAction,
    CogVideoXImageToVideo,
    CogVideoXSampler,
    LearnFromOneClip,
    PreviewClipsWan,
    LearnActionWan,
    TrainingOptionsWan,
    CompareVideos,
]


class FlashExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> FlashExtension:
    return FlashExtension()
