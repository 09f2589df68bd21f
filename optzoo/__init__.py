"""optzoo: optimizers for JAX that follow their papers, as composable Optax transformations."""

from optzoo.describe import describe as describe
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
from optzoo.optimizers.assembled.ranger21 import (
    ranger21 as ranger21,
    scale_by_ranger21 as scale_by_ranger21,
)
from optzoo.optimizers.averaged.schedule_free import (
    schedule_free as schedule_free,
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_radam as schedule_free_radam,
    schedule_free_sgd as schedule_free_sgd,
)
from optzoo.optimizers.layerwise.novograd import (
    novograd as novograd,
    scale_by_novograd as scale_by_novograd,
)
from optzoo.optimizers.matrix.adago import adago as adago, scale_by_adago as scale_by_adago
from optzoo.optimizers.matrix.adamuon import (
    adamuon as adamuon,
    scale_by_adamuon as scale_by_adamuon,
)
from optzoo.optimizers.matrix.muon import muon as muon, scale_by_muon as scale_by_muon
from optzoo.optimizers.matrix.normuon import (
    normuon as normuon,
    scale_by_normuon as scale_by_normuon,
)
from optzoo.optimizers.matrix.scion import scale_by_scion as scale_by_scion, scion as scion
from optzoo.optimizers.parameter_free.dog import (
    dog as dog,
    ldog as ldog,
    scale_by_dog as scale_by_dog,
    scale_by_ldog as scale_by_ldog,
)
from optzoo.primitives.axes import Axes as Axes, torch_axes as torch_axes
from optzoo.primitives.combine import (
    gradient as gradient,
    merge as merge,
    merge_leaves as merge_leaves,
    parameters as parameters,
)
from optzoo.primitives.duality import dual_norm as dual_norm, dualize as dualize
from optzoo.primitives.evaluation import eval_params as eval_params, train_params as train_params
from optzoo.primitives.labels import matrix_labels as matrix_labels
from optzoo.primitives.orthogonal import (
    newton_schulz as newton_schulz,
    orthogonalize as orthogonalize,
    polar as polar,
)
from optzoo.primitives.precision import (
    master_weights as master_weights,
    stochastic_round as stochastic_round,
)
from optzoo.registry import REGISTRY as REGISTRY, get as get

__version__ = "0.1.0"
