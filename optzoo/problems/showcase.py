"""Small problems with one difficulty each, for which some rule was made."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.problems.base import Problem, problem
from optzoo.problems.landscapes import landscape
from optzoo.problems.losses import stablemax_cross_entropy
from optzoo.problems.sequences import addition
from optzoo.problems.vision import digit_splits

Rows = tuple[jax.Array, jax.Array]


def _perceptron(
    sizes: Sequence[int],
    rows: Rows,
    held_out: dict[str, Rows],
    error: Callable[[jax.Array, jax.Array], jax.Array],
    report: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]],
    *,
    batch_size: int,
    steps: int,
    target: float,
) -> Problem:
    """A perceptron with ReLUs on fixed rows.

    Args:
      sizes: of its layers, inputs and outputs included.
      rows, held_out: inputs and labels, for training and by the names of the other splits.
      error: outputs, labels -> the loss.
      report: a function of inputs, outputs and labels -> what `Problem.evaluate` returns besides.
      batch_size: rows a step; all of them where there are no more.
      steps, target: as in `Problem`.
    """
    inputs, labels = rows

    def init(key):
        keys = jax.random.split(key, len(sizes) - 1)
        widths = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return {
            f"layers_{i}": {
                "kernel": jax.random.normal(key, (into, out)) * (2 / into) ** 0.5,
                "bias": jnp.zeros(out),
            }
            for i, (key, into, out) in enumerate(widths)
        }

    def batch(key):
        if batch_size >= len(labels):
            return rows
        which = jax.random.randint(key, (batch_size,), 0, len(labels))
        return inputs[which], labels[which]

    def outputs(params, batch):
        x = batch[0]
        for i in range(len(sizes) - 1):
            layer = params[f"layers_{i}"]
            x = (x if i == 0 else jax.nn.relu(x)) @ layer["kernel"] + layer["bias"][None]
        return x

    def criterion(outputs, batch):
        return error(outputs, batch[1])

    def loss(params, batch):
        return criterion(outputs(params, batch), batch)

    def evaluate(params, split):
        found = outputs(params, held_out[split])
        more = report(lambda x: outputs(params, (x, None)), found, held_out[split][1])
        return {"loss": error(found, held_out[split][1])} | more

    return Problem(
        init, loss, evaluate, steps, target, batch=batch, outputs=outputs, criterion=criterion
    )


def _share(right: jax.Array, among: Any = True) -> jax.Array:
    """How much of what `among` chooses is right."""
    return jnp.mean(right.astype(jnp.float32), where=jnp.asarray(among))


@problem("showcase")
def imbalance() -> Problem:
    """Handwritten digits of which nines are a hundred times rarer than zeros.

    The training images of `digits`, thinned from 100 zeros to a single nine in equal ratios; held
    out are about equally many of each. Objectives are the classes' losses. Reported beside the loss
    is the accuracy on sevens, eights and nines, which plain training gives up: for SAM, which is
    said to help them (Rangwani et al., arXiv:2212.13827), and for per-class normalisation (Francazi
    et al., arXiv:2207.00391).
    """
    classes, rare = 10, 7
    (images, labels), held_out = digit_splits()
    counts = np.rint(np.geomspace(100, 1, classes)).astype(int)
    chosen = np.concatenate(
        [np.flatnonzero(np.asarray(labels) == k)[:count] for k, count in enumerate(counts)]
    )

    def errors(outputs, labels):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def report(model, outputs, labels):
        right = outputs.argmax(-1) == labels
        return {"accuracy": _share(right), "minority_accuracy": _share(right, labels >= rare)}

    task = _perceptron(
        (64, 32, classes),
        (images[chosen], labels[chosen]),
        held_out,
        lambda outputs, labels: errors(outputs, labels).mean(),
        report,
        batch_size=64,
        steps=400,
        target=1.1,
    )

    def objectives(params, batch):
        each = errors(task.outputs(params, batch), batch[1])
        # Their mean is the batch's.
        return classes * jax.nn.one_hot(batch[1], classes).T @ each / len(each)

    return dataclasses.replace(task, objectives=objectives)


@problem("showcase")
def separable() -> Problem:
    """Logistic regression on points that a plane divides, with a narrow gap.

    Sixty-four points on the unit sphere in eight dimensions, none nearer to the plane than a
    twentieth; all of them every step, and the loss reported is that of training. It falls for ever
    as the weights grow, and the larger the step, the sooner: steps at which the loss goes up and
    down first are the fast ones (Wu et al., arXiv:2402.15926). Tells apart whose steps may be huge.
    """
    count, size, gap = 64, 8, 0.05
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40 * count, size))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    signs = np.where(points[:, 0] > 0, 1.0, -1.0)
    far = np.flatnonzero(np.abs(points[:, 0]) >= gap)
    # The nearest ones, so that the gap is what it is said to be.
    near = far[np.argsort(np.abs(points[far, 0]))[:count]]
    signed = jnp.asarray(points[near] * signs[near, None], jnp.float32)

    def loss(params, batch):
        return jax.nn.softplus(-(signed @ params["kernel"])[:, 0]).mean()

    def evaluate(params, split):
        wrong = (signed @ params["kernel"])[:, 0] <= 0
        return {"loss": loss(params, None), "error": wrong.astype(jnp.float32).mean()}

    def init(key):
        return {"kernel": 0.1 * jax.random.normal(key, (size, 1))}

    return Problem(init, loss, evaluate, steps=500, target=0.05)


@problem("showcase")
def opposing_outliers() -> Problem:
    """A few examples share one large feature and have opposite labels.

    Each class is told by a small shift in ten of twenty directions; one example in ten, of either
    class, has besides the number 20 in a direction where the others have nothing. Those examples
    pull the weights of that direction to both sides with forces far above all others, so that they
    rule the curvature and with it the steps (Rosenfeld and Risteski, arXiv:2311.04163). Batches of
    32 of 400 examples. Reported beside the loss is the accuracy on the outliers: tells apart who
    does not swing.
    """
    count, size, shifted, large, shift = 400, 20, 10, 20.0, 0.4
    outliers = np.arange(count) % 20 < 2

    def points(seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        x = rng.normal(size=(count, size))
        x[:, 0] = np.where(outliers, large, 0.0)
        x[:, 1 : 1 + shifted] += shift * (2 * labels[:, None] - 1)
        return jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.float32)

    def errors(outputs, labels):
        return optax.sigmoid_binary_cross_entropy(outputs[:, 0], labels)

    held_out = {"validation": points(1), "test": points(2)}

    def report(model, outputs, labels):
        right = (outputs[:, 0] > 0) == (labels > 0)
        return {"accuracy": _share(right), "outlier_accuracy": _share(right, outliers)}

    return _perceptron(
        (size, 32, 1),
        points(0),
        held_out,
        lambda outputs, labels: errors(outputs, labels).mean(),
        report,
        batch_size=32,
        steps=400,
        target=0.3,
    )


@problem("showcase")
def edge_of_stability() -> Problem:
    """A network of four scalar weights in two pairs, started where it is too steep to stay.

    f(x, y) = ½ (x²y² - 1)², lowest along xy = 1, here from about (4, 0.2). There the curvature
    along the valley falls from 64 to 8 towards (1, 1): gradient descent at a rate η swings out of
    all places steeper than 2/η and slides down to where it is just stable (Zhu et al.,
    arXiv:2210.03294). Reported beside the loss is the largest curvature.
    """

    def height(point):
        x, y = point
        return (x**2 * y**2 - 1) ** 2 / 2

    task = landscape(
        height,
        (4.0, 0.2),
        (1.0, 1.0),
        steps=500,
        target=1e-4,
        spread=0.02,
        box=(0.0, 5.0, -1.0, 3.0),
    )

    def evaluate(params, split):
        (a, b), (_, c) = jax.hessian(height)(params["point"])
        sharpness = (a + c) / 2 + jnp.sqrt((a - c) ** 2 / 4 + b**2)
        return task.evaluate(params, split) | {"sharpness": sharpness}

    return dataclasses.replace(task, evaluate=evaluate)


@problem("showcase")
def conflicting() -> Problem:
    """Two objectives that cannot both be lowest, one of them counted tenfold.

    f₁ and f₂ are the same quadratic bowl in eight dimensions, a hundred times steeper one way than
    another, around two places; f₁ is multiplied by ten. The loss is their mean; reported is the
    worse of the two without the factor, lowest half-way; the target is twice that. Who follows the
    mean ends at the first place; tells apart who lets neither rise for the other: for `upgrad` and
    its kin.
    """
    size, factors = 8, jnp.asarray([10.0, 1.0])
    steepness = jnp.asarray(np.geomspace(1, 0.01, size), jnp.float32)
    middle, apart = (
        jnp.asarray(x, jnp.float32) for x in np.random.default_rng(0).normal(size=(2, size))
    )

    def heights(params):
        away = params["point"][None] - jnp.stack([middle + apart, middle - apart])
        return away**2 @ steepness / 2

    def evaluate(params, split):
        first, second = heights(params)
        return {"loss": jnp.maximum(first, second), "first": first, "second": second}

    lowest = float(apart**2 @ steepness / 2)
    return Problem(
        init=lambda key: {"point": middle + 5 * jax.random.normal(key, (size,))},
        loss=lambda params, batch: (factors * heights(params)).mean(),
        evaluate=evaluate,
        objectives=lambda params, batch: factors * heights(params),
        steps=1000,
        target=2 * lowest,
        solution={"point": middle},
        lowest=lowest,
    )


@problem("showcase")
def flipped_xor() -> Problem:
    """Four clusters with the labels of XOR, one in eight of them flipped, and room to memorise all.

    160 examples in 40 dimensions around ±a, labelled 1, and ±b, labelled 0, for right-angled a and
    b of length 6; a perceptron with 64 ReLUs, all examples every step. Held out are clean labels.
    The network fits the flipped ones at last; reported beside the loss is the share of them that
    it has taken in. Tells apart who finds the clusters first, and whose fit to wrong labels harms
    little (Xu et al., arXiv:2310.02541).
    """
    count, size, length, every = 160, 40, 6.0, 8

    def points(seed, count):
        rng = np.random.default_rng(seed)
        which = np.arange(count) % 4
        x = rng.normal(size=(count, size))
        x[np.arange(count), which % 2] += np.where(which < 2, length, -length)
        return jnp.asarray(x, jnp.float32), jnp.asarray(1 - which % 2, jnp.float32)

    inputs, clean = points(0, count)
    flipped = jnp.arange(count) // 4 % every == 0
    held_out = {"validation": points(1, 1000), "test": points(2, 1000)}

    def error(outputs, labels):
        return optax.sigmoid_binary_cross_entropy(outputs[:, 0], labels).mean()

    def report(model, outputs, labels):
        fitted = (model(inputs)[:, 0] > 0) != (clean > 0)
        right = (outputs[:, 0] > 0) == (labels > 0)
        return {"accuracy": _share(right), "flipped_fitted": _share(fitted, flipped)}

    return _perceptron(
        (size, 64, 1),
        (inputs, jnp.where(flipped, 1 - clean, clean)),
        held_out,
        error,
        report,
        batch_size=count,
        steps=400,
        target=0.25,
    )


@problem("showcase")
def grokking_stablemax() -> Problem:
    """The additions of `modular_addition` under StableMax in place of softmax.

    Softmax's loss goes on falling while the logits merely grow, until float32 rounds what is left
    of it to nothing and learning stops before the rule is found; StableMax's does not (Prieto et
    al., arXiv:2501.04697). Tells apart, beside `modular_addition`, who needs weight decay to get
    there.
    """
    return addition(stablemax_cross_entropy, target=0.5)


@problem("showcase")
def memory() -> Problem:
    """A recurrent network adds two of thirty numbers.

    Each step brings a number from 0 to 1 and a mark; the answer is the sum of the two that are
    marked, one in each half. Thirty-two units with ReLUs whose recurrent matrix starts as the
    identity (Le et al., arXiv:1504.00941), batches of 32 fresh sequences. Who answers 1 always has
    the loss 1/6. Gradients through thirty steps are now and then enormous: for clipping by norm
    (Pascanu et al., arXiv:1211.5063) and whatever else bounds a step.
    """
    units, length, batch_size, held_out = 32, 30, 32, 512

    def sequences(key, count):
        values, first, second = jax.random.split(key, 3)
        numbers = jax.random.uniform(values, (count, length))
        places = jnp.stack(
            [
                jax.random.randint(first, (count,), 0, length // 2),
                jax.random.randint(second, (count,), length // 2, length),
            ]
        )
        marks = jax.nn.one_hot(places, length).sum(0)
        return jnp.stack([numbers, marks], axis=-1), (numbers * marks).sum(1)

    splits = {
        name: sequences(jax.random.key(i), held_out)
        for i, name in enumerate(("validation", "test"), 1)
    }

    def init(key):
        into, out = jax.random.split(key)
        return {
            "input": {
                "kernel": 0.1 * jax.random.normal(into, (2, units)),
                "bias": jnp.zeros(units),
            },
            "recurrent": {"kernel": jnp.eye(units)},
            "head": {"kernel": 0.1 * jax.random.normal(out, (units, 1)), "bias": jnp.zeros(1)},
        }

    def outputs(params, batch):
        def step(state, x):
            fed = x @ params["input"]["kernel"] + params["input"]["bias"][None]
            return jax.nn.relu(fed + state @ params["recurrent"]["kernel"]), None

        x = batch[0].swapaxes(0, 1)
        last, _ = jax.lax.scan(step, jnp.zeros((x.shape[1], units), x.dtype), x)
        return (last @ params["head"]["kernel"] + params["head"]["bias"][None])[:, 0]

    def criterion(outputs, batch):
        return jnp.mean((outputs - batch[1]) ** 2)

    def loss(params, batch):
        return criterion(outputs(params, batch), batch)

    return Problem(
        init,
        loss,
        evaluate=lambda params, split: {"loss": loss(params, splits[split])},
        steps=800,
        target=0.1,
        batch=lambda key: sequences(key, batch_size),
        outputs=outputs,
        criterion=criterion,
    )
