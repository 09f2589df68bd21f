"""A size for each entry: rules that scale every number by moments of its own gradients.

The members share the form of Adam and differ in which moments they keep and how these meet.
Look here first: for most models one of these replaces AdamW with nothing else to change.
"""

from optzoo.optimizers.adaptive.adamp import (
    adamp as adamp,
    scale_by_adamp as scale_by_adamp,
    scale_by_sgdp as scale_by_sgdp,
    sgdp as sgdp,
)
from optzoo.optimizers.adaptive.ademamix import (
    ademamix as ademamix,
    scale_by_ademamix as scale_by_ademamix,
)
from optzoo.optimizers.adaptive.diffgrad import (
    diffgrad as diffgrad,
    scale_by_diffgrad as scale_by_diffgrad,
)
from optzoo.optimizers.adaptive.grams import grams as grams, scale_by_grams as scale_by_grams
