"""The parts that optimizers are made of; each is a transformation or a function of arrays."""

from optzoo.primitives.ahead import train_ahead as train_ahead
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
from optzoo.primitives.blocks import in_blocks as in_blocks
from optzoo.primitives.bounds import (
    ScheduleBound as ScheduleBound,
    schedule_bound as schedule_bound,
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
from optzoo.primitives.constraints import constrain as constrain
from optzoo.primitives.decay import (
    add_decayed_weights as add_decayed_weights,
    cautious_decay as cautious_decay,
    pull_norms as pull_norms,
    rated_decay as rated_decay,
    stable_decay as stable_decay,
)
from optzoo.primitives.directions import (
    adaptive_clip as adaptive_clip,
    agree as agree,
    centralize as centralize,
    clip_norm as clip_norm,
    damp as damp,
    extrapolate as extrapolate,
    friction as friction,
    normalize as normalize,
    project_radial as project_radial,
    radial_decay as radial_decay,
    remove_parallel as remove_parallel,
    take_sign as take_sign,
    variance_reduced as variance_reduced,
)
from optzoo.primitives.duality import dual_norm as dual_norm, dualize as dualize
from optzoo.primitives.dynamics import inertial_newton as inertial_newton
from optzoo.primitives.estimators import (
    forward_gradient as forward_gradient,
    likelihood_ratio_gradient as likelihood_ratio_gradient,
    perturbed_gradient as perturbed_gradient,
)
from optzoo.primitives.evaluation import eval_params as eval_params, train_params as train_params
from optzoo.primitives.fitting import fit_hessian as fit_hessian, norm_bound as norm_bound
from optzoo.primitives.freezing import freeze as freeze, frozen_leaves as frozen_leaves
from optzoo.primitives.grafting import graft as graft, match_rms as match_rms
from optzoo.primitives.inputs import whiten_inputs as whiten_inputs
from optzoo.primitives.kronecker import merge_axes as merge_axes
from optzoo.primitives.labels import (
    RoutingWarning as RoutingWarning,
    kernel_mask as kernel_mask,
    linear_mask as linear_mask,
    matrix_labels as matrix_labels,
)
from optzoo.primitives.leafwise import scale_leaves as scale_leaves
from optzoo.primitives.moments import (
    adam as adam,
    debias as debias,
    ema as ema,
    layer_rms as layer_rms,
    momentum as momentum,
    positive_negative_momentum as positive_negative_momentum,
    rms as rms,
    rss as rss,
    second_moment as second_moment,
    unit_rms as unit_rms,
)
from optzoo.primitives.noise import (
    GradientNoise as GradientNoise,
    gradient_noise as gradient_noise,
    inner_product_test as inner_product_test,
    norm_test as norm_test,
)
from optzoo.primitives.objectives import (
    Objectives as Objectives,
    Weights as Weights,
    equal_norms as equal_norms,
    least_quadratic as least_quadratic,
    weigh_objectives as weigh_objectives,
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
    MODULA as MODULA,
    polar_express as polar_express,
)
from optzoo.primitives.powers import (
    eigen_power as eigen_power,
    newton_power as newton_power,
    power_largest as power_largest,
)
from optzoo.primitives.precision import (
    master_weights as master_weights,
    stochastic_round as stochastic_round,
)
from optzoo.primitives.preconditioned import in_basis as in_basis
from optzoo.primitives.preconditioning import (
    orthogonalize_evenly as orthogonalize_evenly,
    power_iteration as power_iteration,
    precondition as precondition,
)
from optzoo.primitives.recording import (
    GradientNorms as GradientNorms,
    record_norms as record_norms,
    recorded_norms as recorded_norms,
)
from optzoo.primitives.resets import restart as restart
from optzoo.primitives.roots import (
    gram as gram,
    inverse_root as inverse_root,
    pade_root as pade_root,
    taylor_root as taylor_root,
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
from optzoo.primitives.second import (
    ascend_then_descend as ascend_then_descend,
    flood as flood,
    second_gradient as second_gradient,
)
from optzoo.primitives.selection import top_entries as top_entries
from optzoo.primitives.spikes import (
    clip_spikes as clip_spikes,
    clip_to_average_peak as clip_to_average_peak,
    stabilize_norm as stabilize_norm,
)
from optzoo.primitives.stepsizes import (
    dog_step as dog_step,
    norm_adagrad_step as norm_adagrad_step,
    rate as rate,
    relative_rate as relative_rate,
)
from optzoo.primitives.surrogates import (
    surrogate_step as surrogate_step,
    target_surrogate as target_surrogate,
)
from optzoo.primitives.trust import (
    layer_rotation as layer_rotation,
    rotate as rotate,
    scale_by_trust_ratio as scale_by_trust_ratio,
)
from optzoo.primitives.whitening import (
    clip_amplitude as clip_amplitude,
    running_mean as running_mean,
    whiten as whiten,
    whiten_low_rank as whiten_low_rank,
)
from optzoo.primitives.widths import (
    scale_by_width as scale_by_width,
    width_init as width_init,
    width_readout as width_readout,
)
from optzoo.primitives.window import (
    gradient_window as gradient_window,
    inverse_fisher as inverse_fisher,
    window_extrapolation as window_extrapolation,
    window_mean as window_mean,
)
