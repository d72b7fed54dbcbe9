"""diffusers, without ComfyUI; each base model is a folder."""
