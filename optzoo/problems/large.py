"""A problem of the size at which claims about language models begin to mean something."""

import sys
from functools import cache
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.problems.base import LARGE, Problem, problem
from optzoo.problems.sequences import PRINTABLE, encode, next_letter

PIECE, HELD_OUT = 4096, 20


@cache
def _sources() -> np.ndarray:
    """The encoded sources of the standard library's modules of one file, in alphabetical order."""
    parts = []
    for name in sorted(sys.stdlib_module_names):
        # Builds may leave modules out; packages hold their tests and tables.
        spec = find_spec(name) if name not in ("this", "antigravity") else None
        if spec and spec.submodule_search_locations is None and spec.has_location:
            source = getattr(spec.loader, "get_source", lambda name: None)(name)
            parts.append(source or "")
    return encode("\n".join(parts))


@cache
def _pieces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The text for training, validation and test: of twenty pieces eighteen, one and one."""
    text = _sources()
    pieces = text[: len(text) // PIECE * PIECE].reshape(-1, PIECE)
    places = np.arange(len(pieces)) % HELD_OUT
    return pieces[places < HELD_OUT - 2].reshape(-1), *(
        pieces[places == HELD_OUT - k] for k in (2, 1)
    )


def rotated(x: jax.Array) -> jax.Array:
    """Rotary positions: pairs of numbers turned by angles that grow with the place in the window.

    Args:
      x: queries or keys, shape (batch, places, heads, size), of even size.
    """
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * 1e4 ** (-np.arange(half) / half)
    sine, cosine = (jnp.asarray(f(angles)[None, :, None], x.dtype) for f in (np.sin, np.cos))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], -1)


def language_model(
    *, width: int, depth: int, heads: int, context: int, batch_size: int, steps: int, target: float
) -> Problem:
    """A GPT on the letters of the standard library's sources.

    Args:
      width, depth, heads: of the network.
      context: letters that it sees.
      batch_size: windows a step.
      steps, target: as in `Problem`.
    """
    from flax import linen as nn

    training, *held_out = _pieces()
    text = jnp.asarray(training)
    splits = {
        split: jnp.asarray(pieces[:: max(1, len(pieces) // 32), : context + 1])
        for split, pieces in zip(("validation", "test"), held_out, strict=True)
    }
    usual = nn.initializers.normal(0.02)
    # Each block adds to the stream twice; so the stream starts as wide as after the embedding.
    residual = nn.initializers.normal(0.02 / (2 * depth) ** 0.5)

    def dense(features, name, init=usual):
        return nn.Dense(features, use_bias=False, kernel_init=init, name=name)

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.RMSNorm(name="norm_1")(x)
            shape = (*y.shape[:2], heads, width // heads)
            query, key, value = (
                dense(width, name)(y).reshape(shape) for name in ("query", "key", "value")
            )
            y = jax.nn.dot_product_attention(rotated(query), rotated(key), value, is_causal=True)
            x = x + dense(width, "out", residual)(y.reshape(x.shape))
            hidden = nn.gelu(dense(4 * width, "up")(nn.RMSNorm(name="norm_2")(x)))
            return x + dense(width, "down", residual)(hidden)

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            size = len(PRINTABLE)
            x = nn.Embed(size, width, embedding_init=usual, name="embedding")(tokens)
            for i in range(depth):
                x = Block(name=f"block_{i}")(x)
            return dense(size, "head")(nn.RMSNorm(name="norm")(x))

    return next_letter(Transformer(), text, splits, batch_size, steps, target)


@problem(LARGE)
def gpt() -> Problem:
    """A GPT of a million parameters learns to write Python, letter by letter.

    Five blocks of width 128 with four heads, RMS norm, rotary positions, no biases, and the usual
    start: normal weights of 0.02, those that add to the stream smaller by the root of twice the
    depth. Windows of 128 letters, eight a step, from the sources of the running Python's standard
    library, about five million letters: of twenty pieces eighteen train, one is validation and one
    test. The matrices hold nearly all parameters, as in a large model, so that rules that treat
    them as matrices have something to work on.

    What it cannot tell: a few hundred steps are the beginning of training, where every rule is
    ahead that moves fast; nothing here is about the end of a long run, weight decay, batches of
    many thousand tokens, wide layers or tokens that are words, and letters of program code are
    easier than any of them. Another version of Python is another text, so that losses compare
    only within one. Its verdict on a new rule is a reason to try it where it counts, no more.
    """
    return language_model(
        width=128, depth=5, heads=4, context=128, batch_size=8, steps=500, target=2.1
    )
