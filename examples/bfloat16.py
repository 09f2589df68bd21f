"""bfloat16 parameters: what is lost without help, with master weights, with stochastic rounding."""

import argparse

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_diabetes

import optzoo


def main(steps: int) -> None:
    data = load_diabetes(scaled=False)
    inputs = jnp.asarray((data.data - data.data.mean(0)) / data.data.std(0), jnp.float32)
    targets = jnp.asarray((data.target - data.target.mean()) / data.target.std(), jnp.float32)

    def loss(params):
        errors = inputs @ params["kernel"].astype(jnp.float32) + params["bias"] - targets
        return jnp.mean(errors**2)

    def train(tx, dtype):
        params = {"kernel": jnp.ones(inputs.shape[1], dtype), "bias": jnp.ones((), dtype)}

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        start = params, tx.init(params)
        (params, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))(start)
        return loss(params)

    tx = optzoo.grams(1e-3)
    print(f"float32:             {train(tx, jnp.float32):.4f}")
    print(f"bfloat16:            {train(tx, jnp.bfloat16):.4f}")
    print(f"  master_weights:    {train(optzoo.master_weights(tx), jnp.bfloat16):.4f}")
    print(f"  stochastic_round:  {train(optzoo.stochastic_round(tx, 0), jnp.bfloat16):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    main(**vars(parser.parse_args()))
