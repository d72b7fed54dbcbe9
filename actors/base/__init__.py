"""A small base model that is really pretrained on the actors: Stable Diffusion 1.5 in shape, in 30 MB."""
