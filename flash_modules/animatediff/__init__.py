"""AnimateDiff (arXiv:2307.04725): the motion module, its files and its noise schedule. Knows no host."""
