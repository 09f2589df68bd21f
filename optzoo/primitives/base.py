"""What every transformation here shares: checked arguments and float32 arithmetic."""

import functools
import inspect
import operator
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

Tree = Any
Key = int | jax.Array
Mask = Tree | Callable[[Tree], Tree] | None
DType = jax.typing.DTypeLike | None
Schedule = Callable[[jax.Array], jax.typing.ArrayLike]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Range:
    """The interval an argument must lie in, written as in mathematics: "[0, 1)"."""

    interval: str
    schedule: bool = False
    whole: bool = False

    def __str__(self) -> str:
        more = " and be a whole number" * self.whole + " or be a schedule" * self.schedule
        return f"lie in {self.interval}{more}"

    def allows(self, value: Any) -> bool:
        if callable(value):
            return self.schedule
        if self.whole and not isinstance(value, int | np.integer):
            return False
        if not isinstance(value, int | float | np.number | np.ndarray | jax.Array):
            return False
        low, high = (float(bound) for bound in self.interval[1:-1].split(","))
        above = np.greater_equal if self.interval[0] == "[" else np.greater
        below = np.less_equal if self.interval[-1] == "]" else np.less
        return bool(np.all(above(value, low) & below(value, high)))


@dataclass(frozen=True)
class OneOf:
    """The values that an argument may take."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "be one of " + ", ".join(map(repr, self.values))

    def allows(self, value: Any) -> bool:
        return value in self.values


LearningRate = Annotated[jax.typing.ArrayLike | Schedule, Range("[0, inf)", schedule=True)]
Decay = Annotated[jax.typing.ArrayLike, Range("[0, 1)")]
DecayOrSchedule = Annotated[jax.typing.ArrayLike | Schedule, Range("[0, 1)", schedule=True)]
OpenFraction = Annotated[jax.typing.ArrayLike, Range("(0, 1)")]
Fraction = Annotated[jax.typing.ArrayLike, Range("[0, 1]")]
NonNegative = Annotated[jax.typing.ArrayLike, Range("[0, inf)")]
NonNegativeOrSchedule = Annotated[jax.typing.ArrayLike | Schedule, Range("[0, inf)", schedule=True)]
Positive = Annotated[jax.typing.ArrayLike, Range("(0, inf)")]
Count = Annotated[jax.typing.ArrayLike, Range("[1, inf)")]
Size = Annotated[int, Range("[1, inf)", whole=True)]
"""A count that chooses the program, and so cannot be traced."""


def at(value: jax.typing.ArrayLike | Schedule, count: jax.Array) -> jax.typing.ArrayLike:
    """A schedule's value at `count`; any other value unchanged."""
    return value(count) if callable(value) else value


def real(count: jax.Array) -> jax.Array:
    """A step count as the widest enabled float: an int32 divided by an int is float32 only."""
    return count.astype(float)


def branch(index: jax.Array, branches: Sequence[Callable[..., R]], *operands: Any) -> R:
    """`jax.lax.switch` for an index that is traced; one that is known chooses in Python.

    Outside of `jax.jit`, where JAX would compile all branches anew in every step, one branch runs.
    """
    if isinstance(index, jax.core.Tracer):
        return jax.lax.switch(index, branches, *operands)
    return branches[int(index)](*operands)


def random_key(key: Key) -> jax.Array:
    """A `jax.random` key as it is; for an integer seed, traced or not, the key of that seed."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jnp.asarray(key) if typed or np.ndim(key) else jax.random.key(key)


def is_zero(value: Any) -> bool:
    """Whether a hyper-parameter is the plain number 0, so that what it scales can be left out."""
    return isinstance(value, int | float) and value == 0


def checked(factory: Callable[P, R]) -> Callable[P, R]:
    """Makes a factory check those of its arguments that are annotated with their allowed values.

    Arguments annotated with a `Range` or a `Literal` are checked when they are concrete: traced
    values pass, and None where the annotation has it.

    Raises:
      ValueError: from the factory; the message names the argument, the value and what is allowed.
    """

    @functools.wraps(factory)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        signature, allowed = _rules(factory)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in allowed and not isinstance(value, jax.core.Tracer):
                optional, values = allowed[name]
                if not (values.allows(value) or (optional and value is None)):
                    raise ValueError(f"{factory.__name__}: {name} must {values}; got {value!r}")
        return factory(*args, **kwargs)

    return checking


def transformation(
    factory: Callable[P, optax.GradientTransformation],
) -> Callable[P, optax.GradientTransformationExtraArgs]:
    """A factory whose arguments are `checked` and whose product is `widened`."""

    @functools.wraps(factory)
    def build(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        return widened(factory(*args, **kwargs))

    return checked(build)


NUMBERS = {"value", "grad", "gradients", "values"}
"""The extra arguments of `update` that are trees of numbers."""


def widened(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx` computed in float32 or wider.

    Updates, parameters and the other numbers in `NUMBERS` reach `tx` as float32 where they are
    narrower, so its state is float32 and only the finished update is rounded, once, to the
    parameters' dtype (the gradient's where no parameters are given).

    Raises:
      ValueError: from `update`, where updates and parameters differ in structure or shape; the
        message names the first differing leaf.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params):
        return inner.init(wide(params))

    def update(updates, state, params=None, **extra_args):
        if params is not None:
            check_same_structure(updates, params)
        numbers = {name: wide(extra_args[name]) for name in NUMBERS & extra_args.keys()}
        extra = {**extra_args, **numbers}
        out, state = inner.update(wide(updates), state, wide(params), **extra)
        return cast_like(out, updates if params is None else params), state

    return optax.GradientTransformationExtraArgs(init, update)


def wide(tree: Tree) -> Tree:
    """Every floating leaf as float32 or wider; other leaves unchanged. Shapes stay shapes."""

    def widen(leaf):
        dtype = jnp.float32 if is_narrow(leaf) else None
        if is_abstract(leaf):
            return leaf.update(dtype=dtype) if dtype else leaf
        return jnp.asarray(leaf, dtype)

    return jax.tree.map(widen, tree)


def is_abstract(leaf: Any) -> bool:
    """Whether a leaf is a mere shape, as `jax.eval_shape` makes them."""
    return isinstance(leaf, jax.ShapeDtypeStruct)


def require_values(params: Tree, who: str) -> None:
    """Raises ValueError where `init` got shapes and `who` needs the parameters themselves."""
    if any(map(is_abstract, jax.tree.leaves(params))):
        raise ValueError(
            f"{who} starts from the parameters' values, so tx.init cannot do with their shapes: "
            "for a sharded state call jax.jit(tx.init, out_shardings=…)(params), for the state's "
            "shapes jax.eval_shape(tx.init, params)"
        )


def is_narrow(leaf: jax.typing.ArrayLike) -> bool:
    """Whether a leaf is floating with fewer than 32 bits."""
    dtype = jnp.result_type(leaf)
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def cast_like(tree: Tree, target: Tree) -> Tree:
    """Each leaf of `tree` in the dtype of the same leaf of `target`.

    What has another structure (one scalar for a whole tree) is a factor, not an update: it stays.
    So does what is real beside a complex leaf, in that leaf's precision.
    """
    if not same_structure(tree, target):
        return tree

    def cast(x, like):
        return x.astype(jnp.result_type(like) if jnp.iscomplexobj(x) else real_dtype(like))

    return jax.tree.map(cast, tree, target)


def real_dtype(leaf: jax.typing.ArrayLike) -> Any:
    """The dtype of a leaf's absolute values."""
    dtype = jnp.result_type(leaf)
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.inexact) else dtype


def common_dtype(tree: Tree) -> Any:
    """The dtype that the numbers of all leaves fit in; float32 for a tree without any."""
    leaves = jax.tree.leaves(tree)
    return jnp.result_type(*(leaf.dtype for leaf in leaves)) if leaves else jnp.float32


def same_structure(tree: Tree, other: Tree) -> bool:
    """Whether two trees have the same nodes and leaves."""
    return operator.eq(jax.tree.structure(tree), jax.tree.structure(other))


def check_same_structure(updates: Tree, params: Tree) -> None:
    """Raises ValueError that names the first leaf where two trees differ."""
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (updates, params)]
    if same_structure(updates, params) and shapes[0] == shapes[1]:
        return
    ours = jax.tree_util.tree_leaves_with_path(updates)
    theirs = jax.tree_util.tree_leaves_with_path(params)
    for (path, update), (other, param) in zip(ours, theirs, strict=False):
        if path != other or jnp.shape(update) != jnp.shape(param):
            raise ValueError(
                "updates and params must have the same structure and shapes; they first differ at "
                f"updates{jax.tree_util.keystr(path)} of shape {jnp.shape(update)} and "
                f"params{jax.tree_util.keystr(other)} of shape {jnp.shape(param)}"
            )
    if len(ours) != len(theirs):
        name, longer = ("updates", ours) if len(ours) > len(theirs) else ("params", theirs)
        extra = jax.tree_util.keystr(longer[min(len(ours), len(theirs))][0])
        raise ValueError(f"updates and params must have the same leaves; only {name} has {extra}")
    raise ValueError(
        "updates and params must be the same kind of tree; got "
        f"{jax.tree.structure(updates)} and {jax.tree.structure(params)}"
    )


def require_params(params: Tree, who: str) -> None:
    """Raises ValueError where `update` was called without the parameters that `who` needs."""
    if params is None:
        raise ValueError(f"{who} needs the parameters: call update(grads, state, params)")


ASKED_FOR = {
    "value": "the loss of this step",
    "value_fn": "the loss of this step as a function of the parameters",
    "outputs_fn": "the model's outputs as a function of the parameters",
    "loss_fn": "the loss as a function of the outputs",
    "gradients": "one gradient for each objective, along a leading axis",
    "values": "one loss for each objective",
}
"""What a rule may ask `update` for beyond gradients, state and parameters."""


def require(extra_args: Mapping[str, Any], name: str, who: str) -> Any:
    """The extra argument of `update` that `who` needs.

    Raises:
      ValueError: where `update` was called without it; the message names it.
    """
    if extra_args.get(name) is None:
        call = f"update(grads, state, params, {name}=…)"
        raise ValueError(f"{who} needs {name}, {ASKED_FOR[name]}: call {call}")
    return extra_args[name]


@functools.lru_cache(maxsize=1024)
def _rules(
    factory: Callable[..., Any],
) -> tuple[inspect.Signature, dict[str, tuple[bool, Range | OneOf]]]:
    """Read at the first call: annotations are slow to read, and most are never needed."""
    return inspect.signature(factory), _allowed_values(factory)


def _allowed_values(factory: Callable[..., Any]) -> dict[str, tuple[bool, Range | OneOf]]:
    """For each argument with a rule: whether it may be None, and what else it may be."""
    allowed: dict[str, tuple[bool, Range | OneOf]] = {}
    for name, hint in typing.get_type_hints(factory, include_extras=True).items():
        optional = type(None) in typing.get_args(hint)
        for part in (hint, *typing.get_args(hint)):
            if typing.get_origin(part) is Literal:
                allowed[name] = optional, OneOf(typing.get_args(part))
            for note in getattr(part, "__metadata__", ()):
                if isinstance(note, Range):
                    allowed[name] = optional, note
    return allowed
