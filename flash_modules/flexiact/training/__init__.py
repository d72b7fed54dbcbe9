"""Learning an action from one clip: its views, what a step draws of them, the loss, the run."""
