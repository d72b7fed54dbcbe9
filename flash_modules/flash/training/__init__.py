"""What FLASH learns by: losses, twins in a pool of latents, and what is written in the end."""
