"""The transformation under test, and how the checks run it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.plugins import load
from optzoo.testing.offers import offers
from optzoo.testing.traits import Traits

Factory = Callable[..., optax.GradientTransformation]


class Run(NamedTuple):
    """Some steps of training: the update of each step, and where they led."""

    updates: list[chex.ArrayTree]
    params: chex.ArrayTree
    state: Any


class FirstRun(NamedTuple):
    """A compiled run, how often its step was traced, and the step."""

    run: Run
    traces: int
    step: Callable


class Subject:
    """A transformation under test with what its checks share, so that they share compilations.

    Args:
      target: the transformation, or a factory that makes it when called without arguments
        (`functools.partial` fills in required ones). Checks of hyper-parameters need a factory.
      params: float32 parameters to try it on; a small dense layer by default.
      traits: what is claimed about it.
      extra_args: what `update` needs beyond optax's three arguments and what `Traits.needs` can
        name: a mapping, or a function of the parameters and gradients that returns one.
      eval_params: finds the parameters to evaluate, as `eval_params(state, params)`.
      leaves: how many leaves the tree of the check `many_leaves` has.
      name: what reports call it; the factory's name by default.

    Raises:
      TypeError: where `target` is neither.
    """

    def __init__(
        self,
        target: optax.GradientTransformation | Factory,
        *,
        params: chex.ArrayTree | None = None,
        traits: Traits | None = None,
        extra_args: Mapping[str, Any]
        | Callable[[chex.ArrayTree, chex.ArrayTree], Mapping[str, Any]]
        | None = None,
        eval_params: Callable[[Any, chex.ArrayTree], chex.ArrayTree] | None = None,
        leaves: int = 400,
        name: str | None = None,
    ):
        is_transformation = isinstance(target, optax.GradientTransformation)
        if not is_transformation and not callable(target):
            raise TypeError(f"expected a gradient transformation or a factory; got {target!r}")
        self.factory: Any = None if is_transformation else target
        self.params = small_params() if params is None else params
        self.traits = traits or Traits()
        self.eval_params = eval_params
        self.leaves = leaves
        self._extra_args = extra_args
        self._given = target
        self.name = name or _name(target)

    @cached_property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """The transformation."""
        # Whichever check asks first may be tracing, and what is kept must outlive its trace.
        with jax.ensure_compile_time_eval():
            return self.build()

    def build(self, **arguments: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation, with other arguments of the factory where given."""
        made = self._given if self.factory is None else self.factory(**arguments)
        return optax.with_extra_args_support(made)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The factory's numeric arguments and their defaults; none without a factory."""
        if self.factory is None:
            return {}
        parameters = inspect.signature(self.factory).parameters.values()
        return {
            p.name: p.default
            for p in parameters
            if isinstance(p.default, int | float)
            and not isinstance(p.default, bool)
            and p.name not in self.traits.static
        }

    def extra_args(self, params: chex.ArrayTree, gradients: chex.ArrayTree) -> Mapping[str, Any]:
        """What `update` gets beyond gradients, state and parameters."""
        offered = offers(params, gradients) if self.needs else {}
        return {name: offered[name] for name in self.needs} | self._given_args(params, gradients)

    def _given_args(self, params: chex.ArrayTree, gradients: chex.ArrayTree) -> dict[str, Any]:
        extra: Any = self._extra_args
        return dict(extra(params, gradients) if callable(extra) else extra or {})

    @cached_property
    def needs(self) -> dict[str, Exception]:
        """The extra arguments that `update` cannot do without, and its error without each."""

        def attempt(names):
            def step(params, gradients):
                offered = offers(params, gradients)
                extra = {name: offered[name] for name in names}
                extra |= self._given_args(params, gradients)
                return self.tx.update(gradients, self.tx.init(params), params, **extra)

            try:
                jax.eval_shape(step, self.params, self.gradients[0])
            except Exception as error:
                return error

        names = offers({}, {})
        if attempt(()) is None or attempt(names) is not None:
            return {}
        errors = {name: attempt(names.keys() - {name}) for name in names}
        return {name: error for name, error in errors.items() if error is not None}

    def update(self, gradients: chex.ArrayTree, state: Any, params: chex.ArrayTree, tx: Any = None):
        """`tx.update` with whatever extra arguments it needs."""
        full = optax.with_extra_args_support(self.tx if tx is None else tx)
        return full.update(gradients, state, params, **self.extra_args(params, gradients))

    def run(
        self,
        params: chex.ArrayTree,
        gradients: Sequence[chex.ArrayTree],
        *,
        tx: Any = None,
        state: Any = None,
        step: Callable | None = None,
    ) -> Run:
        """Takes a step for each gradient: eagerly, or by `step(gradients, state, params)`."""
        step = step or partial(self.update, tx=tx)
        state = (self.tx if tx is None else tx).init(params) if state is None else state
        updates = []
        for gradient in gradients:
            update, state = step(gradient, state, params)
            params = optax.apply_updates(params, update)
            updates.append(update)
        return Run(updates, params, state)

    @cached_property
    def _programs(self) -> tuple[Callable, Callable]:
        def step(gradients, state, params):
            updates, state = self.update(gradients, state, params)
            return updates, state, optax.apply_updates(params, updates)

        return jax.jit(self.tx.init), jax.jit(step)

    def run_compiled(self, params: chex.ArrayTree, gradients: Sequence[chex.ArrayTree]) -> Run:
        """Takes a step for each gradient in two programs: one to begin, one for all steps.

        For parameters whose shapes or dtypes few checks share: eagerly, each operation would be
        compiled for them.
        """
        init, step = self._programs
        state, updates = init(params), []
        for gradient in gradients:
            update, state, params = step(gradient, state, params)
            updates.append(update)
        return Run(updates, params, state)

    @cached_property
    def gradients(self) -> list[chex.ArrayTree]:
        """The gradients of three steps."""
        with jax.ensure_compile_time_eval():
            return random_like(self.params, 3)

    @cached_property
    def eager(self) -> Run:
        """Three steps on the default parameters, without compilation."""
        return self.run(self.params, self.gradients)

    @cached_property
    def first(self) -> FirstRun:
        """The first three compiled steps on the default parameters."""
        traces: list[None] = []

        def update(gradients, state, params):
            traces.append(None)
            return self.update(gradients, state, params)

        step = jax.jit(update)
        run = self.run(self.params, self.gradients, step=step)
        return FirstRun(run, len(traces), step)

    @property
    def step(self) -> Callable:
        """The compiled update, for the checks whose parameters have the default shapes."""
        return self.first.step


def small_params() -> chex.ArrayTree:
    """A dense layer in float32."""
    shapes = {"dense": {"bias": (3,), "kernel": (4, 3)}}
    return random_from(shapes, 0)


def random_from(shapes: chex.ArrayTree, seed: int) -> chex.ArrayTree:
    """Normal float32 numbers for a tree of shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def random_like(params: chex.ArrayTree, steps: int, seed: int = 1) -> list[chex.ArrayTree]:
    """Normal numbers in the shapes and dtypes of a tree, one tree a step."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        numbers: Any = rng.standard_normal(jnp.shape(leaf))
        if jnp.iscomplexobj(leaf):
            numbers = numbers + 1j * rng.standard_normal(jnp.shape(leaf))
        return jnp.asarray(numbers, leaf.dtype)

    return [jax.tree.map(draw, params) for _ in range(steps)]


def importable(factory: Any) -> tuple[str, dict[str, Any]] | None:
    """How another process finds a factory: its name and the arguments a partial adds."""
    arguments = {}
    if isinstance(factory, partial) and not factory.args:
        factory, arguments = factory.func, factory.keywords
    name = f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', '')}"
    try:
        return (name, arguments) if load(name) is factory else None
    except ValueError:
        return None


def _name(target: Any) -> str:
    function = target.func if isinstance(target, partial) else target
    return getattr(function, "__name__", type(target).__name__)
