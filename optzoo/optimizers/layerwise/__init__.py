"""One number a layer: rules that normalise a whole layer by its norms.

The members keep little or no state for the second moment.
Look here for large batches and tight memory.
"""

from optzoo.optimizers.layerwise.novograd import (
    novograd as novograd,
    scale_by_novograd as scale_by_novograd,
)
