"""Learning on ComfyUI's Stable Diffusion 1.5."""
