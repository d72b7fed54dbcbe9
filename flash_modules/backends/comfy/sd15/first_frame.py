"""The clean first frame, bound to a MODEL."""

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....flash.first_frame import check_reference
from .options import FIRST_FRAME, CleanFirstFrame
from .places import check_sd15
from .run import add_run_wrappers


def add_first_frame(model: ModelPatcher, reference: Tensor, *, node: str = "First Frame") -> ModelPatcher:
    """A clone that shows the U-Net the reference, free of noise, as frame 0, whoever samples and however.

    `reference` is an unscaled latent (1, 4, h, w), as VAE Encode gives it; `node` is the user's name for who
    binds it. Raises ValueError if the reference is unusable.
    """
    check_sd15(model)
    channels = model.get_model_object("latent_format").latent_channels
    if check_reference(reference).shape[1] != channels:
        raise ValueError(
            f"The reference comes from another kind of VAE: it has {reference.shape[1]} channels, and this "
            f"checkpoint's latents have {channels}. Encode the picture with the checkpoint's own VAE."
        )
    m = model.clone()
    first = CleanFirstFrame(reference.clone(), frames_widget=f"{node}'s `frames`")
    m.model_options["transformer_options"][FIRST_FRAME] = first
    return add_run_wrappers(m)
