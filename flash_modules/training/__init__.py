"""The machine of training: clips, steps, checkpoints, going on. Knows no paper and no host."""
