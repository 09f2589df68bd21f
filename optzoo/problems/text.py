"""Language modelling on text that every Python installation carries."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.problems.base import Problem, problem

PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"


def encode(text: str) -> np.ndarray:
    """The text as indices into `PRINTABLE`; any other character counts as a question mark."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.full(128, PRINTABLE.index("?"), np.int32)
    table[[ord(character) for character in PRINTABLE]] = np.arange(len(PRINTABLE))
    return table[np.where(codes < 128, codes, ord("?"))]


@problem
def language() -> Problem:
    """A small transformer learns to write Python's reference manual, letter by letter.

    The text is `pydoc_data.topics` of the running Python, about 465 000 characters: the first 90 %
    for training, the rest for validation and test. One block of attention with two heads, width
    32, 32 characters of context, batches of 8 windows. Tells apart who trains embeddings,
    attention and a wide output layer at once.
    """
    from pydoc_data.topics import topics

    from flax import linen as nn

    width, heads, context, batch_size, held_out = 32, 2, 32, 8, 32
    text = jnp.asarray(encode("\n".join(topics[key] for key in sorted(topics))))
    train_size = len(text) * 9 // 10
    offsets = np.linspace(train_size, len(text) - context - 1, 2 * held_out, dtype=int)
    windows = text[offsets[:, None] + np.arange(context + 1)]
    splits = {"validation": windows[0::2], "test": windows[1::2]}

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            size, wide = len(PRINTABLE), 4 * width
            normal = nn.initializers.normal(0.02)
            places = self.param("position_embedding", normal, (context, width))
            x = nn.Embed(size, width, name="embedding")(tokens) + places[None]
            mask = nn.make_causal_mask(tokens)
            x = x + nn.MultiHeadDotProductAttention(heads, name="attention")(
                nn.LayerNorm(name="norm_1")(x), mask=mask
            )
            hidden = nn.Dense(wide, name="up")(nn.LayerNorm(name="norm_2")(x))
            x = x + nn.Dense(width, name="down")(nn.gelu(hidden))
            return nn.Dense(size, name="head")(nn.LayerNorm(name="norm_3")(x))

    model = Transformer()

    def init(key):
        return model.init(key, windows[:1, :-1])["params"]

    def batch(key):
        starts = jax.random.randint(key, (batch_size,), 0, train_size - context)
        return text[starts[:, None] + jnp.arange(context + 1)[None]]

    def loss(params, tokens):
        logits = model.apply({"params": params}, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def evaluate(params, split):
        return {"loss": loss(params, splits[split])}

    return Problem(init, loss, evaluate, steps=200, target=2.6, batch=batch)
