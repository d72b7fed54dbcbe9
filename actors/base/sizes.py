"""Sizes of what the small base sees. By themselves, so that processes which only render load no networks."""

NUM_FRAMES = 8
IMAGE_SIZE = 96
LATENT_SIZE = IMAGE_SIZE // 4
