"""Several losses at once: one gradient from one for each objective.

The members wrap any rule, which gets the gradient that they combine.
Look here for tasks that share weights, classes of unequal size, or a main loss with a helper.
"""

from optzoo.optimizers.objectives.bloop import bloop as bloop
from optzoo.optimizers.objectives.gradnorm import gradnorm as gradnorm
from optzoo.optimizers.objectives.pcgrad import pcgrad as pcgrad
from optzoo.optimizers.objectives.upgrad import upgrad as upgrad
