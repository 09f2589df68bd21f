"""Steps that survive bad gradients: rules that watch for spikes and start their moments anew.

The members keep running records of how large gradients are, and hold new ones to them.
Look here for large language models, low precision, and losses that jump.
"""

from optzoo.optimizers.stable.gradient_stabilizer import (
    gradient_stabilizer as gradient_stabilizer,
)
from optzoo.optimizers.stable.spam import scale_by_spam as scale_by_spam, spam as spam
from optzoo.optimizers.stable.stable_spam import (
    scale_by_stable_spam as scale_by_stable_spam,
    stable_spam as stable_spam,
)
