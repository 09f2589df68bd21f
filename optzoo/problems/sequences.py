"""Networks on tokens and on synthetic data of known law."""

from collections.abc import Callable, Mapping
from typing import Any

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


def block(x: jax.Array, *, heads: int, mask: Any) -> jax.Array:
    """A transformer block, within the compact method of a flax module."""
    from flax import linen as nn

    width = x.shape[-1]
    x = x + nn.MultiHeadDotProductAttention(heads, name="attention")(
        nn.LayerNorm(name="norm_1")(x), mask=mask
    )
    hidden = nn.Dense(4 * width, name="up")(nn.LayerNorm(name="norm_2")(x))
    return x + nn.Dense(width, name="down")(nn.gelu(hidden))


@problem("neural", default=True)
def language() -> Problem:
    """A small transformer learns to write Python's reference manual, letter by letter.

    The text is `pydoc_data.topics` of the running Python, about 465 000 characters: the first 90 %
    for training, the rest for validation and test. One block of attention with two heads, width
    32, 32 characters of context, batches of 8 windows. Tells apart who trains embeddings,
    attention and a wide output layer at once.
    """
    return manual_reader()


def manual_reader(*, width: int = 32, batch_size: int = 8, held_out: int = 32) -> Problem:
    """The problem `language` in other sizes.

    Args:
      width: of the transformer.
      batch_size: windows a step.
      held_out: windows for validation, and as many for the test.
    """
    from pydoc_data.topics import topics

    from flax import linen as nn

    heads, context = 2, 32
    text = jnp.asarray(encode("\n".join(topics[key] for key in sorted(topics))))
    train_size = len(text) * 9 // 10
    offsets = np.linspace(train_size, len(text) - context - 1, 2 * held_out, dtype=int)
    windows = text[offsets[:, None] + np.arange(context + 1)]
    splits = {"validation": windows[0::2], "test": windows[1::2]}

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            size = len(PRINTABLE)
            normal = nn.initializers.normal(0.02)
            places = self.param("position_embedding", normal, (context, width))
            x = nn.Embed(size, width, name="embedding")(tokens) + places[None]
            x = block(x, heads=heads, mask=nn.make_causal_mask(tokens))
            return nn.Dense(size, name="head")(nn.LayerNorm(name="norm_3")(x))

    return next_letter(Transformer(), text[:train_size], splits, batch_size, 200, 2.6)


def next_letter(
    model: Any,
    text: jax.Array,
    splits: Mapping[str, jax.Array],
    batch_size: int,
    steps: int,
    target: float,
) -> Problem:
    """A model of letters as a problem: after each letter of a window, which one is next?

    Args:
      model: a flax module from letters to logits, (windows, places) to (windows, places, size).
      text: the encoded letters to train on.
      splits: windows for validation and test, of a place more than the model sees.
      batch_size: windows a step, from anywhere in the text.
      steps, target: as in `Problem`.
    """
    length = splits["test"].shape[1]

    def init(key):
        return model.init(key, splits["test"][:1, :-1])["params"]

    def batch(key):
        starts = jax.random.randint(key, (batch_size,), 0, len(text) - length + 1)
        return text[starts[:, None] + jnp.arange(length)[None]]

    def outputs(params, tokens):
        return model.apply({"params": params}, tokens[:, :-1])

    def criterion(logits, tokens):
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def loss(params, tokens):
        return criterion(outputs(params, tokens), tokens)

    def evaluate(params, split):
        return {"loss": loss(params, splits[split])}

    return Problem(
        init, loss, evaluate, steps, target, batch=batch, outputs=outputs, criterion=criterion
    )


@problem("neural")
def zipf() -> Problem:
    """A token model on words that are as unevenly frequent as those of real languages.

    The k-th of 128 words comes with a frequency proportional to 1 / k; nine times in ten the next
    one is its partner in a fixed permutation, else it is drawn anew. An embedding of width 32 and a
    linear head, batches of 64 pairs; reported beside the loss is its plain mean over all words,
    rare ones included. The target is an eighth of a nat above the entropy, the best possible loss.
    Tells apart who learns rare words, which gradient descent leaves for last (Kunstner et al.,
    arXiv:2402.19449).
    """
    from flax import linen as nn

    words, width, batch_size, held_out, faithful = 128, 32, 64, 1024, 0.9
    frequencies = 1 / np.arange(1, words + 1)
    frequencies /= frequencies.sum()
    partner = np.random.default_rng(0).permutation(words)
    following = (1 - faithful) * np.tile(frequencies, (words, 1))
    following[np.arange(words), partner] += faithful
    entropy = float(-(frequencies[:, None] * following * np.log(following)).sum())
    log_frequencies, log_following = (
        jnp.asarray(np.log(table), jnp.float32) for table in (frequencies, following)
    )

    def draw(key, count):
        first, second = jax.random.split(key)
        word = jax.random.categorical(first, log_frequencies, shape=(count,))
        return word, jax.random.categorical(second, log_following[word])

    splits = {
        "validation": draw(jax.random.key(1), held_out),
        "test": draw(jax.random.key(2), held_out),
    }
    every = jnp.arange(words), jnp.asarray(partner)
    model = nn.Sequential([nn.Embed(words, width, name="embedding"), nn.Dense(words, name="head")])

    def init(key):
        return model.init(key, every[0])["params"]

    def batch(key):
        return draw(key, batch_size)

    def loss(params, pair):
        word, following = pair
        logits = model.apply({"params": params}, word)
        return optax.softmax_cross_entropy_with_integer_labels(logits, following).mean()

    def evaluate(params, split):
        return {"loss": loss(params, splits[split]), "loss_by_word": loss(params, every)}

    return Problem(
        init, loss, evaluate, steps=600, target=entropy + 0.125, batch=batch, lowest=entropy
    )


@problem("neural")
def modular_addition() -> Problem:
    """A network learns addition modulo 23 from seven tenths of the sums.

    Embeddings of width 128 for the summands, the square of their sum, and an output for each
    residue (after Gromov, arXiv:2301.02679); batches of 128 from 370 of the 529 sums, the others
    are half validation and half test. Training sums are memorised first and the rule is found
    later, if at all (grokking; Power et al., arXiv:2201.02177): tells apart who gets there.
    """
    return addition(optax.softmax_cross_entropy_with_integer_labels, target=0.5)


def addition(error: Callable[[jax.Array, jax.Array], jax.Array], *, target: float) -> Problem:
    """Addition modulo 23; `error(logits, labels)` -> one loss a row."""
    from flax import linen as nn

    modulus, width, batch_size, known = 23, 128, 128, 370
    sums = np.stack(np.divmod(np.arange(modulus**2), modulus), axis=1)
    sums = np.random.default_rng(0).permutation(sums)
    inputs, outputs = jnp.asarray(sums, jnp.int32), jnp.asarray(sums.sum(1) % modulus, jnp.int32)
    half = (known + len(sums)) // 2
    splits = {
        "validation": (inputs[known:half], outputs[known:half]),
        "test": (inputs[half:], outputs[half:]),
    }

    class Adder(nn.Module):
        @nn.compact
        def __call__(self, pair):
            x = nn.Embed(modulus, width, name="embedding")(pair).sum(axis=1)
            return nn.Dense(modulus, use_bias=False, name="head")(x**2)

    model = Adder()

    def init(key):
        return model.init(key, inputs[:1])["params"]

    def batch(key):
        rows = jax.random.randint(key, (batch_size,), 0, known)
        return inputs[rows], outputs[rows]

    def report(params, pairs):
        logits = model.apply({"params": params}, pairs[0])
        right = logits.argmax(-1) == pairs[1]
        return {
            "loss": error(logits, pairs[1]).mean(),
            "accuracy": right.astype(jnp.float32).mean(),
        }

    def evaluate(params, split):
        return report(params, splits[split])

    def loss(params, pairs):
        return report(params, pairs)["loss"]

    return Problem(init, loss, evaluate, steps=1000, target=target, batch=batch)


@problem("neural")
def regression() -> Problem:
    """A network fits a smooth function of many variables from noisy values.

    y = sin(2⟨a, x⟩) + ⟨b, x⟩² - 1 + noise of a tenth, for normal x in eight dimensions and unit
    vectors a and b; two hidden layers of 32 with tanh, 32 fresh points a step. The loss reported is
    without the noise, so 0 is the best possible. A regression like the one that AdaGO's paper
    begins with (arXiv:2509.02981): tells apart who lets the step shrink as the noise takes over.
    """
    from flax import linen as nn

    size, width, batch_size, held_out, noise = 8, 32, 32, 512, 0.1
    directions = np.random.default_rng(0).normal(size=(2, size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    a, b = jnp.asarray(directions, jnp.float32)

    def truth(x):
        return jnp.sin(2 * x @ a) + (x @ b) ** 2 - 1

    def points(key, count):
        x = jax.random.normal(key, (count, size))
        return x, truth(x)

    splits = {
        "validation": points(jax.random.key(1), held_out),
        "test": points(jax.random.key(2), held_out),
    }
    model = nn.Sequential([nn.Dense(width), nn.tanh, nn.Dense(width), nn.tanh, nn.Dense(1)])

    def init(key):
        return model.init(key, splits["test"][0][:1])["params"]

    def batch(key):
        first, second = jax.random.split(key)
        x, y = points(first, batch_size)
        return x, y + noise * jax.random.normal(second, y.shape)

    def loss(params, batch):
        x, y = batch
        return jnp.mean((model.apply({"params": params}, x)[:, 0] - y) ** 2)

    def evaluate(params, split):
        return {"loss": loss(params, splits[split])}

    return Problem(init, loss, evaluate, steps=1000, target=0.1, batch=batch)
