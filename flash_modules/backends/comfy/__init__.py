"""ComfyUI: its folders, and weights in its hands; each base model is a folder."""
