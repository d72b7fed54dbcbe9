"""Views of a clip as the VAE knows them: means and deviations, so that every step draws its own latents."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...files.tensor_file import Tensors

Moments = tuple[Tensor, Tensor]
"""Mean and deviation of scaled latents (F, C, h, w)."""
EncodeMoments = Callable[[Tensor], Moments]
"""``encode(video_FCHW) -> moments``: pixels in [0, 1], 4 n + 1 frames."""

_NAMES = ("mean", "deviation", "picture_mean", "picture_deviation")


@dataclass(frozen=True)
class EncodedView:
    """A view of the clip; its first frame is encoded again, alone, as a picture is that performs."""

    mean_FCHW: Tensor
    deviation_FCHW: Tensor
    picture_mean_1CHW: Tensor
    picture_deviation_1CHW: Tensor

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (F, C, h, w) of the video and (1, C, h, w) of its first frame, drawn independently."""
        return (
            _draw(self.mean_FCHW, self.deviation_FCHW, generator),
            _draw(self.picture_mean_1CHW, self.picture_deviation_1CHW, generator),
        )


def _draw(mean: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    return mean + deviation * torch.randn(mean.shape, generator=generator)


def encode_views(
    videos: Iterable[Tensor], encode: EncodeMoments, on_view: Callable[[], object] = lambda: None
) -> list[EncodedView]:
    """Each view (F, 3, H, W), encoded twice: whole, and its first frame alone; on the CPU, in fp32."""
    encoded = []
    for video_FCHW in videos:
        moments = (*encode(video_FCHW), *encode(video_FCHW[:1]))
        encoded.append(EncodedView(*(tensor.float().cpu() for tensor in moments)))
        on_view()
    return encoded


def view_tensors(encoded: Iterable[EncodedView]) -> Tensors:
    """Views as named tensors, for a file."""
    return {
        f"{number}.{name}": tensor
        for number, view in enumerate(encoded)
        for name, tensor in zip(_NAMES, vars(view).values(), strict=True)
    }


def views_from(tensors: Mapping[str, Tensor], count: int) -> list[EncodedView]:
    """So many views of such a file. Raises ValueError if some are missing."""
    try:
        return [EncodedView(*(tensors[f"{number}.{name}"] for name in _NAMES)) for number in range(count)]
    except KeyError as error:
        raise ValueError(f"it lacks {error.args[0]}") from error
