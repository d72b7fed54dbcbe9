"""The node that saves an action for others."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.notes import show_text
from ..flash_modules.backends.comfy.save_action import KINDS, SaveWishes, save_action
from .sockets import Action, Motion


class SaveAction(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_SaveAction",
            display_name="Save Action (FLASH)",
            category="FLASH/training",
            description="Saves a learned action with title, author, licence and a picture, for others. Like "
            "other save nodes it writes a new file each time, with a number behind its name.",
            search_aliases=["export action", "share", "metadata", "thumbnail", "standalone"],
            is_output_node=True,
            inputs=[
                Action.Input("action", tooltip="From Learn Action or Load Action."),
                *_text_inputs(),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default=KINDS[0],
                    tooltip="compact: what was learned alone, for who has the motion module. standalone: "
                    "with a whole motion module, for other programs too.",
                ),
                io.Image.Input(
                    "thumbnail",
                    optional=True,
                    tooltip="A picture of it; the middle of the first one is kept, 256 x 256.",
                ),
                Motion.Input(
                    "motion",
                    optional=True,
                    tooltip="From Load Motion Module; needed only to make a compact action standalone.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, **wishes) -> io.NodeOutput:
        path = save_action(SaveWishes(**wishes))
        show_text(f"Saved as {path.name} in {path.parent}", cls.hidden)
        return io.NodeOutput()


def _text_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "file_name",
            default="my action",
            tooltip="In models/flash_actions; folders/name works, and %year% and its like too.",
        ),
        io.String.Input("title", default="", tooltip="What people see. Empty = the one that it has."),
        io.String.Input("author", default="", tooltip="You, as you want to be named."),
        io.String.Input("licence", default="", tooltip="What others may do with it: CC-BY-4.0 for example."),
        io.String.Input(
            "description",
            default="",
            multiline=True,
            tooltip="What the action is, and what words it wants in a prompt.",
        ),
    ]
