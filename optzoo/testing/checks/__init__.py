"""The checks, by theme. Importing a module adds its checks, in this order."""

from optzoo.testing.checks import (  # isort: skip
    contract as contract,
    transforms as transforms,
    hyperparameters as hyperparameters,
    wrappers as wrappers,
    buffers as buffers,
    precision as precision,
    extremes as extremes,
    containers as containers,
    checkpoint as checkpoint,
    claims as claims,
    sharding as sharding,
    processes as processes,
)
