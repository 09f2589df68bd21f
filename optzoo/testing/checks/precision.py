"""Half precision over thousands of steps: nothing stagnates."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.testing.check import check, fail
from optzoo.testing.subject import Subject
from optzoo.testing.trees import cast, leaves_with_path, numbers

STEPS = 2000


@check(
    "2000 steps in bfloat16 end as near as rounding the parameters alone allows",
    "train bfloat16 parameters for 2000 steps on ½|p − target|² with noisy gradients",
)
def bfloat16_tracks_float32(subject: Subject) -> str:
    start = subject.params
    target, noise = _problem(start)
    train = jax.jit(partial(_train, subject))
    run32, rounded = (train(start, target, noise, flag) for flag in (False, True))
    run16 = train(cast(start, jnp.bfloat16), target, noise, False)
    losses = [float(loss) for loss, _ in (run16, run32, rounded)]
    allowed = 2 * max(losses[1:]) + 1e-3 * float(_loss(start, target))
    if not losses[0] <= allowed:
        fail(
            f"in bfloat16 the loss stays at {losses[0]:.3g} where float32 reaches "
            f"{losses[1]:.3g}, and {losses[2]:.3g} with rounded parameters"
        )
    _states_agree(run16[1], run32[1], rounded[1])
    return f"loss {losses[0]:.2g} against {losses[1]:.2g} in float32"


def _problem(params: Any) -> tuple[Any, Any]:
    """A target half a unit away, and gradient noise that falls to a tenth.

    The fall shows averages that forget too slowly, as the start shows those that do not grow.
    """
    rng = np.random.default_rng(3)
    scale = np.where(np.arange(STEPS) < STEPS // 10, 3.0, 0.3)

    def near(leaf):
        return leaf + jnp.asarray(0.5 * rng.standard_normal(leaf.shape), leaf.dtype)

    def noisy(leaf):
        steps = rng.standard_normal((STEPS, *leaf.shape))
        return jnp.asarray(steps * scale.reshape(-1, *[1] * leaf.ndim), jnp.float32)

    return jax.tree.map(near, params), jax.tree.map(noisy, params)


def _loss(params: Any, target: Any) -> jax.Array:
    differences = jax.tree.map(lambda p, t: p.astype(jnp.float32) - t, params, target)
    return 0.5 * optax.tree.sum(jax.tree.map(jnp.square, differences))


def _train(subject: Subject, params: Any, target: Any, noise: Any, rounding: Any) -> tuple:
    """The mean loss of the last tenth, and the last state."""

    def step(carry, noise):
        params, state = carry

        def gradient(p, t, n):
            return (p.astype(jnp.float32) - t + n).astype(p.dtype)

        gradients = jax.tree.map(gradient, params, target, noise)
        updates, state = subject.update(gradients, state, params)
        moved = optax.apply_updates(params, updates)

        def stored(p):
            return jnp.where(rounding, p.astype(jnp.bfloat16).astype(p.dtype), p)

        shown = moved
        if subject.eval_params is not None:
            shown = subject.eval_params(state, moved)
        return (jax.tree.map(stored, moved), state), _loss(shown, target)

    (_, state), losses = jax.lax.scan(step, (params, subject.tx.init(params)), noise)
    return losses[-STEPS // 10 :].mean(), state


def _states_agree(half: Any, full: Any, rounded: Any) -> None:
    """Compares what grows: counts, sums, distances and second moments, all never negative."""
    references = [dict(leaves_with_path(tree)) for tree in (full, rounded)]
    for path, leaf in leaves_with_path(half):
        # What keeps float32 copies of half-precision parameters has leaves of its own.
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or path not in references[0]:
            continue
        grown = [numbers(x) for x in (leaf, *(r[path] for r in references))]
        if not leaf.size or any((x < 0).any() for x in grown):
            continue
        mine, *sizes = (float(x.mean()) for x in grown)
        if not min(sizes) / 1.5 <= mine <= 1.5 * max(sizes):
            fail(
                f"in bfloat16 the state leaf {path} stagnates: its mean is {mine:.3g} after "
                f"{STEPS} steps instead of {sizes[0]:.3g}"
            )
