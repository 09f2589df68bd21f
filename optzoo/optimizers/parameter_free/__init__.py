"""Without a learning rate: rules that find their own step size.

The members measure how far the parameters have travelled; a learning rate only multiplies it.
Look here for first tries and fine-tuning, where nobody wants to tune.
"""

from optzoo.optimizers.parameter_free.dog import (
    dog as dog,
    ldog as ldog,
    scale_by_dog as scale_by_dog,
    scale_by_ldog as scale_by_ldog,
)
