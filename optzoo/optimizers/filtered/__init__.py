"""Filters in front of a rule: what changes the gradient before the rule sees it.

The members wrap any rule, whose own state and options stay as they are.
Look here for one idea to add to a rule that you already trust.
"""

from optzoo.optimizers.filtered.cautious import cautious as cautious
from optzoo.optimizers.filtered.flooding import flooding as flooding
from optzoo.optimizers.filtered.grades import grades as grades
from optzoo.optimizers.filtered.gradient_regularization import (
    gradient_regularization as gradient_regularization,
)
from optzoo.optimizers.filtered.grokfast import (
    grokfast as grokfast,
    grokfast_ma as grokfast_ma,
)
from optzoo.optimizers.filtered.orthograd import orthograd as orthograd
from optzoo.optimizers.filtered.sam import asam as asam, sam as sam
