"""Rules that ask more of a step than its gradient: the loss, or gradients elsewhere.

The members look at the same batch again, from another point.
Look here where a failed step is dear, and count passes, not steps.
"""

from optzoo.optimizers.informed.smb import scale_by_smb as scale_by_smb, smb as smb
