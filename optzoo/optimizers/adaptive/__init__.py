"""A size for each entry: rules that scale every number by moments of its own gradients.

The members share the form of Adam and differ in which moments they keep and how these meet.
Look here first: for most models one of these replaces AdamW with nothing else to change.
"""

from optzoo.optimizers.adaptive.adabound import (
    adabound as adabound,
    scale_by_adabound as scale_by_adabound,
)
from optzoo.optimizers.adaptive.adamod import (
    adamod as adamod,
    scale_by_adamod as scale_by_adamod,
)
from optzoo.optimizers.adaptive.adamomentum import (
    adamomentum as adamomentum,
    scale_by_adamomentum as scale_by_adamomentum,
)
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
from optzoo.optimizers.adaptive.exponentiated_gradient import (
    exponentiated_gradient as exponentiated_gradient,
    exponentiated_plus_minus as exponentiated_plus_minus,
)
from optzoo.optimizers.adaptive.grams import grams as grams, scale_by_grams as scale_by_grams
from optzoo.optimizers.adaptive.gravity import (
    gravity as gravity,
    scale_by_gravity as scale_by_gravity,
)
from optzoo.optimizers.adaptive.induced_metric import (
    induced_metric as induced_metric,
    scale_by_induced_metric as scale_by_induced_metric,
)
from optzoo.optimizers.adaptive.innaprop import (
    innaprop as innaprop,
    scale_by_innaprop as scale_by_innaprop,
)
from optzoo.optimizers.adaptive.mars import (
    mars as mars,
    scale_by_mars as scale_by_mars,
)
from optzoo.optimizers.adaptive.optimistic_adam import (
    optimistic_adam as optimistic_adam,
    scale_by_optimistic_adam as scale_by_optimistic_adam,
)
