"""Momentum and its relatives: one direction from many gradients, the same rate for every entry.

The members keep one or two numbers a weight and differ in how past gradients are weighed.
Look here where SGD trains well and a second moment would be wasted.
"""

from optzoo.optimizers.accelerated.nag_gs import (
    nag_gs as nag_gs,
    scale_by_nag_gs as scale_by_nag_gs,
)
from optzoo.optimizers.accelerated.qhm import (
    qhadam as qhadam,
    qhm as qhm,
    scale_by_qhadam as scale_by_qhadam,
    scale_by_qhm as scale_by_qhm,
)
