"""The parts that optimizers are made of; each is a transformation or a function of arrays."""

from optzoo.primitives.averaged import (
    lookahead as lookahead,
    polynomial_average as polynomial_average,
    schedule_free_average as schedule_free_average,
)
from optzoo.primitives.axes import (
    Axes as Axes,
    AxesLike as AxesLike,
    flax_axes as flax_axes,
    map_with_axes as map_with_axes,
    torch_axes as torch_axes,
)
from optzoo.primitives.base import (
    require as require,
    transformation as transformation,
    widened as widened,
)
from optzoo.primitives.combine import (
    add as add,
    divide as divide,
    gradient as gradient,
    merge as merge,
    merge_leaves as merge_leaves,
    multiply as multiply,
    only as only,
    parameters as parameters,
)
from optzoo.primitives.decay import pull_norms as pull_norms, stable_decay as stable_decay
from optzoo.primitives.directions import (
    adaptive_clip as adaptive_clip,
    agree as agree,
    centralize as centralize,
    friction as friction,
    normalize as normalize,
    project_radial as project_radial,
    radial_decay as radial_decay,
    remove_parallel as remove_parallel,
    take_sign as take_sign,
)
from optzoo.primitives.evaluation import eval_params as eval_params, train_params as train_params
from optzoo.primitives.labels import matrix_labels as matrix_labels
from optzoo.primitives.moments import (
    adam as adam,
    debias as debias,
    ema as ema,
    layer_rms as layer_rms,
    momentum as momentum,
    positive_negative_momentum as positive_negative_momentum,
    rms as rms,
)
from optzoo.primitives.orthogonal import (
    newton_schulz as newton_schulz,
    orthogonalize as orthogonalize,
    polar as polar,
    scale_by_fan as scale_by_fan,
)
from optzoo.primitives.polynomials import (
    DION as DION,
    KELLER_JORDAN as KELLER_JORDAN,
    polar_express as polar_express,
)
from optzoo.primitives.precision import (
    master_weights as master_weights,
    stochastic_round as stochastic_round,
)
from optzoo.primitives.routing import split_matrices as split_matrices
from optzoo.primitives.schedules import (
    alpha_warmup as alpha_warmup,
    cosine as cosine,
    explore_exploit as explore_exploit,
    half_life_warmup as half_life_warmup,
    linear_warmup as linear_warmup,
    rectification as rectification,
)
from optzoo.primitives.stepsizes import (
    dog_step as dog_step,
    norm_adagrad_step as norm_adagrad_step,
    rate as rate,
)
