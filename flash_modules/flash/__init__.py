"""FLASH (arXiv:2503.00276): its mechanisms on plain tensors, and its files. Knows no host and no base."""
