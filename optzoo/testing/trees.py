"""Comparing trees in words a user understands: chex judges, and this says what it found."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from optzoo.testing.check import fail


def agree(
    what: str, got: chex.ArrayTree, want: chex.ArrayTree, *, rtol: float = 2e-4, atol: float = 1e-9
) -> None:
    """Fails where two trees differ by more than `rtol` times a leaf's largest number.

    Args:
      what: the first words of the failure, such as "under jit the updates"; then follows what
        differs from what.
      got: the tree to judge.
      want: the tree it must equal.
      rtol: allowed difference; 0 compares bit for bit.
      atol: allowed difference of numbers that are all but 0.
    """
    same_structure(what, got, want)
    for (path, x), y in zip(leaves_with_path(got), jax.tree.leaves(want), strict=True):
        x, y = numbers(x), numbers(y)
        size = np.max(np.abs(y), initial=0, where=np.isfinite(y))
        allowed = 0.0 if rtol == 0 else rtol * size + atol
        try:
            chex.assert_trees_all_close(x, y, rtol=rtol, atol=allowed)
        except AssertionError:
            if x.shape != y.shape:
                fail(f"{what} differ: {path} has shape {x.shape} instead of {y.shape}")
            at = _worst(x, y)
            place = f"{path}{list(at)}" if at else path
            fail(f"{what} differ: {place} is {x[at]:.7g} instead of {y[at]:.7g}")


def _worst(x: np.ndarray, y: np.ndarray) -> tuple[int, ...]:
    """Where two arrays differ most; NaN or infinity against anything else is beyond measure."""
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(same, 0.0, np.nan_to_num(np.abs(x - y), nan=np.inf))
    return tuple(int(i) for i in np.unravel_index(np.argmax(apart), x.shape))


def same_structure(what: str, got: chex.ArrayTree, want: chex.ArrayTree) -> None:
    """Fails where two trees have different nodes."""
    try:
        chex.assert_trees_all_equal_structs(got, want)
    except AssertionError:
        ours, theirs = (_short(jax.tree.structure(tree)) for tree in (got, want))
        fail(f"{what} have another structure: {ours} instead of {theirs}")


def same_shapes(
    what: str, got: chex.ArrayTree, want: chex.ArrayTree, *, dtypes: bool = False
) -> None:
    """Fails where leaves differ in shape or, with `dtypes`, in dtype."""
    same_structure(what, got, want)
    judge = chex.assert_trees_all_equal_shapes
    if dtypes:
        judge = chex.assert_trees_all_equal_shapes_and_dtypes
    try:
        judge(got, want)
    except AssertionError as error:
        fail(f"{what} are unlike the parameters: {str(error).partition(' failed:')[2].strip()}")


def same_types(what: str, got: chex.ArrayTree, want: chex.ArrayTree) -> None:
    """Fails where leaves differ in shape, dtype or weak type, all of which recompile a step."""
    same_structure(what, got, want)
    for (path, x), y in zip(leaves_with_path(got), jax.tree.leaves(want), strict=True):
        x, y = described(x), described(y)
        if x != y:
            fail(f"{what} change type: {path} is {x} instead of {y}")


def described(leaf: Any) -> str:
    """Shape and dtype of a leaf, such as "float32[3]", with "weak" where it is."""
    weak = "weak " if getattr(leaf, "weak_type", False) else ""
    shape = ",".join(map(str, jnp.shape(leaf)))
    return f"{weak}{dtype_of(leaf)}[{shape}]"


def dtype_of(leaf: Any) -> Any:
    """The dtype of an array, of its description, or that JAX gives to a number."""
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def all_finite(what: str, tree: chex.ArrayTree) -> None:
    """Fails where a tree holds NaN or infinity."""
    for path, leaf in leaves_with_path(tree):
        x = numbers(leaf)
        try:
            chex.assert_tree_all_finite(x)
        except AssertionError:
            fail(f"{what}: {path} has {x[~np.isfinite(x)][0]}")


def leaves_with_path(tree: chex.ArrayTree) -> list[tuple[str, Any]]:
    """Each leaf with its path, such as "['dense']['bias']"; "the value" for a lone leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path) or "the value", leaf) for path, leaf in leaves]


def numbers(leaf: Any) -> np.ndarray:
    """A leaf as a numpy array wide enough to compare; random keys as their bits."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds typed random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_random(tree: chex.ArrayTree) -> bool:
    """Whether a tree holds a random key, typed or as the two numbers that raw keys are."""
    return any(
        is_key(leaf) or (jnp.shape(leaf) == (2,) and dtype_of(leaf) == jnp.uint32)
        for leaf in jax.tree.leaves(tree)
    )


def cast(tree: chex.ArrayTree, dtype: Any) -> chex.ArrayTree:
    """A tree with every leaf in one dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), tree)


def _short(structure: Any, width: int = 60) -> str:
    text = str(structure)
    return text if len(text) <= width else f"{text[: width - 1]}…"
