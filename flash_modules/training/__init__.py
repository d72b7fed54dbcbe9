"""Learning an action from a few clips. The model comes as a callable; no host is known here."""
