"""optzoo: optimizers for JAX that follow their papers, as composable Optax transformations."""

from optzoo.compose import build as build
from optzoo.describe import describe as describe
from optzoo.optimizers.accelerated import *
from optzoo.optimizers.adaptive import *
from optzoo.optimizers.assembled import *
from optzoo.optimizers.averaged import *
from optzoo.optimizers.filtered import *
from optzoo.optimizers.informed import *
from optzoo.optimizers.layerwise import *
from optzoo.optimizers.matrix import *
from optzoo.optimizers.objectives import *
from optzoo.optimizers.parameter_free import *
from optzoo.optimizers.preconditioned import *
from optzoo.optimizers.schedules import *
from optzoo.optimizers.stable import *
from optzoo.primitives.averaged import (
    lookahead as lookahead,
    polynomial_average as polynomial_average,
)
from optzoo.primitives.axes import Axes as Axes, torch_axes as torch_axes
from optzoo.primitives.bounds import schedule_bound as schedule_bound
from optzoo.primitives.combine import (
    gradient as gradient,
    merge as merge,
    merge_leaves as merge_leaves,
    parameters as parameters,
)
from optzoo.primitives.decay import cautious_decay as cautious_decay
from optzoo.primitives.duality import dual_norm as dual_norm, dualize as dualize
from optzoo.primitives.estimators import (
    forward_gradient as forward_gradient,
    likelihood_ratio_gradient as likelihood_ratio_gradient,
    perturbed_gradient as perturbed_gradient,
)
from optzoo.primitives.evaluation import eval_params as eval_params, train_params as train_params
from optzoo.primitives.freezing import frozen_leaves as frozen_leaves
from optzoo.primitives.inputs import whiten_inputs as whiten_inputs
from optzoo.primitives.labels import (
    RoutingWarning as RoutingWarning,
    kernel_mask as kernel_mask,
    matrix_labels as matrix_labels,
)
from optzoo.primitives.noise import (
    gradient_noise as gradient_noise,
    inner_product_test as inner_product_test,
    norm_test as norm_test,
)
from optzoo.primitives.objectives import weigh_objectives as weigh_objectives
from optzoo.primitives.orthogonal import (
    newton_schulz as newton_schulz,
    orthogonalize as orthogonalize,
    polar as polar,
)
from optzoo.primitives.precision import (
    master_weights as master_weights,
    stochastic_round as stochastic_round,
)
from optzoo.primitives.preconditioned import in_basis as in_basis
from optzoo.primitives.recording import (
    GradientNorms as GradientNorms,
    record_norms as record_norms,
    recorded_norms as recorded_norms,
)
from optzoo.primitives.schedules import (
    cosine as cosine,
    explore_exploit as explore_exploit,
    linear_warmup as linear_warmup,
)
from optzoo.primitives.surrogates import (
    surrogate_step as surrogate_step,
    target_surrogate as target_surrogate,
)
from optzoo.primitives.trust import layer_rotation as layer_rotation, rotate as rotate
from optzoo.primitives.widths import (
    scale_by_width as scale_by_width,
    width_init as width_init,
    width_readout as width_readout,
)
from optzoo.registry import REGISTRY as REGISTRY, get as get

__version__ = "0.1.0"
