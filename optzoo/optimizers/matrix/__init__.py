"""Matrices as matrices: rules that see a layer's kernel as a linear map.

The members change the singular values or the basis of a step, not its entries one by one.
Look here for transformers and convolutional networks, whose numbers lie in hidden matrices.
"""

from optzoo.optimizers.matrix.adago import (
    adago as adago,
    scale_by_adago as scale_by_adago,
)
from optzoo.optimizers.matrix.adamuon import (
    adamuon as adamuon,
    scale_by_adamuon as scale_by_adamuon,
)
from optzoo.optimizers.matrix.asgo import (
    asgo as asgo,
    dasgo as dasgo,
    scale_by_asgo as scale_by_asgo,
    scale_by_dasgo as scale_by_dasgo,
)
from optzoo.optimizers.matrix.auon import (
    auon as auon,
    scale_by_auon as scale_by_auon,
)
from optzoo.optimizers.matrix.dion import (
    dion as dion,
    scale_by_dion as scale_by_dion,
)
from optzoo.optimizers.matrix.hyperball import hyperball as hyperball
from optzoo.optimizers.matrix.modula import (
    modula as modula,
    scale_by_modula as scale_by_modula,
)
from optzoo.optimizers.matrix.modular_descent import (
    modular_descent as modular_descent,
    scale_by_modular_descent as scale_by_modular_descent,
)
from optzoo.optimizers.matrix.muon import (
    muon as muon,
    scale_by_muon as scale_by_muon,
)
from optzoo.optimizers.matrix.normuon import (
    normuon as normuon,
    scale_by_normuon as scale_by_normuon,
)
from optzoo.optimizers.matrix.scion import (
    scale_by_scion as scale_by_scion,
    scion as scion,
)
from optzoo.optimizers.matrix.trust_region import (
    scale_by_trust_region as scale_by_trust_region,
    trust_region as trust_region,
)
