"""Grokfast: gradients whose slow part is amplified."""

from typing import Literal

import optax

from optzoo.primitives.base import Decay, DType, NonNegative, Size, transformation
from optzoo.primitives.combine import gradient, merge_leaves
from optzoo.primitives.moments import ema
from optzoo.primitives.window import window_mean
from optzoo.registry import wrapper

_published = wrapper(
    title="Grokfast: Accelerated Grokking by Amplifying Slow Gradients",
    authors=("Jaerin Lee", "Bong Gyun Kang", "Kihoon Kim", "Kyoung Mu Lee"),
    year=2024,
    arxiv="2405.20233",
    code="https://github.com/ironjr/grokfast",
)


def _amplified(slow, lamb, tx):
    return optax.chain(merge_leaves(lambda g, e: g + lamb * e, gradient, slow), tx)


@_published
@transformation
def grokfast(
    tx: optax.GradientTransformation,
    *,
    alpha: Decay = 0.98,
    lamb: NonNegative = 2.0,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Hands `tx` the gradient plus a multiple of its slow average.

    Rule:
      e ← g on the first step, then alpha·e + (1 − alpha)·g;   g ← g + lamb·e

    When to use:
      Small algorithmic data on which training accuracy is perfect long before the test's. Tune the
      decay of the rule inside for the baseline as well: the authors' ran without, and a small decay
      alone makes plain AdamW generalise sooner. In front of Adam the factor 1 + lamb on slow
      gradients cancels, so this is a change of direction, not of the rate. Not where training and
      test loss fall together.

    Args:
      tx: the optimizer that gets these gradients; a decay in it is not amplified.
      alpha: decay of the average, in [0, 1).
      lamb: how many times the average is added.
      mu_dtype: dtype of the average; float32 or wider by default.

    Returns:
      The optimizer. Clip gradients before it, not after.

    Raises:
      ValueError: for an argument out of range.

    References:
      Lee et al. 2024, arXiv 2405.20233; official code ironjr/grokfast, with the defaults of its
      functions. Ports in pytorch_optimizer and grokfast-pytorch divide the learning rate by
      1 + lamb, too.
    """
    return _amplified(ema(alpha, debias=False, start="first", dtype=mu_dtype), lamb, tx)


@_published
@transformation
def grokfast_ma(
    tx: optax.GradientTransformation,
    *,
    window_size: Size = 100,
    lamb: NonNegative = 5.0,
    filter_type: Literal["mean", "sum"] = "mean",
    warmup: bool = True,
) -> optax.GradientTransformation:
    """Hands `tx` the gradient plus a multiple of the mean of the last few.

    Rule:
      g ← g + lamb·e, e the mean of window_size gradients, this one included

    When to use:
      As `grokfast`, where memory is plentiful: it keeps window_size numbers a weight, by default
      fifty times what Adam keeps. The exponential average does nearly as well in the paper.
      Not where memory counts.

    Args:
      tx: the optimizer that gets these gradients; a decay in it is not amplified.
      window_size: how many gradients.
      lamb: how many times the mean is added.
      filter_type: "mean" of the window, or its "sum".
      warmup: add nothing until the window is full.

    Returns:
      The optimizer. Clip gradients before it, not after.

    Raises:
      ValueError: for an argument out of range.

    References:
      Lee et al. 2024, arXiv 2405.20233; official code ironjr/grokfast.
    """
    return _amplified(window_mean(window_size, reduce=filter_type, full_only=warmup), lamb, tx)
