"""Comparing optimizers: `run` them on problems, and read the `Results`."""

from optzoo.compare.errors import UserError as UserError
from optzoo.compare.plan.grid import Grid as Grid
from optzoo.compare.read.results import Results as Results, results as results
from optzoo.compare.runner import Progress as Progress, run as run
