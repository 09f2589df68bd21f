"""One number a layer: rules that normalise a whole layer by its norms.

The members keep little or no state for the second moment.
Look here for large batches and tight memory.
"""

from optzoo.optimizers.layerwise.lamb import lamb as lamb, scale_by_lamb as scale_by_lamb
from optzoo.optimizers.layerwise.lars import lars as lars, scale_by_lars as scale_by_lars
from optzoo.optimizers.layerwise.layca import layca as layca
from optzoo.optimizers.layerwise.novograd import (
    novograd as novograd,
    scale_by_novograd as scale_by_novograd,
)
from optzoo.optimizers.layerwise.tvlars import scale_by_tvlars as scale_by_tvlars, tvlars as tvlars
