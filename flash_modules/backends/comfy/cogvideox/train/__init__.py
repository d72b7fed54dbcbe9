"""Learning an action from one clip on ComfyUI's CogVideoX."""
