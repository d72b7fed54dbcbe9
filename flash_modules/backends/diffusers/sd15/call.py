"""What every layer must know of the present call of the U-Net."""

from dataclasses import dataclass


@dataclass
class VideoCall:
    """One call; kept until the next one, because gradient checkpointing runs layers again."""

    num_frames: int = 1
