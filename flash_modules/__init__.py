"""The core of FLASH: plain PyTorch, no host.

Axes in names of tensors: B videos, F frames, C channels, H W height and width, N tokens of a frame,
M tokens attended to, D channels of a head, X = B*F folded, Y = B*N folded (every pixel of every video),
P clips of a step of training, V videos of a clip (the original and its twin).
"""
