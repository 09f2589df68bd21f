"""Greedy blocks: recorded choices and steps on least squares, and what counts as large."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.replay import CASES, FILES, build
from laws import tree

import optzoo
from optzoo.primitives import top_entries


class LeastSquares:
    """The problem of a recording, |A·x − b|²/2, and its ways to move a block."""

    def __init__(self, arrays):
        self.a, self.b = arrays["data/A"], arrays["data/b"]
        self.hessian = self.a.T @ self.a
        self.estimates = np.ones(len(self.hessian))

    def value(self, x):
        return np.sum((self.a @ x - self.b) ** 2) / 2

    def gradient(self, x):
        return self.a.T @ (self.a @ x - self.b)

    def curvature(self, block):
        return np.linalg.eigvalsh(self.hessian[np.ix_(block, block)])[-1]

    def step(self, way, x, g, block):
        """The change of x by the block of the gradient g, which is 0 elsewhere."""
        if way == "Hb":
            return -np.linalg.pinv(self.hessian[np.ix_(block, block)]) @ g[block]
        if way == "Lb":
            return -g[block] / self.curvature(block)
        bound = self.estimates[block].max()
        while self.value(x - g / bound) > self.value(x) - np.sum(g**2) / (2 * bound):
            bound *= 2
        self.estimates[block] = bound
        return -g[block] / bound


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("block_")])
def test_blocks_are_the_recorded_ones(name):
    options = CASES[name]["options"]
    with np.load(FILES[name]) as recorded, jax.enable_x64(True):
        arrays = dict(recorded.items())
        problem, x = LeastSquares(arrays), arrays["params0/x"]
        parts = arrays.get("data/blocks", np.arange(len(x))[None])
        scales = (
            [problem.curvature(part) ** -0.5 for part in parts]
            if options["fixed"]
            else [np.diag(problem.hessian) ** -0.5]
        )
        scale = {str(i): scale for i, scale in enumerate(scales)}
        tx = build(CASES[name]["optzoo"], {"scale": scale})
        choose = jax.jit(lambda g: tx.update(g, tx.init(g))[0])
        for t, block in enumerate(arrays["flag/block"]):
            gradient = problem.gradient(x)
            chosen = choose({str(i): gradient[part] for i, part in enumerate(parts)})
            kept = np.zeros_like(x)
            for i, part in enumerate(parts):
                kept[part] = chosen[str(i)]
            assert set(np.flatnonzero(kept)) == set(block), t
            x = x.copy()
            x[block] += problem.step(options["update"], x, kept, block)
            np.testing.assert_allclose(x, arrays["params/x"][t], rtol=0, atol=2e-13)


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_largest_of_all_leaves_are_kept(share):
    updates = tree(3) | {"half": tree(4)["kernel"].astype(jnp.bfloat16)}
    kept, _ = jax.jit(top_entries(share).update)(updates, top_entries(share).init(updates))
    flat = np.concatenate([np.ravel(np.float32(leaf)) for leaf in jax.tree.leaves(updates)])
    want = np.sort(np.abs(flat))[-max(1, round(share * flat.size))]
    for leaf, out in zip(jax.tree.leaves(updates), jax.tree.leaves(kept), strict=True):
        assert out.dtype == leaf.dtype
        whole = np.float32(leaf)
        np.testing.assert_array_equal(np.float32(out), whole * (np.abs(whole) >= want))


def test_layers_are_chosen_whole_and_stacked_ones_apart():
    updates = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([4.5, 0.0]), "c": jnp.zeros((2, 2, 2))}
    updates["c"] = updates["c"].at[1].set(3.0)
    axes = {"": None, "c": optzoo.primitives.Axes(input=(1,), output=(2,), batch=(0,))}

    def kept(share, **options):
        out, _ = top_entries(share, block="layer", axes=axes, **options).update(updates, None)
        return jax.tree.map(lambda x: [bool(np.any(part)) for part in np.atleast_2d(x)], out)

    assert kept(0.25) == {"a": [False], "b": [False], "c": [False, True]}
    assert kept(0.5) == {"a": [True], "b": [False], "c": [False, True]}
    assert kept(0.5, scale={"": 1.0, "a": 0.5}) == {"a": [False], "b": [True], "c": [False, True]}
    assert kept(0.01, scale={"a": 10.0, "": 1.0}) == {"a": [True], "b": [False], "c": [False] * 2}


def test_numbers_beyond_numbers_are_never_hidden():
    updates = {"a": jnp.array([1.0, jnp.nan, 2.0]), "b": jnp.array([-jnp.inf, 0.0])}
    kept, _ = top_entries(0.4).update(updates, None)
    np.testing.assert_array_equal(kept["a"], [0, np.nan, 0])
    np.testing.assert_array_equal(kept["b"], [-np.inf, 0])
    still, _ = top_entries(0.4).update({"a": jnp.zeros(3)}, None)
    np.testing.assert_array_equal(still["a"], np.zeros(3))
