"""Comparing optimizers: `run` them on problems, and read the `Results`."""

from optzoo.compare.errors import UserError as UserError
from optzoo.compare.plan.grid import Grid as Grid
from optzoo.compare.read.tables import results as results
from optzoo.compare.runner import run as run
from optzoo.compare.show.notebook import Results as Results
from optzoo.compare.work.progress import Progress as Progress
