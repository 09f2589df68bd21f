"""Matrices as matrices: rules that see a layer's kernel as a linear map.

The members change the singular values or the basis of a step, not its entries one by one.
Look here for transformers and convolutional networks, whose numbers lie in hidden matrices.
"""

from optzoo.optimizers.matrix.adago import adago as adago, scale_by_adago as scale_by_adago
from optzoo.optimizers.matrix.muon import muon as muon, scale_by_muon as scale_by_muon
