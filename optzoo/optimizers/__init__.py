"""The optimizers: one folder a family, one file a paper."""
