"""Trained here, evaluated there: rules whose parameters to use are not the ones trained.

The members average or extrapolate iterates; `optzoo.eval_params` gives what to evaluate and save.
Look here for runs of unknown length.
"""

from optzoo.optimizers.averaged.entropy_sgd import entropy_sgd as entropy_sgd
from optzoo.optimizers.averaged.igt import igt as igt, nigt as nigt
from optzoo.optimizers.averaged.opt_amsgrad import opt_amsgrad as opt_amsgrad
from optzoo.optimizers.averaged.schedule_free import (
    schedule_free as schedule_free,
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_radam as schedule_free_radam,
    schedule_free_sgd as schedule_free_sgd,
)
from optzoo.optimizers.averaged.xgrad import xgrad as xgrad
