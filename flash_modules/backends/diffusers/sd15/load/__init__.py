"""Stable Diffusion 1.5 from files, and prompts and pictures into what it reads."""
