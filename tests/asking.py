"""One small rule of each kind that asks `update` for more than gradients, state and parameters."""

import jax
import jax.numpy as jnp
import optax

from optzoo.primitives.base import require, require_params, transformation


@transformation
def polyak(learning_rate=0.1) -> optax.GradientTransformation:
    """Asks for `value`: steps as long as the loss over the gradient's norm."""

    def update(updates, state, params=None, **extra_args):
        value = require(extra_args, "value", "polyak")
        scale = learning_rate * value / (1 + optax.tree.norm(updates, squared=True))
        return jax.tree.map(lambda g: -scale.astype(g.dtype) * g, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


@transformation
def ahead(learning_rate=0.1, *, radius=0.05) -> optax.GradientTransformation:
    """Asks for `value_fn`: the gradient a little further uphill, leaf by leaf."""

    def update(updates, state, params=None, **extra_args):
        require_params(params, "ahead")
        value_fn = require(extra_args, "value_fn", "ahead")
        uphill = jax.tree.map(lambda p, g: p + radius * g, params, updates)
        return optax.tree.scale(-learning_rate, jax.grad(value_fn)(uphill)), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


@transformation
def curved(learning_rate=1.0) -> optax.GradientTransformation:
    """Asks for `outputs_fn` and `loss_fn`: the minimum of the Gauss-Newton model downhill."""

    def update(updates, state, params=None, **extra_args):
        require_params(params, "curved")
        outputs_fn = require(extra_args, "outputs_fn", "curved")
        loss_fn = require(extra_args, "loss_fn", "curved")
        outputs, along = jax.jvp(outputs_fn, (params,), (updates,))
        _, turned = jax.jvp(jax.grad(loss_fn), (outputs,), (along,))
        curvature = jnp.vdot(along, turned) + 1e-12
        scale = learning_rate * optax.tree.norm(updates, squared=True) / curvature
        return jax.tree.map(lambda g: -scale.astype(g.dtype) * g, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


@transformation
def agreeing(learning_rate=0.1) -> optax.GradientTransformation:
    """Asks for `gradients`: the mean of the objectives' where their signs agree."""

    def update(updates, state, params=None, **extra_args):
        gradients = require(extra_args, "gradients", "agreeing")

        def together(g):
            agree = jnp.abs(jnp.sign(g).sum(0)) == len(g)
            return -learning_rate * jnp.where(agree, g.mean(0), 0.0)

        return jax.tree.map(together, gradients), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


@transformation
def noisy(learning_rate=0.1, *, scale=0.01) -> optax.GradientTransformation:
    """Keeps a key in its state: gradients with noise."""

    def init(params):
        del params
        return jax.random.key(0)

    def update(updates, key, params=None):
        leaves, structure = jax.tree.flatten(updates)
        key, *keys = jax.random.split(key, 1 + len(leaves))

        def moved(g, key):
            return -learning_rate * (g + scale * jax.random.normal(key, g.shape, g.dtype))

        return structure.unflatten(map(moved, leaves, keys)), key

    return optax.GradientTransformation(init, update)


RULES = {
    polyak: ("value",),
    ahead: ("value_fn",),
    curved: ("outputs_fn", "loss_fn"),
    agreeing: ("gradients",),
    noisy: (),
}
