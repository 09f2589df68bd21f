"""Exponentiated gradient: steps that multiply weights, and so keep their signs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Mask,
    NonNegative,
    Positive,
    is_zero,
    require_params,
    transformation,
)
from optzoo.primitives.combine import select
from optzoo.primitives.norms import packed, unpacked
from optzoo.registry import Trait, wrapper

# The largest exponent: e^40 overflows in no dtype that is computed in.
STEEPEST = 40.0


@wrapper(
    title="Brain-like learning with exponentiated gradients",
    authors=(
        "Jonathan Cornford",
        "Roman Pogodin",
        "Arna Ghosh",
        "Kaiwen Sheng",
        "Brendan A. Bicknell",
        "Olivier Codol",
        "Beverley A. Clark",
        "Guillaume Lajoie",
        "Blake A. Richards",
    ),
    year=2024,
    url="https://www.biorxiv.org/content/10.1101/2024.10.25.620272v1",
    code="https://github.com/linclab/EG_optimiser",
)
@transformation
def exponentiated_gradient(
    tx: optax.GradientTransformation,
    *,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformation:
    """The steps of `tx` as factors: small weights move little, and none changes its sign.

    Rule:
      g ← g + weight_decay·sign(p);   u = what tx makes of g
      p ← p·exp(sign(p)·u)

    When to use:
      Models whose weights have a sign that must stay, such as excitatory and inhibitory ones;
      inputs of which few matter, for what does not help falls geometrically. Start from weights
      with log-normal sizes. Not for weights that start at zero: they stay there.

    Args:
      tx: the optimizer, with a learning rate larger than SGD's. A decoupled decay belongs behind
        this wrapper, not into `tx`.
      weight_decay: decay of the logarithm of a weight's size.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.

    Returns:
      The optimizer, with the state of `tx`. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Cornford et al. 2024, bioRxiv 2024.10.25.620272; Kivinen and Warmuth 1997; official code
      linclab/EG_optimiser. A step multiplies by e^40 at most, lest one wild gradient overflow.
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "exponentiated_gradient")
        if not is_zero(weight_decay):
            pulled = jax.tree.map(lambda g, p: g + weight_decay * jnp.sign(p), updates, params)
            updates = select(mask, pulled, updates)
        moves, state = inner.update(updates, state, params, **extra_args)

        def multiplied(u, p):
            growth = (jnp.conj(jnp.sign(p)) * u).real
            return p * jnp.expm1(jnp.minimum(growth, STEEPEST))

        return jax.tree.map(multiplied, moves, params), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


class PlusMinusState(NamedTuple):
    """A wrapped optimizer and the geometric mean of each leaf's parts, `packed`."""

    inner: optax.OptState
    beta: jax.Array


@wrapper(
    title="Exponentiated Gradient versus Gradient Descent for Linear Predictors",
    authors=("Jyrki Kivinen", "Manfred K. Warmuth"),
    year=1997,
    url="https://doi.org/10.1006/inco.1996.2612",
    code=None,
    traits=(Trait.SHAPED,),
)
@transformation
def exponentiated_plus_minus(
    tx: optax.GradientTransformation, *, beta: Positive = 0.5, total: Positive | None = None
) -> optax.GradientTransformation:
    """The steps of `tx` as factors on two positive parts of each weight, their difference (EG±).

    Rule:
      p = a − b, a and b positive with √(a·b) = beta
      a ← a·exp(u);   b ← b·exp(−u), u the update of tx
      with total, both are scaled so that Σ(a + b) = total in each leaf, and beta with them

    When to use:
      As `exponentiated_gradient`, where signs may change and weights may start at zero. Near zero,
      up to about beta, its steps are those of `tx` times 2·beta; beyond, they grow with the weight.
      Not where weights must not be held to a sum, unless total is None.

    Args:
      tx: the optimizer, with its learning rate.
      beta: the geometric mean of the parts: the size at which steps begin to multiply.
      total: what the parts of each leaf sum to after a step; None leaves them free.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Kivinen and Warmuth 1997, Information and Computation 132; without total it is mirror descent
      on asinh(p/(2·beta)), so that the parts need not be kept. KellerJordan's
      Exponentiated-Gradient-PyTorch takes the sum over an output and its bias.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        means = jax.tree.map(lambda p: jnp.asarray(beta, p.real.dtype), params)
        return PlusMinusState(inner.init(params), packed(means))

    def update(updates, state, params=None, **extra_args):
        require_params(params, "exponentiated_plus_minus")
        moves, inner_state = inner.update(updates, state.inner, params, **extra_args)
        means = jax.tree.map(lambda p: jax.ShapeDtypeStruct((), p.real.dtype), params)
        before = unpacked(state.beta, means)

        def turned(p, u, b):
            angle = jnp.arcsinh(p / (2 * b)) + u
            return angle * (STEEPEST / jnp.maximum(jnp.abs(angle), STEEPEST))

        angles = jax.tree.map(turned, params, moves, before)
        after = before
        if total is not None:
            after = jax.tree.map(
                lambda angle, b: (total / jnp.sum(2 * jnp.cosh(angle))).astype(b.dtype),
                angles,
                before,
            )
        out = jax.tree.map(lambda angle, b, p: 2 * b * jnp.sinh(angle) - p, angles, after, params)
        return out, PlusMinusState(inner_state, packed(after))

    return optax.GradientTransformationExtraArgs(init, update)
