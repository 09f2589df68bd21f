"""A small transformer by Muon: hidden matrices orthogonalised, all else to Adam, printed first."""

import argparse
import pydoc_data.topics

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import optzoo

WIDTH, LENGTH, VOCABULARY = 64, 64, 128


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        mask = nn.make_causal_mask(x[..., 0])
        attend = nn.MultiHeadDotProductAttention(num_heads=4, name="attention")
        x += attend(nn.LayerNorm()(x), mask=mask)
        hidden = nn.gelu(nn.Dense(4 * WIDTH, name="mlp_in")(nn.LayerNorm()(x)))
        return x + nn.Dense(WIDTH, name="mlp_out")(hidden)


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, WIDTH, name="embedding")(tokens)
        x += self.param("positions", nn.initializers.normal(0.02), (LENGTH, WIDTH))[None]
        for index in range(2):
            x = Block(name=f"block_{index}")(x)
        return nn.Dense(VOCABULARY, name="head")(nn.LayerNorm()(x))


def main(steps: int) -> None:
    text = "".join(pydoc_data.topics.topics.values()).encode("ascii", "ignore")
    stream = jnp.frombuffer(text, jnp.uint8).astype(jnp.int32)
    model = Transformer()
    params = model.init(jax.random.key(0), stream[None, :LENGTH])["params"]
    tx = optzoo.muon(optax.warmup_cosine_decay_schedule(0, 0.02, steps // 10, steps))
    print(optzoo.describe(tx, params))

    @jax.jit
    def step(params, state, key):
        starts = jax.random.randint(key, (16,), 0, len(stream) - LENGTH)
        windows = stream[starts[:, None] + jnp.arange(LENGTH + 1)[None]]

        def loss(params):
            scores = model.apply({"params": params}, windows[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(scores, windows[:, 1:]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state = tx.init(params)
    for index, key in enumerate(jax.random.split(jax.random.key(1), steps)):
        params, state, loss = step(params, state, key)
        if index % max(1, steps // 10) == 0:
            print(f"step {index}: loss {loss:.3f}")
    print(f"last loss {loss:.3f} nats a character")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    main(**vars(parser.parse_args()))
