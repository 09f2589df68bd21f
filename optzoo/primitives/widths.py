"""Rates and initial weights that carry over from a narrow model to a wide one (µP)."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.primitives.axes import Axes, AxesLike, is_function, map_with_axes
from optzoo.primitives.base import Tree, transformation
from optzoo.primitives.leafwise import leafwise

Shapes = Tree | Callable[[Tree], Tree]


class Growth(NamedTuple):
    """How much wider a leaf is than the base model's, and which of its sides are widths."""

    inputs: float
    outputs: float
    wide_input: bool
    wide_output: bool

    @property
    def is_hidden(self) -> bool:
        return self.wide_input and self.wide_output

    @property
    def is_head(self) -> bool:
        return self.wide_input and not self.wide_output


def _growths(axes: AxesLike, shapes: Shapes, other: Shapes | None, tree: Tree) -> Tree:
    def like(argument: str, given: Shapes) -> Tree:
        return leafwise(argument, given(tree) if is_function(given) else given, tree)

    base = like("base_shapes", shapes)
    # Axes whose size another width changes are widths, even where this model has the base's size.
    varied = tree if other is None else like("other_shapes", other)

    def growth(spec: Axes | None, leaf: Any, before: Any, changed: Any) -> Growth:
        now, then, differs = (np.shape(x) for x in (leaf, before, changed))
        if not len(now) == len(then) == len(differs):
            raise ValueError(
                f"base_shapes: a leaf of shape {now} has another rank there: {then} and {differs}"
            )
        inputs = spec.input if spec else ()
        outputs = spec.output if spec else tuple(range(len(now)))

        def side(group):
            ratio = math.prod(now[axis] / then[axis] for axis in group)
            return ratio, any(differs[axis] != then[axis] for axis in group)

        (more_in, wide_in), (more_out, wide_out) = side(inputs), side(outputs)
        return Growth(more_in, more_out, wide_in, wide_out)

    return map_with_axes(growth, axes, tree, base, varied)


def _factor(rule: str, growth: Growth) -> float:
    hidden = growth.is_hidden
    if rule == "adam":
        return 1 / growth.inputs if hidden else 1.0
    if rule == "orthogonal":
        return math.sqrt(growth.outputs / growth.inputs) if hidden else 1.0
    if hidden:
        return growth.outputs / growth.inputs
    ratio = growth.inputs if growth.wide_input else growth.outputs
    return ratio if growth.wide_input or growth.wide_output else 1.0


@transformation
def scale_by_width(
    base_shapes: Shapes,
    rule: Literal["adam", "sgd", "orthogonal"] = "adam",
    *,
    other_shapes: Shapes | None = None,
    inverse: bool = False,
    axes: AxesLike = None,
) -> optax.GradientTransformation:
    """Scales each leaf's step by its width, so that a narrow model's rate suits a wide one (µP).

    A width is an axis that another width of the model changes. Hidden kernels have two, inputs and
    outputs; embeddings, heads, biases and gains have one.

    Rule, i and o how many times more inputs and outputs a leaf has than in the base model:
      adam: hidden kernels 1/i, all others 1
      sgd: hidden kernels o/i, leaves with one width i or o, all others 1
      orthogonal: hidden kernels √(o/i), all others 1

    It stands behind the direction and before decay and rate:
    `chain(adam(), scale_by_width(narrow), add_decayed_weights(0.1), scale_by_learning_rate(rate))`,
    where `narrow = jax.eval_shape(base_model.init, key, batch)`. First weights go through
    `width_init`, and the model is called with `width_readout(params, narrow)`.

    Args:
      base_shapes: the base model's parameters or their shapes, or a function that makes them from
        the parameters.
      rule: "adam" for rules whose steps do not depend on the gradient's scale, entry by entry;
        "sgd" for those linear in the gradient; "orthogonal" for Muon's kind without a factor of
        the shape of its own.
      other_shapes: the same for the model in another width than the base's: tells widths from other
        axes where a width of the parameters equals the base's. By default the parameters do.
      inverse: divide instead: for an L2 decay that is added to the gradient before Adam.
      axes: which axes are inputs, outputs and stacked layers; see `optzoo.primitives.axes`.

    Returns:
      A stateless transformation.

    Raises:
      ValueError: for an unknown rule, or from `update` where a leaf has no base or one of another
        rank.

    Source: Yang et al. 2022, arXiv 2203.03466, in the form of microsoft/mup.
    """

    def scaled(updates, _):
        def scale(x, growth):
            factor = _factor(rule, growth)
            return x * jnp.asarray(1 / factor if inverse else factor, x.dtype)

        return jax.tree.map(scale, updates, _growths(axes, base_shapes, other_shapes, updates))

    return optax.stateless(scaled)


def width_init(
    params: Tree,
    base_shapes: Shapes,
    *,
    other_shapes: Shapes | None = None,
    axes: AxesLike = None,
) -> Tree:
    """First weights for µP from those with variance 1/fan-in, which most initialisers give.

    Rule:
      heads, whose inputs alone are a width, times √i, i how many times more than the base's
      all other leaves as they are

    Outputs begin the smaller the wider the model is, for `width_readout` divides them by i.

    Args:
      params: the parameters as initialised.
      base_shapes, other_shapes, axes: as in `scale_by_width`.

    Returns:
      The parameters to start from.

    Raises:
      ValueError: where a leaf has no base, or one of another rank.

    Source: Yang et al. 2022, arXiv 2203.03466, in the form of microsoft/mup.
    """
    return _scaled_heads(0.5, params, _growths(axes, base_shapes, other_shapes, params))


def width_readout(
    params: Tree,
    base_shapes: Shapes,
    *,
    other_shapes: Shapes | None = None,
    axes: AxesLike = None,
) -> Tree:
    """The parameters to call a model with under µP: its heads' outputs are divided by their width.

    Rule:
      heads, whose inputs alone are a width, times 1/i, i how many times more than the base's
      all other leaves as they are

    It belongs inside the loss, `loss(model.apply(width_readout(params, narrow), batch))`, so that
    gradients pass through it, and wherever the model is evaluated; training keeps `params`.

    Args:
      params: the parameters in training.
      base_shapes, other_shapes, axes: as in `scale_by_width`.

    Returns:
      The parameters that the model computes with. Biases of heads are not divided.

    Raises:
      ValueError: where a leaf has no base, or one of another rank.

    Source: Yang et al. 2022, arXiv 2203.03466, table 8, in the form of microsoft/mup.
    """
    return _scaled_heads(-1, params, _growths(axes, base_shapes, other_shapes, params))


def _scaled_heads(power: float, params: Tree, growths: Tree) -> Tree:
    """Heads times a power of how many times more inputs they have than the base's."""

    def scaled(p, growth):
        return p * jnp.asarray(growth.inputs**power if growth.is_head else 1, p.dtype)

    return jax.tree.map(scaled, params, growths)
