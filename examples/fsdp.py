"""Parameters, optimizer state and batches sharded over a mesh (FSDP), on 8 virtual CPU devices."""

import argparse

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec as P

import optzoo

LAYERS, WIDTH = 4, 256


def init(key):
    """A residual network; `layers` stacks equal layers for `lax.scan`, as flax's nn.scan does."""
    layers, head = jax.random.split(key)
    return {
        "layers": {"kernel": jax.random.normal(layers, (LAYERS, WIDTH, WIDTH)) / WIDTH**0.5},
        "head": {"kernel": jax.random.normal(head, (WIDTH, 16)) / WIDTH**0.5},
    }


def main(steps: int) -> None:
    # On real accelerators remove these two lines: they make eight devices out of one CPU.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    jax.set_mesh(mesh)
    # One kernel alone cannot show that its first axis counts layers.
    axes = {"layers": optzoo.Axes((1,), (2,), batch=(0,)), "head": optzoo.Axes((0,), (1,))}
    tx = optzoo.muon(optax.cosine_decay_schedule(0.02, steps), axes=axes)

    def sharding(leaf):
        return NamedSharding(mesh, P(*[None] * (leaf.ndim - 2), "data", None))

    shardings = jax.tree.map(sharding, jax.eval_shape(init, jax.random.key(0)))
    params = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
    # Outside jit the state takes the parameters' shardings; inside, XLA might replicate its zeros.
    state = tx.init(params)

    def loss(params, inputs, labels):
        def layer(x, kernel):
            return x + jax.nn.relu(x @ kernel), None

        x, _ = jax.lax.scan(layer, inputs, params["layers"]["kernel"])
        scores = x @ params["head"]["kernel"]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @jax.jit
    def step(params, state, inputs, labels):
        value, grads = jax.value_and_grad(loss)(params, inputs, labels)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    inputs = jax.random.normal(jax.random.key(1), (512, WIDTH))
    labels = jnp.argmax(inputs @ jax.random.normal(jax.random.key(2), (WIDTH, 16)), axis=1)
    inputs, labels = jax.device_put((inputs, labels), NamedSharding(mesh, P("data")))
    print(optzoo.describe(tx, params), end="\n\n")
    for index in range(steps):
        params, state, value = step(params, state, inputs, labels)
        # This, too, is for virtual devices alone: they deadlock with many steps under way.
        value.block_until_ready()
        if index % max(1, steps // 5) == 0:
            print(f"step {index}: loss {value:.3f}")
    for path, leaf in jax.tree.leaves_with_path(state):
        if leaf.ndim > 1:
            print(f"{jax.tree_util.keystr(path)}: {leaf.shape} as {leaf.sharding.spec}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    main(**vars(parser.parse_args()))
