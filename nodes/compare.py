"""Nodes that judge videos."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.compare import compare_videos


class CompareVideos(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        video = io.MultiType.Input(
            "video",
            types=[io.Image, io.Video],
            tooltip="A batch of pictures, or a video. Connect two or more.",
        )
        return io.Schema(
            node_id="FLASH_CompareVideos",
            display_name="Compare Videos (FLASH)",
            category="FLASH/evaluation",
            description="Puts two or more videos side by side, each under its name, to look at together.",
            search_aliases=["side by side", "grid", "concat videos", "A/B"],
            inputs=[
                io.Autogrow.Input(
                    "videos",
                    template=io.Autogrow.TemplatePrefix(video, prefix="video", min=2, max=9),
                    tooltip="From left to right. All get the height of the first; a shorter one keeps its "
                    "last frame.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    tooltip="A line for each video: its name. Empty = video 1, video 2, ...",
                ),
            ],
            outputs=[io.Image.Output(display_name="video", tooltip="For Create Video, or any preview.")],
        )

    @classmethod
    def execute(cls, videos: io.Autogrow.Type, names: str) -> io.NodeOutput:
        return io.NodeOutput(compare_videos(videos, names))
