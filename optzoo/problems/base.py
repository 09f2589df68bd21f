"""What a problem is, and the registry of the problems that ship with optzoo."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

Params = Any
Batch = Any
Scalar = jax.Array
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Problem:
    """Something to minimise; it knows nothing of any optimizer.

    All functions are traced inside one compiled loop, so they must be pure JAX.

    Attributes:
      init: `init(key) -> params`, the starting point; another one for every seed.
      loss: `loss(params, batch) -> scalar`, what the optimizer differentiates.
      batch: `batch(key) -> batch`, drawn afresh at every step. Default: the key itself, for a
        loss that draws its own noise or needs no data.
      stream: `stream(key, step) -> batch`, in place of `batch` where the data depend on the step
        (int32, from 0): a curriculum, or examples that come once and never again.
      evaluate: `evaluate(params, split) -> {"loss": scalar, ...}` with `split` one of
        "validation" and "test". "loss" is required and lower is better; further entries, such as
        "accuracy", are reported beside it.
      observe: `observe(before, after, batch) -> {name: scalar, ...}`, measured at every checkpoint
        on the step that follows it, which leads from parameters `before` to `after` by `batch`:
        step sizes, decrease of the loss, spectra. Reported as curves beside those of `evaluate`.
      outputs: `outputs(params, batch) -> outputs`, the model's part of the loss, for rules that
        look into it.
      criterion: `criterion(outputs, batch) -> scalar`, the rest: together they are `loss`.
      objectives: `objectives(params, batch) -> vector`, where there are several losses to be
        lowered at once; `loss` is their mean.
      steps: how many steps a run takes unless the user says otherwise.
      target: the problem counts as solved at or below this validation loss.
      solution: parameters with the lowest possible loss, where they are known.
      lowest: the loss there.
      box: (left, right, bottom, top) of the part of the plane to draw paths in, for a problem
        whose parameters are {"point": (x, y)} and whose `evaluate` reports "x" and "y".
      name: how users call it. Default: the name of the function or variable that holds it.
      summary: one line of plain words.
    """

    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch], Scalar]
    evaluate: Callable[[Params, str], dict[str, Scalar]]
    steps: int
    target: float
    batch: Callable[[jax.Array], Batch] = lambda key: key
    stream: Callable[[jax.Array, jax.Array], Batch] | None = None
    observe: Callable[[Params, Params, Batch], dict[str, Scalar]] | None = None
    outputs: Callable[[Params, Batch], Any] | None = None
    criterion: Callable[[Any, Batch], Scalar] | None = None
    objectives: Callable[[Params, Batch], jax.Array] | None = None
    solution: Params = None
    lowest: float = 0.0
    box: Box | None = None
    name: str = ""
    summary: str = ""

    def draw(self, key: jax.Array, step: jax.Array) -> Batch:
        """The batch of a step in the run that `key` belongs to."""
        key = jax.random.fold_in(key, step)
        return self.stream(key, step) if self.stream else self.batch(key)

    def differentiate(self, params: Params, batch: Batch) -> tuple[Params, dict[str, Any]]:
        """The gradient on a batch, and all that an optimizer may ask `update` for besides.

        That is, in Optax's words: `value`, `grad`, `value_fn`; `outputs_fn` and `loss_fn` where the
        problem has outputs; and `gradients` with `values`, of one objective where the problem has
        no more.
        """
        value, gradient = jax.value_and_grad(self.loss)(params, batch)
        extra = {"value": value, "grad": gradient, "value_fn": lambda p: self.loss(p, batch)}
        if self.outputs and self.criterion:
            outputs, criterion = self.outputs, self.criterion
            extra["outputs_fn"] = lambda p: outputs(p, batch)
            extra["loss_fn"] = lambda o: criterion(o, batch)
        if self.objectives:
            extra["gradients"] = jax.jacrev(self.objectives)(params, batch)
            extra["values"] = self.objectives(params, batch)
        else:
            extra["gradients"] = jax.tree.map(lambda leaf: leaf[None], gradient)
            extra["values"] = value[None]
        return gradient, extra


@dataclass(frozen=True)
class Declared:
    """A problem that ships with optzoo; calling it loads its data and builds it.

    Attributes:
      name: how users call it.
      group: the family that users can ask for as a whole.
      default: whether it belongs to a comparison that names no problems.
      factory: what builds it.
    """

    name: str
    group: str
    default: bool
    factory: Callable[[], Problem]

    @property
    def description(self) -> str:
        """The factory's docstring: what it is, where it comes from, what it tells apart."""
        return inspect.getdoc(self.factory) or ""

    @property
    def summary(self) -> str:
        """The first line of the description, without its full stop."""
        return self.description.partition("\n")[0].rstrip(".")

    def __call__(self) -> Problem:
        return dataclasses.replace(self.factory(), name=self.name, summary=self.summary)


PROBLEMS: dict[str, Declared] = {}
# The group of those that take an hour where others take seconds: only whoever names them gets them.
LARGE = "large"


def problem(
    group: str, *, default: bool = False
) -> Callable[[Callable[[], Problem]], Callable[[], Problem]]:
    """Registers the function it decorates, which returns a problem, under the function's name.

    Args:
      group: the family of problems that it belongs to.
      default: whether a comparison that names no problems includes it.

    Raises:
      ValueError: if the name is taken.
    """

    def register(factory: Callable[[], Problem]) -> Callable[[], Problem]:
        declare(factory.__name__, group, factory, default=default)
        return factory

    return register


def declare(
    name: str, group: str, factory: Callable[[], Problem], *, default: bool = False
) -> None:
    """Registers a factory under any name; see `problem`."""
    if name in PROBLEMS:
        raise ValueError(f"a problem named {name!r} is registered already")
    PROBLEMS[name] = Declared(name, group, default, factory)
