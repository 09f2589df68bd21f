"""Schedule-Free: averaging in place of a learning-rate schedule."""

from typing import Any

import jax.numpy as jnp
import optax

from optzoo.primitives.averaged import schedule_free_average
from optzoo.primitives.base import (
    Decay,
    DType,
    LearningRate,
    Mask,
    NonNegative,
    OpenFraction,
    at,
    checked,
    real,
)
from optzoo.primitives.combine import divide, gradient, merge_leaves
from optzoo.primitives.decay import add_decayed_weights
from optzoo.primitives.moments import rms
from optzoo.primitives.precision import master_weights
from optzoo.primitives.schedules import linear_warmup, rectification
from optzoo.primitives.stepsizes import rate
from optzoo.registry import Trait, optimizer, wrapper

PAPER: Any = dict(
    title="The Road Less Scheduled",
    authors=(
        "Aaron Defazio",
        "Xingyu Alice Yang",
        "Harsh Mehta",
        "Konstantin Mishchenko",
        "Ahmed Khaled",
        "Ashok Cutkosky",
    ),
    year=2024,
    arxiv="2405.15682",
    code="https://github.com/facebookresearch/schedule_free",
    traits=(Trait.AVERAGES,),
)


@wrapper(**PAPER)
@checked
def schedule_free(
    base: optax.GradientTransformation,
    learning_rate: LearningRate,
    *,
    b1: OpenFraction = 0.9,
    r: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Any optimizer without a learning-rate schedule: gradients at y, steps on z, average x.

    Train on the parameters (y) and evaluate `eval_params(opt_state, params)` (x). Half-precision
    parameters keep float32 copies in the state, because the average soon moves by less than they
    resolve.

    Rule:
      z ← z − learning_rate·weight_decay·y + (update of base at z)
      w = (k + 1)^r·(largest learning rate so far)^weight_lr_power, k finished steps;   c = w/Σw
      x ← (1 − c)·x + c·z;   y = b1·x + (1 − b1)·z

    When to use:
      Runs of unknown length: the average is good at any time. Not around rules with momentum of
      their own, nor for batch normalisation, unless its statistics are taken anew at the average.

    Args:
      base: the optimizer, with its own learning rate and without momentum of its own.
      learning_rate: the same number or schedule that `base` uses; it sets the weights.
      b1: how far y lies towards x, in (0, 1).
      r: power of the step count in the weights.
      weight_lr_power: power of the learning rate in the weights.
      weight_decay: decay at y. For decay at z, chain `optax.add_decayed_weights` into `base`.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Defazio et al. 2024, arXiv 2405.15682; official code facebookresearch/schedule_free.
    """
    return master_weights(
        schedule_free_average(
            base,
            learning_rate,
            b1=b1,
            r=r,
            weight_lr_power=weight_lr_power,
            decay_at_y=add_decayed_weights(weight_decay, mask),
        )
    )


@optimizer(**PAPER, default=True)
@checked
def schedule_free_sgd(
    learning_rate: LearningRate = 1.0,
    *,
    b1: OpenFraction = 0.9,
    warmup_steps: NonNegative = 0,
    r: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """SGD whose averaged iterate needs no learning-rate schedule.

    Evaluate `eval_params(opt_state, params)`: the average x.

    Rule:
      γ = learning_rate·min(1, (k + 1)/warmup_steps) after k finished steps
      z ← z − γ·(g(y) + weight_decay·y)
      w = (k + 1)^r·(largest γ)^weight_lr_power;   c = w/Σw;   x ← (1 − c)·x + c·z
      y = b1·x + (1 − b1)·z, the parameters in training

    Against Adam:
      No scale for each entry, and an average of the iterates in place of a schedule.

    When to use:
      Runs of unknown length that SGD suits: the average is good at any time. Not for models with
      batch normalisation, unless its statistics are taken anew at the average.

    Tuning:
      10 to 50 times the learning rate of SGD with momentum, by the authors' experience; warm up;
      the decay that SGD would get.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: how far y lies towards x, in (0, 1); it plays the part of momentum.
      warmup_steps: length of the linear warm-up; 0 for none.
      r: power of the step count in the weights.
      weight_lr_power: power of the learning rate in the weights.
      weight_decay: decay at y.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Defazio et al. 2024, arXiv 2405.15682; official code facebookresearch/schedule_free.
    """
    warm = linear_warmup(learning_rate, warmup_steps)
    return schedule_free(
        optax.scale_by_learning_rate(warm),
        warm,
        b1=b1,
        r=r,
        weight_lr_power=weight_lr_power,
        weight_decay=weight_decay,
        mask=mask,
    )


@optimizer(**PAPER, default=True)
@checked
def schedule_free_adamw(
    learning_rate: LearningRate = 2.5e-3,
    *,
    b1: OpenFraction = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    warmup_steps: NonNegative = 0,
    r: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    debias_learning_rate: bool = False,
    nu_dtype: DType = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW whose averaged iterate needs no learning-rate schedule.

    Evaluate `eval_params(opt_state, params)`: the average x.

    Rule:
      γ = learning_rate·min(1, (k + 1)/warmup_steps) after k finished steps
      z ← z − γ·(g(y)/(√(v/(1 − b2^(k+1))) + eps) + weight_decay·y), v the average of g²
      w = (k + 1)^r·(largest γ)^weight_lr_power;   c = w/Σw;   x ← (1 − c)·x + c·z
      y = b1·x + (1 − b1)·z, the parameters in training

    Against Adam:
      An average of the iterates takes the place of both the momentum and the schedule.

    When to use:
      Runs of unknown length, or models wanted on the way: the average is good at any time. Not for
      batch normalisation, unless its statistics are taken anew at the average.

    Tuning:
      1 to 10 times the learning rate of AdamW with a schedule, by the authors' experience; warm up
      over some hundreds of steps; AdamW's decay.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: how far y lies towards x, in (0, 1); it plays the part of momentum.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      warmup_steps: length of the linear warm-up; 0 for none.
      r: power of the step count in the weights.
      weight_lr_power: power of the learning rate in the weights.
      weight_decay: decay at y.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      debias_learning_rate: correct v's start at zero through the learning rate, and so through the
        weights too, as the paper's algorithm does.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Defazio et al. 2024, arXiv 2405.15682; official code facebookresearch/schedule_free, whose
      main class corrects the second moment itself; `debias_learning_rate=True` is the paper's.
    """
    warm = linear_warmup(learning_rate, warmup_steps)

    def debiased(count):
        return at(warm, count) * jnp.sqrt(1 - b2 ** (real(jnp.asarray(count)) + 1))

    schedule = debiased if debias_learning_rate else warm
    second = rms(b2, eps, debias=not debias_learning_rate, dtype=nu_dtype)
    return schedule_free(
        optax.chain(merge_leaves(divide, gradient, second), optax.scale_by_learning_rate(schedule)),
        schedule,
        b1=b1,
        r=r,
        weight_lr_power=weight_lr_power,
        weight_decay=weight_decay,
        mask=mask,
    )


@optimizer(**PAPER, default=True)
@checked
def schedule_free_radam(
    learning_rate: LearningRate = 2.5e-3,
    *,
    b1: OpenFraction = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    r: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
    silent_sgd_phase: bool = True,
    nu_dtype: DType = None,
) -> optax.GradientTransformationExtraArgs:
    """RAdam whose averaged iterate needs no learning-rate schedule and no warm-up.

    Evaluate `eval_params(opt_state, params)`: the average x.

    Rule:
      γ = learning_rate·ρ(k + 1) after k finished steps, ρ RAdam's rectification
      z ← z − γ·(g(y)/(√(v/(1 − b2^(k+1))) + eps) + weight_decay·y), v the average of g²
      while v cannot be trusted: γ = 0, or with silent_sgd_phase=False plain SGD with learning_rate
      w = (k + 1)^r·(largest γ)^weight_lr_power;   c = w/Σw;   x ← (1 − c)·x + c·z
      y = b1·x + (1 − b1)·z, the parameters in training

    Against Adam:
      An average of the iterates takes the place of both the momentum and the schedule, and
      rectification that of the warm-up.

    When to use:
      As Schedule-Free AdamW, without a warm-up to choose. Not for batch normalisation, unless its
      statistics are taken anew at the average.

    Tuning:
      1 to 10 times the learning rate of AdamW with a schedule; AdamW's decay.

    Args:
      learning_rate: a number, or a schedule of the number of finished steps.
      b1: how far y lies towards x, in (0, 1); it plays the part of momentum.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      r: power of the step count in the weights.
      weight_lr_power: power of the learning rate in the weights.
      weight_decay: decay at y.
      mask: which leaves to decay: a tree of booleans, or a function that makes one.
      silent_sgd_phase: stand still during the first steps instead of taking SGD steps.
      nu_dtype: dtype of the second moment; float32 or wider by default.

    Returns:
      The optimizer. It needs the parameters in `update`.

    Raises:
      ValueError: for an argument out of range, or `update` without parameters.

    References:
      Defazio et al. 2024, arXiv 2405.15682 and Liu et al. 2019, arXiv 1908.03265; official code
      facebookresearch/schedule_free.
    """

    def rectified(count):
        factor, trusted = rectification(b2, real(jnp.asarray(count)) + 1)
        untrusted = 0.0 if silent_sgd_phase else 1.0
        return at(learning_rate, count) * jnp.where(trusted, factor, untrusted)

    def adaptive_or_sgd(g, root, trusted):
        return jnp.where(trusted > 0, g / root, g)

    trust = rate(lambda count: rectification(b2, real(jnp.asarray(count)) + 1)[1])
    return schedule_free(
        optax.chain(
            merge_leaves(adaptive_or_sgd, gradient, rms(b2, eps, dtype=nu_dtype), trust),
            optax.scale_by_learning_rate(rectified),
        ),
        rectified,
        b1=b1,
        r=r,
        weight_lr_power=weight_lr_power,
        weight_decay=weight_decay,
        mask=mask,
    )
