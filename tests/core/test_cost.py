"""What a computation costs, counted without doing it."""

import torch
from torch import nn

from flash_pack.flash_modules.flash.training.action_training import count_cost


def test_peak_memory_is_that_of_the_tensors_that_are_held() -> None:
    """Four layers of 16 x 256 numbers: kept for the backward pass, and gradients of the weights."""
    layers = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(4)))

    def predict(latents: torch.Tensor, *_: object) -> torch.Tensor:
        return layers(latents)

    shape, text = torch.Size((16, 256)), torch.zeros(1, 1, 1)
    settings = {"num_layers": 0, "twins": False, "device": torch.device("cpu")}
    cost = count_cost(predict, layers.parameters(), shape, text, **settings)
    product, activation, gradient = 2 * 16 * 256 * 256, 4 * 16 * 256, 4 * 256 * 256
    assert cost.flops == (4 + 4 + 3) * product
    assert 4 * gradient + 2 * activation < cost.peak_bytes < 4 * gradient + 8 * activation
    assert all(weight.grad is None for weight in layers.parameters())
