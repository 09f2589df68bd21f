"""DoG and LDoG: step sizes from distance over gradients, without a learning rate to tune."""

from typing import Any

import optax

from optzoo.primitives.averaged import polynomial_average
from optzoo.primitives.base import (
    LearningRate,
    Mask,
    NonNegative,
    Positive,
    checked,
    transformation,
)
from optzoo.primitives.combine import gradient, merge_leaves, multiply
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.precision import master_weights
from optzoo.primitives.stepsizes import dog_step
from optzoo.registry import Range, Trait, optimizer

PAPER: Any = dict(
    title="DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule",
    authors=("Maor Ivgi", "Oliver Hinder", "Yair Carmon"),
    year=2023,
    arxiv="2302.12022",
    code="https://github.com/formll/dog",
    ranges={"reps_rel": Range(1e-8, 1e-3)},
)


@transformation
def scale_by_dog(
    learning_rate: LearningRate = 1.0,
    *,
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    init_eta: Positive | None = None,
) -> optax.GradientTransformation:
    """The gradient times DoG's step size; see `dog` for the arguments.

    The learning rate is an argument because init_eta is not multiplied by it.
    """
    step = dog_step(learning_rate, reps_rel=reps_rel, eps=eps, init_eta=init_eta)
    return merge_leaves(multiply, gradient, step)


@transformation
def scale_by_ldog(
    learning_rate: LearningRate = 1.0,
    *,
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    init_eta: Positive | None = None,
) -> optax.GradientTransformation:
    """The gradient times LDoG's step size of each leaf; see `scale_by_dog`."""
    step = dog_step(learning_rate, reps_rel=reps_rel, eps=eps, init_eta=init_eta, layerwise=True)
    return merge_leaves(multiply, gradient, step)


@optimizer(**PAPER, traits=(Trait.AVERAGES, Trait.COUPLED, Trait.SELF_TUNING), default=True)
@checked
def dog(
    learning_rate: LearningRate = 1.0,
    *,
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    init_eta: Positive | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    average_gamma: NonNegative | None = 8.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD whose step size is the distance travelled over the root of the gradients' energy.

    Evaluate `eval_params(opt_state, params)`: the average. Half-precision parameters keep float32
    copies in the state, because the first steps are far below their resolution. For several groups
    with a step size each, use `optax.partition`.

    Rule:
      g ← g + weight_decay·p;   energy = eps + Σ |g|² over steps
      reach = the largest |p − p₀| so far, at first reps_rel·(1 + |p₀|)
      p ← p − learning_rate·reach/√energy·g, with norms over the whole tree
      average ← (1 − a)·average + a·p, a = (average_gamma + 1)/(average_gamma + t)

    Against Adam:
      One step size for the whole model instead of one for each entry, found from distances and
      gradient norms instead of given.

    When to use:
      Fine-tuning, convex problems and first tries, where nobody wants to tune. Not where tuned SGD
      itself lags far behind Adam.

    Tuning:
      Leave learning_rate at 1; reps_rel = 1e-4 with batch normalisation. Evaluate the average,
      which is half of the method.

    Args:
      learning_rate: factor on the step size (the paper's c); a number, or a schedule of the number
        of finished steps.
      reps_rel: first movement relative to 1 + |p₀|; the authors take 1e-4 with batch norm.
      eps: keeps the root from 0.
      init_eta: the first step size itself, instead of reps_rel; not multiplied by learning_rate.
      weight_decay: coupled decay, added to the gradient.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      average_gamma: 0 averages all iterates alike, larger forgets early ones sooner; None keeps no
        average.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Ivgi et al. 2023, arXiv 2302.12022; official code formll/dog.
    """
    direction = scale_by_dog(learning_rate, reps_rel=reps_rel, eps=eps, init_eta=init_eta)
    return _finished(direction, weight_decay, mask, average_gamma)


@optimizer(**PAPER, traits=(Trait.AVERAGES, Trait.SELF_TUNING, Trait.SHAPED), default=True)
@checked
def ldog(
    learning_rate: LearningRate = 1.0,
    *,
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    init_eta: Positive | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    average_gamma: NonNegative | None = 8.0,
) -> optax.GradientTransformationExtraArgs:
    """DoG with a step size for each leaf of the tree.

    Evaluate `eval_params(opt_state, params)`: the average.

    Rule:
      g ← g + weight_decay·p;   energy = eps + Σ |g|² over steps
      reach = the largest |p − p₀| so far, at first reps_rel·(1 + |p₀|)
      p ← p − learning_rate·reach/√energy·g, with norms over each leaf
      average ← (1 − a)·average + a·p, a = (average_gamma + 1)/(average_gamma + t)

    Against Adam:
      One step size for each leaf instead of one for each entry, found from distances and gradient
      norms instead of given.

    When to use:
      As DoG, when layers differ in scale, which one step size cannot serve. Not where DoG already
      trains well: more step sizes mean less theory.

    Tuning:
      Leave learning_rate at 1; reps_rel = 1e-4 with batch normalisation, and 1e-8 where it diverges
      at once, as the authors saw with large pre-trained weights. Evaluate the average.

    Args:
      learning_rate: factor on the step sizes; a number, or a schedule of the number of finished
        steps.
      reps_rel: first movement of a leaf relative to 1 + |p₀|.
      eps: keeps the root from 0.
      init_eta: the first step size itself, instead of reps_rel; not multiplied by learning_rate.
      weight_decay: coupled decay, added to the gradient.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      average_gamma: as in `dog`; None keeps no average.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Ivgi et al. 2023, arXiv 2302.12022, section 3.3; official code formll/dog.
    """
    direction = scale_by_ldog(learning_rate, reps_rel=reps_rel, eps=eps, init_eta=init_eta)
    return _finished(direction, weight_decay, mask, average_gamma)


def _finished(
    direction: optax.GradientTransformation,
    weight_decay: NonNegative,
    mask: Mask,
    average_gamma: NonNegative | None,
) -> optax.GradientTransformationExtraArgs:
    decay = add_decayed_weights(weight_decay, mask)
    steps = optax.chain(decay, direction, optax.scale(-1.0))
    if average_gamma is not None:
        steps = polynomial_average(steps, gamma=average_gamma)
    return master_weights(steps)
