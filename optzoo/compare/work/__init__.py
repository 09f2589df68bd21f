"""Running it: every learning rate and seed of one optimizer on one problem, as one program."""
