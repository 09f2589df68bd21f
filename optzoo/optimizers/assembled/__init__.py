"""Many ideas in one: rules that combine parts of other papers with a schedule of their own.

The members need the length of the run and little else.
Look here for a complete recipe with nothing to assemble.
"""

from optzoo.optimizers.assembled.ranger21 import (
    ranger21 as ranger21,
    scale_by_ranger21 as scale_by_ranger21,
)
