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


@dataclass(frozen=True)
class Problem:
    """Something to minimise; it knows nothing of any optimizer.

    All functions are traced inside one compiled loop, so they must be pure JAX.

    Attributes:
      init: `init(key) -> params`, the starting point; another one for every seed.
      loss: `loss(params, batch) -> scalar`, what the optimizer differentiates.
      batch: `batch(key) -> batch`, drawn afresh at every step. Default: the key itself, for a
        loss that draws its own noise or needs no data.
      evaluate: `evaluate(params, split) -> {"loss": scalar, ...}` with `split` one of
        "validation" and "test". "loss" is required and lower is better; further entries, such as
        "accuracy", are reported beside it.
      steps: how many steps a run takes unless the user says otherwise.
      target: the problem counts as solved at or below this validation loss.
      name: how users call it. Default: the name of the function or variable that holds it.
      summary: one line of plain words.
    """

    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch], Scalar]
    evaluate: Callable[[Params, str], dict[str, Scalar]]
    steps: int
    target: float
    batch: Callable[[jax.Array], Batch] = lambda key: key
    name: str = ""
    summary: str = ""


PROBLEMS: dict[str, Callable[[], Problem]] = {}


def problem(factory: Callable[[], Problem]) -> Callable[[], Problem]:
    """Registers a function that returns a problem, under the function's own name.

    The function runs only when somebody asks for the problem: data and models load then. The
    problem's summary is the first line of the function's docstring.

    Raises:
      ValueError: if the name is taken.
    """
    name = factory.__name__
    if name in PROBLEMS:
        raise ValueError(f"a problem named {name!r} is registered already")
    summary = (inspect.getdoc(factory) or "").partition("\n")[0].rstrip(".")

    def build() -> Problem:
        return dataclasses.replace(factory(), name=name, summary=summary)

    PROBLEMS[name] = build
    return build
