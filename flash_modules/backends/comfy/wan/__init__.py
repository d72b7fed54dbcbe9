"""Wan 2.2 in ComfyUI: an action is learned as a LoRA that core's own nodes load and perform."""
