"""SMB: SGD whose steps are tried, and bent by a model of the loss where they fail."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Fraction,
    LearningRate,
    OpenFraction,
    Positive,
    Size,
    Tree,
    at,
    require,
    require_params,
    transformation,
)
from optzoo.primitives.norms import layer_norm, sum_of_squares
from optzoo.registry import Trait, optimizer


class SMBState(NamedTuple):
    """What the schedule has made of the rate, and the gradient of a failed trial."""

    steps: jax.Array
    scale: jax.Array
    models: jax.Array
    failed: jax.Array
    remembered: Tree


@transformation
def scale_by_smb(
    learning_rate: LearningRate = 1.0,
    *,
    eta: OpenFraction = 0.99,
    c: Fraction = 0.1,
    independent_batch: bool = False,
    n_batches_per_epoch: Size | None = None,
    gamma: Fraction = 0.05,
    beta: OpenFraction = 0.9,
    lr_max: Positive = 20.0,
) -> optax.GradientTransformation:
    """The step of `smb`, to be subtracted, with its learning rate: a trial needs it; see there."""

    def init(params):
        zero, remembered = jnp.zeros([], jnp.int32), ()
        if independent_batch:
            remembered = optax.tree.zeros_like(params)
        return SMBState(zero, jnp.ones([], float), zero.copy(), jnp.array(False), remembered)

    def update(updates, state, params=None, **extra_args):
        require_params(params, "smb")
        value = require(extra_args, "value", "smb")
        value_fn = require(extra_args, "value_fn", "smb")
        rate = jnp.asarray(at(learning_rate, state.steps), float) * state.scale
        steps = jax.tree.map(lambda g: rate.astype(g.real.dtype) * g, updates)
        tried = jax.tree.map(jnp.subtract, params, steps)
        square = sum_of_squares(updates)
        enough = value - (c * rate).astype(square.dtype) * square
        passed = (value_fn(tried) <= enough) | (square < 1e-16)

        def model(origin: Tree) -> Tree:
            # As Optax's rules expect it: the direction of ascent where numbers are complex.
            second = jax.tree.map(jnp.conj, jax.grad(value_fn)(tried))

            def leaf(s, g, new, own):
                bound = layer_norm(None, own) / eta
                return _model_step(s, g, new.astype(own.dtype) - own, bound)

            return jax.tree.map(leaf, steps, origin, second, updates)

        failed, remembered = state.failed, state.remembered
        if independent_batch:
            # A batch would judge itself: the next one draws the model.
            modelled = state.failed
            failed = ~modelled & ~passed
            step = jax.lax.cond(modelled, model, lambda _: steps, remembered)
            step = jax.tree.map(lambda s: jnp.where(failed, 0, s), step)
            remembered = updates
        else:
            modelled = ~passed
            step = jax.lax.cond(modelled, model, lambda _: steps, updates)
        count = optax.safe_increment(state.steps)
        models, scale = state.models, state.scale
        if n_batches_per_epoch is not None:
            models = models + modelled.astype(jnp.int32)
            ends = count % n_batches_per_epoch == 0
            limit = gamma / 2 if independent_batch else gamma
            often = models.astype(float) / n_batches_per_epoch > limit
            larger = jnp.where(rate / beta <= lr_max, scale / beta, scale)
            scale = jnp.where(ends, jnp.where(often, scale * beta, larger), scale)
            models = jnp.where(ends, 0, models)
        return step, SMBState(count, scale, models, failed, remembered)

    return optax.GradientTransformationExtraArgs(init, update)


def _model_step(s: jax.Array, g: jax.Array, y: jax.Array, bound: jax.Array) -> jax.Array:
    """What the model subtracts where a trial along −s fails, y the gradient's change along it.

    The paper's formulas in unit vectors and cosines, in which no square overflows; `bound` is their
    |g|/eta.
    """
    (s, size), (g, slope), (y, change) = _unit(s), _unit(g), _unit(y)
    along, against = jnp.sum((y.conj() * s).real), jnp.sum((y.conj() * g).real)
    downhill = jnp.sum((s.conj() * g).real)
    some = bound > 0
    safe = jnp.where(some, bound, 1)
    # As shares of the larger one: XLA multiplies divisors, whose product may underflow.
    larger = jnp.maximum(change, safe)
    part, rest = change / larger, safe / larger
    turned = (part * downhill + (part + rest) * against) * s
    turned += (part * against + (part + rest) * downhill) * y
    bent = g + part / ((2 * part + rest) * rest) * turned
    step = size / (change * (1 + along) + safe) * slope * bent
    return jnp.where(some, step, 0)


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    norm = layer_norm(None, x)
    return x / jnp.where(norm > 0, norm, 1), norm


@optimizer(
    title="Bolstering Stochastic Gradient Descent with Model Building",
    authors=("Ş. İlker Birbil", "Özgür Martin", "Gönenç Onay", "Figen Öztoprak"),
    year=2021,
    arxiv="2111.07058",
    code="https://github.com/sibirbil/SMB",
    traits=(Trait.VALUE, Trait.VALUE_FN, Trait.COUPLED, Trait.SHAPED),
    gradients=2,
)
@transformation
def smb(
    learning_rate: LearningRate = 1.0,
    *,
    eta: OpenFraction = 0.99,
    c: Fraction = 0.1,
    independent_batch: bool = False,
    n_batches_per_epoch: Size | None = None,
    gamma: Fraction = 0.05,
    beta: OpenFraction = 0.9,
    lr_max: Positive = 20.0,
) -> optax.GradientTransformation:
    """SGD that tries each step and, where the loss falls too little, takes a model's instead.

    Rule:
      s = −learning_rate·g;   keep p + s where L(p + s) ≤ L(p) − c·learning_rate·|g|²
      else leaf by leaf, with y = g(p + s) − g
      σ = (|s|·(|y| + |g|/eta) − yᵀs)/2;   r = yᵀs + 2·σ;   θ = r² − |s|²·|y|²
      k = −|s|²/(2·σ);   p ← p + k·g + k/θ·(|y|²·sᵀg − r·yᵀg)·s + k/θ·(|s|²·yᵀg − r·sᵀg)·y

    Against Adam:
      No moments: what curvature the failed step met along itself bends it, on the same batch. A
      step costs one forward pass more, a failed one a second gradient.

    When to use:
      Plain SGD on problems whose right rate nobody knows or that change on the way, where a second
      look at a batch is possible. Not where passes are dear, nor with dropout or batch statistics
      that change between two looks at the same batch.

    Tuning:
      Rates from 0.1 to 10; the default is the code's. The model makes large rates safe: begin high.

    Args:
      learning_rate: of the trial; a number, or a schedule of the number of finished steps.
      eta: how much of the model's bound on the step is used, in (0, 1): nearer to 1, longer steps.
      c: the part of the expected fall that a trial must reach, in [0, 1].
      independent_batch: undo a failed trial and let the next batch's gradient build the model, so
        that no batch judges itself (SMBi).
      n_batches_per_epoch: change the rate after as many steps, by how often the model was needed;
        None keeps it.
      gamma: the share of model steps above which the rate falls and below which it rises; half of
        it with independent_batch.
      beta: the factor by which it falls, and rises.
      lr_max: the largest rate it may rise to.

    Returns:
      The optimizer. It needs the parameters in `update`. There it gets `value` and `value_fn`, too.

    Raises:
      ValueError: for an argument out of range, or `update` without what it needs.

    References:
      Birbil et al. 2021, arXiv 2111.07058; official code sibirbil/SMB, whose test compares norms
      over all leaves where its model knows each leaf alone. It divides zero by zero in a leaf
      without a gradient; here such a leaf stays.
    """
    step = scale_by_smb(
        learning_rate,
        eta=eta,
        c=c,
        independent_batch=independent_batch,
        n_batches_per_epoch=n_batches_per_epoch,
        gamma=gamma,
        beta=beta,
        lr_max=lr_max,
    )
    return optax.chain(step, optax.scale(-1.0))
