"""Rates over time: closed-form functions of the number of finished steps.

The members take a learning rate, and the length of the run where they plan it to its end.
Look here for what to put behind a rule: `adamw+cosine`.
"""

from optzoo.optimizers.schedules.cosine_restarts import cosine_restarts as cosine_restarts
from optzoo.optimizers.schedules.cyclical import cyclical as cyclical
from optzoo.optimizers.schedules.linear_decay import (
    linear_decay as linear_decay,
    refined as refined,
)
from optzoo.optimizers.schedules.one_cycle import (
    one_cycle as one_cycle,
    one_cycle_momentum as one_cycle_momentum,
)
from optzoo.optimizers.schedules.warmup_stable_decay import (
    warmup_stable_decay as warmup_stable_decay,
)
