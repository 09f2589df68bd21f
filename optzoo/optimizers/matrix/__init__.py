"""Matrices as matrices: rules that see a layer's kernel as a linear map.

The members change the singular values or the basis of a step, not its entries one by one.
Look here for transformers and convolutional networks, whose numbers lie in hidden matrices.
"""

from optzoo.optimizers.matrix.adago import adago as adago, scale_by_adago as scale_by_adago
from optzoo.optimizers.matrix.adamuon import (
    adamuon as adamuon,
    scale_by_adamuon as scale_by_adamuon,
)
from optzoo.optimizers.matrix.muon import muon as muon, scale_by_muon as scale_by_muon
from optzoo.optimizers.matrix.normuon import (
    normuon as normuon,
    scale_by_normuon as scale_by_normuon,
)
from optzoo.optimizers.matrix.scion import scale_by_scion as scale_by_scion, scion as scion
