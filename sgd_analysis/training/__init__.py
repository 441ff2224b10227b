"""One training loop for every variant: its plan, its optimizers, and when it stops."""
