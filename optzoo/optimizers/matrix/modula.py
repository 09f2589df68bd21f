"""Modular duality: each layer moves by its share of the network's step."""

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.axes import AxesLike
from optzoo.primitives.base import Decay, DType, LearningRate, Tree, transformation
from optzoo.primitives.constraints import constrain
from optzoo.primitives.duality import Balls, dualize
from optzoo.primitives.leafwise import leafwise
from optzoo.primitives.moments import ema
from optzoo.primitives.orthogonal import Orthogonalizer, newton_schulz
from optzoo.primitives.polynomials import MODULA
from optzoo.registry import Trait, optimizer


def _dual(ball: Balls, orthogonalizer: Orthogonalizer | None, axes: AxesLike):
    method = newton_schulz(6, coefficients=MODULA) if orthogonalizer is None else orthogonalizer
    return dualize(ball, orthogonalizer=method, eps=0.0, axes=axes)


@transformation
def scale_by_modula(
    *,
    momentum: Decay = 0.95,
    ball: Balls = "auto",
    mass: Tree = 1.0,
    sensitivity: Tree = 1.0,
    orthogonalizer: Orthogonalizer | None = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `modula`; see there for the arguments."""

    def shared(duals):
        masses = leafwise("mass", mass, duals)
        behind = leafwise("sensitivity", sensitivity, duals)
        total = sum(jax.tree.leaves(masses))

        def share(x, own, s):
            return x * jnp.asarray(own / (total * s), x.dtype)

        return jax.tree.map(share, duals, masses, behind)

    return optax.chain(
        ema(momentum, debias=False, dtype=mu_dtype),
        _dual(ball, orthogonalizer, axes),
        optax.stateless(lambda duals, _: shared(duals)),
    )


@optimizer(
    title="Modular Duality in Deep Learning",
    authors=("Jeremy Bernstein", "Laker Newhouse"),
    year=2024,
    arxiv="2410.21265",
    code="https://github.com/modula-systems/modula",
    traits=(Trait.SHAPED,),
)
@transformation
def modula(
    learning_rate: LearningRate = 0.1,
    *,
    momentum: Decay = 0.95,
    ball: Balls = "auto",
    mass: Tree = 1.0,
    sensitivity: Tree = 1.0,
    project: bool = False,
    orthogonalizer: Orthogonalizer | None = None,
    axes: AxesLike = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """A step of fixed length in the network's modular norm, shared out to the layers by mass.

    Rule:
      m ← momentum·m + (1 − momentum)·g
      x = the point of the unit ball of the leaf's norm with the largest ⟨m, x⟩
      target = mass/(total·sensitivity), with the total of all masses
      p ← p − learning_rate·target·x

    Against Adam:
      The step's effect on the network's output is bounded layer by layer, so that one learning rate
      serves all widths and depths; one number a weight instead of two.

    When to use:
      Networks whose width and depth are to change without tuning again. Not where layers must
      differ in rate and their masses are unknown.

    Tuning:
      The default 0.1, falling to zero, is the authors'. They give the blocks of a transformer a
      mass of 5 in all, the embedding and the head 1 each.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      momentum: decay of the average, in [0, 1);
        the plain number 0 keeps no buffer for it.
      ball: the norm of each leaf: a name, a function, or a tree of these; see
        `optzoo.dualize`. By default "rms" for vectors, "column" for embeddings, "kernel" for
        convolutions and "spectral" for the rest.
      mass: the share of each leaf in the step: a number, or a tree of numbers like the
        parameters or a prefix of it, where the key "" stands for the rest.
      sensitivity: of all that comes after a leaf, in the same forms; a residual block that is
        added with weight 1/4 has 1/4.
      project: put every leaf back on the sphere of its ball after the step.
      orthogonalizer: maps a stack of matrices (k, m, n), m ≤ n, to one of the same shape; by
        default `newton_schulz` with the six steps `MODULA`.
      axes: which axes of a leaf are inputs, outputs and stacked layers; see
        `optzoo.primitives.axes`.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update` where project is used.

    Raises:
      ValueError: for an argument out of range, an unknown ball, or a tree that leaves one out.

    References:
      Bernstein and Newhouse 2024, arXiv 2410.21265; official code modula-systems/modula, where a
      zero gradient of a linear layer becomes NaN; here it stays zero. Masses: Large et al. 2024,
      arXiv 2405.14813.
    """
    return optax.chain(
        scale_by_modula(
            momentum=momentum,
            ball=ball,
            mass=mass,
            sensitivity=sensitivity,
            orthogonalizer=orthogonalizer,
            axes=axes,
            mu_dtype=mu_dtype,
        ),
        optax.scale_by_learning_rate(learning_rate),
        constrain(_dual(ball, orthogonalizer, axes)) if project else optax.identity(),
    )
