"""AdaMod: Adam whose rates are bounded by their own averages."""

from typing import Literal

import jax.numpy as jnp
import optax

from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    transformation,
)
from optzoo.primitives.combine import divide, gradient, merge_leaves, multiply
from optzoo.primitives.decay import rated_decay
from optzoo.primitives.moments import debias, ema, real_zeros, rms
from optzoo.primitives.stepsizes import rate
from optzoo.registry import optimizer

Form = Literal["code", "paper"]


@transformation
def scale_by_adamod(
    learning_rate: LearningRate = 1.0,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.999,
    eps: Positive = 1e-8,
    form: Form = "code",
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The step of `adamod` without decay; see there for the arguments.

    The learning rate is an argument because the bound averages it, too.
    """
    code = form == "code"
    root = rms(b2, eps, eps_on_debiased=not code, dtype=nu_dtype)
    rates = merge_leaves(divide, rate(learning_rate), root)
    average = ema(b3, debias=False, start=real_zeros, dtype=nu_dtype)
    bounded = merge_leaves(jnp.minimum, gradient, average)
    return merge_leaves(
        multiply,
        ema(b1, debias=not code, dtype=mu_dtype),
        optax.chain(rates, debias(b1) if code else gradient, bounded),
    )


@optimizer(
    title="An Adaptive and Momental Bound Method for Stochastic Learning",
    authors=("Jianbang Ding", "Xuancheng Ren", "Ruixuan Luo", "Xu Sun"),
    year=2019,
    arxiv="1910.12249",
    code="https://github.com/lancopku/AdaMod",
)
@transformation
def adamod(
    learning_rate: LearningRate = 1e-3,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.999,
    eps: Positive = 1e-8,
    form: Form = "code",
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    mu_dtype: DType = None,
    nu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Adam whose rate for each entry may not exceed the average of that rate so far.

    Rule:
      η = learning_rate·√(1 − b2^t)/(1 − b1^t) / (√v + eps), m and v averages of g and g²
      s ← b3·s + (1 − b3)·η, from 0 and uncorrected
      p ← p − min(η, s)·m − learning_rate·weight_decay·p
      paper: η = learning_rate / (√(v/(1 − b2^t)) + eps);   m/(1 − b1^t) in place of m

    Against Adam:
      Rates are held down by their own history, first of all while that is short: s starts at 0, so
      that the bound is a warm-up over about 1/(1 − b3) steps.

    When to use:
      In Adam's place where it diverges at the start and no warm-up is at hand; an older rule that a
      warm-up has mostly replaced. Not for embeddings with rare rows: without gradients an entry's
      rate is learning_rate/eps, which fills s, and its bound is void for 1/(1 − b3) steps after it
      wakes.

    Tuning:
      Adam's learning rate; b3 from 0.9 to 0.9999, which is the length of the warm-up. A schedule is
      averaged in s, too: a falling rate is not held back, a rising one is.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: decay of the first moment, in [0, 1); the plain number 0 keeps no buffer for it.
      b2: decay of the second moment, in [0, 1).
      b3: decay of the average rate, in [0, 1); the plain number 0 is Adam and keeps none;
        the plain number 0 keeps no buffer for it.
      eps: added to the root of the second moment.
      form: "code", with the corrections inside the rate and eps on the raw root; "paper", with the
        momentum's correction outside and eps on the corrected root.
      weight_decay: decoupled decay.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      mu_dtype: dtype of the first moment; float32 or wider by default.
      nu_dtype: dtype of the second moment and the average rate; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Ding et al. 2019, arXiv 1910.12249; official code lancopku/AdaMod, whose early rates are up to
      1/(1 − b1) times larger than the paper's. Its docstring says 0.9999 for b3, its default is
      0.999.
    """
    return optax.chain(
        scale_by_adamod(
            learning_rate,
            b1=b1,
            b2=b2,
            b3=b3,
            eps=eps,
            form=form,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        optax.scale(-1.0),
        rated_decay(learning_rate, weight_decay, mask),
    )
