"""What every training in ComfyUI's graph shares, whatever it learns and on which base."""
