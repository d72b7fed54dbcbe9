"""Learning an action on Wan 2.2."""
