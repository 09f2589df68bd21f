"""AuON: normalised momentum with a brake on peaked updates."""

from functools import partial

import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike, map_with_axes
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    transformation,
)
from optzoo.primitives.labels import Selection
from optzoo.primitives.moments import ema
from optzoo.primitives.norms import layer_energy, root
from optzoo.primitives.orthogonal import Orthogonalizer, Scale, orthogonalize, scale_by_fan
from optzoo.primitives.routing import descend_matrices
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_auon(
    *,
    momentum: Decay = 0.95,
    nesterov: bool = True,
    gamma: NonNegative = 1.0,
    normalize: bool = True,
    hybrid: Orthogonalizer | None = None,
    scale: Scale = "keller_jordan",
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `auon` for leaves of any shape; see there for the arguments."""

    def braked(spec, u):
        unit = u / (root(layer_energy(spec, u)) + 1e-7)
        energy = layer_energy(spec, jnp.cosh(gamma * unit))
        numbers = u.size / max(energy.size, 1)
        return (unit if normalize else u) / (jnp.sqrt(energy / numbers) + 1e-8)

    return optax.chain(
        ema(momentum, debias=False, nesterov=nesterov, dtype=mu_dtype),
        optax.identity() if hybrid is None else orthogonalize(hybrid, axes=axes),
        optax.stateless(lambda updates, _: map_with_axes(braked, axes, updates)),
        scale_by_fan(scale, axes=axes),
    )


@optimizer(
    title="AuON: A Linear-time Alternative to Semi-Orthogonal Momentum Updates",
    authors=("Dipan Maity",),
    year=2025,
    arxiv="2509.24320",
    code="https://github.com/ryyzn9/AuON",
    traits=(Trait.SHAPED,),
)
@transformation
def auon(
    learning_rate: LearningRate = 5e-2,
    *,
    momentum: Decay = 0.95,
    nesterov: bool = True,
    gamma: NonNegative = 1.0,
    normalize: bool = True,
    hybrid: Orthogonalizer | None = None,
    scale: Scale = "keller_jordan",
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    rest: optax.GradientTransformation | None = None,
    axes: AxesLike = None,
    include: Selection = None,
    exclude: Selection = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Normalised momentum divided by the mean hyperbolic cosine of its numbers.

    Hidden matrices and convolution kernels follow this rule; embeddings, output heads, vectors and
    scalars go to Adam. `optzoo.describe(auon(), params)` prints which leaf went where.

    Rule:
      m ← momentum·m + (1 − momentum)·g;   u = momentum·m + (1 − momentum)·g, or m without nesterov
      w = u/|u|;   r = √(mean of cosh(gamma·w)²)
      p ← p − learning_rate·(√max(1, out/in)·w/r + weight_decay·p)

    Against Adam:
      One size for a whole matrix instead of one for each entry, and one number a weight instead of
      two.

    When to use:
      Where Muon's matrix products are too expensive, to see whether its scale alone helps. Not as a
      replacement of Muon: singular values stay as unequal as the gradient's.

    Tuning:
      For matrices of N numbers r is 1 + gamma²/(2N): this is normalised descent with momentum, and
      normalize=False is SGD with averaged momentum. Sweep the learning rate as for these.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the momentum, in [0, 1);
        the plain number 0 keeps no buffer for it.
      nesterov: look one step ahead.
      gamma: strength of the brake.
      normalize: step by w/r, as in the paper's first version; False: by u/r, as the released
        package, with gamma = 1.5 and scale=None.
      hybrid: an orthogonaliser that u passes through first, `newton_schulz(1)` in the paper's
        hybrid form; None for none.
      scale: a factor of the matrix shape as in `muon`.
      weight_decay: decoupled decay of the matrices.
      mask: which matrices to decay: a tree of booleans, or a function that makes one.
      rest: the optimizer of all other leaves; by default Adam with b1 = 0.9, b2 = 0.95,
        eps = 1e-10 at 0.006·learning_rate, that is 3e-4 at the default.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      include: leaves to treat as matrices whatever they look like; see `optzoo.matrix_labels`.
      exclude: leaves never to treat as matrices; see `optzoo.matrix_labels`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or a `hybrid` that changes shapes.

    References:
      Maity 2025, arXiv 2509.24320; official code ryyzn9/AuON, in its first release and, with the
      options named above, its present one; it adds 1e-7 to |u| and 1e-8 to r.
    """
    direction = partial(
        scale_by_auon,
        momentum=momentum,
        nesterov=nesterov,
        gamma=gamma,
        normalize=normalize,
        hybrid=hybrid,
        scale=scale,
        mu_dtype=mu_dtype,
    )
    return descend_matrices(
        direction,
        learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rest=rest,
        rest_factor=0.006,
        axes=axes,
        include=include,
        exclude=exclude,
    )
