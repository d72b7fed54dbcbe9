"""Learning on diffusers' Stable Diffusion 1.5."""
