"""Drawn people who perform actions, with the whole truth of every picture."""
