"""Socket types of our own."""

from comfy_api.latest import io

Motion = io.Custom("FLASH_MOTION")
"""A motion module: what moves."""
Action = io.Custom("FLASH_ACTION")
"""A learned action: how it moves."""
Detail = io.Custom("FLASH_DETAIL_DECODER")
"""A detail decoder: what brings the picture's details into every frame."""
Training = io.Custom("FLASH_TRAINING")
"""Settings of a training on Stable Diffusion 1.5 that most users need not touch."""
TrainingWan = io.Custom("FLASH_TRAINING_WAN")
"""The same of one on Wan."""
