"""Which weights of the U-Net and its motion model learn."""

from torch import Tensor

from .....flash.training.method import Trainable, is_trained
from ..action import keys_values
from ..motion import AnimatedUNet


def select_trainable(model: AnimatedUNet, trainable: Trainable = "attention") -> dict[str, Tensor]:
    """The weights that learn, by their names in action files; all others are frozen.

    Of the motion modules it is what `is_trained` says, of the U-Net the keys and values of all attentions
    (FLASH, arXiv:2503.00276, A3.2).
    """
    model.requires_grad_(False)
    motion = {name: w for name, w in model.motion.named_parameters() if is_trained(name, trainable)}
    weights = {**motion, **keys_values(model.unet)}
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights
