"""Preconditioned by curvature: steps are turned and scaled by matrices that gradients have made.

The members keep a matrix for each axis of a leaf, a low-rank one for all of them, or gradients.
Look here where a step may cost more if fewer of them are needed: large batches, deep networks.
"""

from optzoo.optimizers.preconditioned.mfac import mfac as mfac, scale_by_mfac as scale_by_mfac
from optzoo.optimizers.preconditioned.psgd import psgd as psgd, scale_by_psgd as scale_by_psgd
from optzoo.optimizers.preconditioned.shampoo import (
    scale_by_shampoo as scale_by_shampoo,
    shampoo as shampoo,
)
from optzoo.optimizers.preconditioned.soap import scale_by_soap as scale_by_soap, soap as soap
