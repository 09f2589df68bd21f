"""M-FAC: the inverse of the Fisher matrix of the last gradients, without ever forming it."""

import optax

from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    Size,
    transformation,
)
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import ema
from optzoo.primitives.window import gradient_window, inverse_fisher
from optzoo.registry import Trait, optimizer


@transformation
def scale_by_mfac(
    *,
    window: Size = 1024,
    damping: Positive = 1e-2,
    momentum: Decay = 0.0,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """The direction of `mfac`; see there for the arguments."""
    return optax.chain(
        gradient_window(window, inverse_fisher(damping)),
        ema(momentum, debias=False, dtype=mu_dtype),
    )


@optimizer(
    title="M-FAC: Efficient Matrix-Free Approximations of Second-Order Information",
    authors=("Elias Frantar", "Eldar Kurtic", "Dan Alistarh"),
    year=2021,
    arxiv="2107.03356",
    code="https://github.com/IST-DASLab/M-FAC",
    traits=(Trait.COUPLED,),
)
@transformation
def mfac(
    learning_rate: LearningRate = 1e-3,
    *,
    window: Size = 1024,
    damping: Positive = 1e-2,
    momentum: Decay = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    mu_dtype: DType = None,
) -> optax.GradientTransformation:
    """Natural gradient with the Fisher matrix of the last gradients, over all leaves at once.

    Rule:
      d = g + weight_decay·p, the newest of the window;   F = Σ d·dᵀ/window over the window
      u = (damping·I + F)^(−1)·d;   m ← momentum·m + (1 − momentum)·u
      p ← p − learning_rate·m

    The gradients that a young window lacks count as zeros.

    Against Adam:
      Curvature between all numbers of the model instead of each alone, for as many floats a
      number as the window is long, and one product of that size.

    When to use:
      Small models and fine-tuning, where memory for hundreds of gradients is there. Not for models
      that fill the memory once.

    Tuning:
      The first steps are nearly g/damping: with the code's damping, 1e-5, they need a warm-up. The
      authors train with a learning rate of 0.005 and a momentum of 0.9.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      window: how many gradients to keep.
      damping: added to every eigenvalue of F.
      momentum: decay of the average of steps, in [0, 1);
        the plain number 0 keeps no buffer for it.
      weight_decay: added to the gradient before it enters the window.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      mu_dtype: dtype of the momentum; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range.

    References:
      Frantar, Kurtic and Alistarh 2021, arXiv 2107.03356; official code IST-DASLab/M-FAC, whose
      default damping is 1e-5. Its recursion loses digits where gradients are large beside damping;
      here a system of the window's size is solved. A gradient of infinite square is skipped.
    """
    return optax.chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_mfac(window=window, damping=damping, momentum=momentum, mu_dtype=mu_dtype),
        optax.scale_by_learning_rate(learning_rate),
    )
