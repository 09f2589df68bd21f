"""What to run: the optimizers, the problems and the learning rates that a comparison asks for."""
