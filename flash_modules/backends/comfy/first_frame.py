"""The clean first frame, bound to a MODEL."""

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...first_frame import check_reference
from .options import FIRST_FRAME, CleanFirstFrame
from .places import check_sd15
from .run import add_run_wrappers


def add_first_frame(model: ModelPatcher, reference: Tensor) -> ModelPatcher:
    """A clone that shows the U-Net the reference, free of noise, as frame 0, whoever samples and however.

    `reference` is an unscaled latent (1, 4, h, w), as VAE Encode gives it. Raises ValueError if it is
    unusable.
    """
    check_sd15(model)
    m = model.clone()
    m.model_options["transformer_options"][FIRST_FRAME] = CleanFirstFrame(check_reference(reference).clone())
    return add_run_wrappers(m)
