"""Implicit gradient transport: averages of gradients as if all had been taken at the same point."""

import jax.numpy as jnp
import optax

from optzoo.primitives.ahead import train_ahead
from optzoo.primitives.base import (
    Count,
    DecayOrSchedule,
    DType,
    LearningRate,
    Positive,
    at,
    real,
    transformation,
)
from optzoo.primitives.moments import ema
from optzoo.primitives.norms import normalized
from optzoo.registry import Trait, optimizer, wrapper


def _transported(share, tx, dtype=None):
    """Hands `tx` an average, and trains so far ahead that its next gradient counts for all of it.

    `share` gives the part of the average that is kept after so many finished steps; 0 after none.
    """

    def ahead(finished):
        kept = jnp.asarray(share(optax.safe_increment(finished)), float)
        return kept / (1 - kept)

    average = ema(lambda step: share((step - 1).astype(jnp.int32)), debias=False, dtype=dtype)
    return train_ahead(optax.chain(average, tx), ahead)


@wrapper(
    title="Reducing the variance in online optimization by transporting past gradients",
    authors=(
        "Sebastien Arnold",
        "Pierre-Antoine Manzagol",
        "Reza Babanezhad",
        "Ioannis Mitliagkas",
        "Nicolas Le Roux",
    ),
    year=2019,
    arxiv="1906.03532",
    code="https://github.com/seba-1511/igt.pth",
    traits=(Trait.AVERAGES,),
)
@transformation
def igt(
    tx: optax.GradientTransformation,
    *,
    interval: Count | None = 2.0,
    delta: Positive = 1.0,
    clip: bool = False,
) -> optax.GradientTransformation:
    """Hands `tx` the mean of past gradients, moved to the present weights.

    Rule:
      e ← γ(k)·e + (1 − γ(k))·g, k finished steps, g the gradient at y
      w ← w + u, u what tx makes of e at w;   y = w + γ(k + 1)/(1 − γ(k + 1))·u
      c = 1/interval;   γ(k) = c·k/(1 + c·k)·(1 − √((1 − c)/(k·(k + 1)))/c), 0 for k < 2
      without interval, γ(k) = k/(k + delta)

    When to use:
      Noisy gradients of losses whose curvature hardly changes, around SGD, heavy ball or Adam at a
      constant rate: on a quadratic the mean is that of gradients at w. Not for deep networks whose
      curvature does change, as without interval, where the way ahead grows for ever.

    Args:
      tx: the optimizer, with its learning rate.
      interval: the mean is of the last 1/interval of all gradients, from 1 up; None for all.
      delta: how many gradients the newest one counts for, without interval.
      clip: average from 0 up. By default the first γ of a long interval are negative, as in the
        authors' code: with 10, from the third step to the ninth.

    Returns:
      The optimizer, which adds two numbers a weight; `eval_params` gives the weights w. It needs
      the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Arnold et al. 2019, arXiv 1906.03532; official code seba-1511/igt.pth: ITA with interval, and
      IGTransporter without. The code of the same authors in google-research lacks the exception for
      the second step.
    """

    def tail(finished):
        c = 1 / jnp.asarray(interval, float)
        k = jnp.maximum(real(finished), 1)
        kept = c * k / (1 + c * k) * (1 - jnp.sqrt((1 - c) / (k * (k + 1))) / c)
        kept = jnp.maximum(kept, 0) if clip else kept
        return jnp.where(finished < 2, 0, kept)

    def everything(finished):
        return real(finished) / (real(finished) + delta)

    return _transported(everything if interval is None else tail, tx)


@optimizer(
    title="Momentum Improves Normalized SGD",
    authors=("Ashok Cutkosky", "Harsh Mehta"),
    year=2020,
    arxiv="2002.03305",
    code=None,
    traits=(Trait.AVERAGES, Trait.COUPLED),
)
@transformation
def nigt(
    learning_rate: LearningRate = 1e-2,
    *,
    b1: DecayOrSchedule = 0.9,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Steps of fixed length along an average of gradients that are moved to the present weights.

    Rule:
      e ← b1·e + (1 − b1)·g, g the gradient at y; on the first step e = g
      u = −learning_rate·e/|e|, |e| over all leaves
      w ← w + u;   y = w + b1/(1 − b1)·u

    Against Adam:
      One length for the whole step, whatever the gradients; the momentum's lag is made good by
      taking gradients ahead.

    When to use:
      Heavy-tailed or policy gradients, where a step must not be longer for one wild gradient.
      Not for networks whose layers need steps of different lengths: there is one norm for all.

    Tuning:
      The learning rate is the distance that all weights together move in a step; let it fall.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the average, in [0, 1), or a schedule of the number of finished steps, of which
        the first value does not count; the theory has it rise to 1.
      mu_dtype: dtype of the average; float32 or wider by default.

    Returns:
      The optimizer; `eval_params` gives the weights w. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Cutkosky and Mehta 2020, arXiv 2002.03305, and Fatkhullin et al. 2023, arXiv 2302.01734, whose
      N-PG-IGT it is in reinforcement learning; from descriptions, for no code is public.
    """

    def share(finished):
        return jnp.where(finished < 1, 0, jnp.asarray(at(b1, finished), float))

    unit = optax.stateless(lambda average, _: normalized(average))
    step = optax.chain(unit, optax.scale_by_learning_rate(learning_rate))
    return _transported(share, step, mu_dtype)
