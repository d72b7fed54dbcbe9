"""Socket types of our own."""

from comfy_api.latest import io

Motion = io.Custom("FLASH_MOTION")
"""A motion module: what moves."""
Action = io.Custom("FLASH_ACTION")
"""A learned action: how it moves."""
Detail = io.Custom("FLASH_DETAIL_DECODER")
"""A detail decoder: what brings the picture's details into every frame."""
Training = io.Custom("FLASH_TRAINING")
"""Settings of a training that most users need not touch."""
