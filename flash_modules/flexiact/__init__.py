"""FlexiAct (arXiv:2505.03730): any picture performs the action of one reference clip. No host, no base.

A host needs `performance` (which actions, how, and what they do at a timestep), `motion_tokens` (what a
layer's attention reads beside its own), `ref_adapter_file` (a patch of weights) and `sampling`.

Further axes in names of tensors: L layers, M action tokens, C the model's width, R rank, T timesteps. Heads
are an axis of their own before the channels of a head: (B, N, heads, D).
"""
