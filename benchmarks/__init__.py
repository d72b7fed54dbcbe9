"""What the pack costs: `python -m benchmarks.NAME` from the repository's root, as the Makefile does."""
