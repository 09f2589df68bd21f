"""What every comparison runs beside the registry's rules."""

import dataclasses

from optzoo import baselines, compose

# What times to the target are told against.
REFERENCE = "adamw+cosine"
BASELINES = {
    name: dataclasses.replace(compose.entry(name), default=True)
    for name in (*baselines.BASELINES, REFERENCE)
}
