"""Recorded trajectories: loading them, replaying their gradients, measuring deviations."""

import importlib
import inspect
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optzoo.primitives.norms import packed

HERE = Path(__file__).parent
INDEX = json.loads((HERE / "index.json").read_text(encoding="utf-8"))
FILES: dict[str, Path] = {}
CONFIGURATIONS: dict[str, dict] = {}
FUNCTIONS: dict[str, dict] = {}
FITS: dict[str, dict] = {}
SCHEDULES: dict[str, dict] = {}
BATCHES: dict[str, dict] = {}
CASES: dict[str, dict] = {}
"""Recordings that tests on their subject replay."""
KINDS = {
    "configurations": CONFIGURATIONS,
    "functions": FUNCTIONS,
    "fits": FITS,
    "schedules": SCHEDULES,
    "batches": BATCHES,
    "cases": CASES,
}
for family in sorted(HERE.glob("*/index.json")):
    index = json.loads(family.read_text(encoding="utf-8"))
    for kind, known in KINDS.items():
        for name, entry in index.get(kind, {}).items():
            known[name], FILES[name] = entry, family.parent / f"{name}.npz"

PARAMETERS = {
    *("params0", "grads", "params", "eval", "avg"),
    *("previous", "velocity0", "noise", "v", "hv"),
}
"""The kinds of arrays that are shaped like parameters."""

Leaves = dict[str, np.ndarray]
Arrays = dict[str, Leaves]


def load(name: str) -> Arrays:
    """One configuration's recording as {"grads": {leaf: array}, …}, in PyTorch's layout."""
    arrays: Arrays = defaultdict(dict)
    with np.load(FILES[name]) as recorded:
        for key, value in recorded.items():
            kind, leaf = key.rsplit("/", 1) if "/" in key else (key, "")
            arrays[kind][leaf] = value
    return dict(arrays)


def laid_out(name: str) -> Arrays:
    """One configuration's recording in the layout that its rule wants: Flax's by default."""
    arrays = by_leaves(CONFIGURATIONS[name], load(name))
    return arrays if CONFIGURATIONS[name].get("layout") == "torch" else flax_layout(arrays)


def by_leaves(configuration: dict, arrays: Arrays) -> Arrays:
    """What is recorded of all leaves as one vector, {new kind: "kind/part"}, cut into leaves."""
    shapes = [arrays["params0"][leaf].shape for leaf in configuration["leaves"]]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    for new, key in configuration.get("flat", {}).items():
        kind, _, part = key.partition("/")
        rows = arrays[kind][part]
        axis = list(rows.shape).index(ends[-1])
        arrays[new] = {
            leaf: cut.reshape(*rows.shape[:axis], *shape, *rows.shape[axis + 1 :])
            for leaf, cut, shape in zip(
                configuration["leaves"], np.split(rows, ends[:-1], axis), shapes, strict=True
            )
        }
    return arrays


def flax_layout(arrays: Arrays) -> Arrays:
    """The same recording with kernels as (in, out) and convolutions as (spatial…, in, out)."""
    rank = {leaf: value.ndim for leaf, value in arrays["params0"].items()}

    def turned(kind: str, leaf: str, value: np.ndarray) -> np.ndarray:
        order = INDEX["layout"].get(str(rank.get(leaf)))
        if order is None or kind not in PARAMETERS:
            return value
        steps = value.ndim - len(order)
        return value.transpose(*range(steps), *(steps + axis for axis in order))

    return {
        kind: {leaf: turned(kind, leaf, value) for leaf, value in leaves.items()}
        for kind, leaves in arrays.items()
    }


def build(node: Any, values: Mapping[str, Any]) -> Any:
    """What a node of the index says.

    {"call": path, "positional": […], "arguments": {…}} calls, {"name": path} is the object itself,
    {"value": key} looks up in `values`; anything else is data.
    """
    if isinstance(node, list):
        return [build(item, values) for item in node]
    if not isinstance(node, dict):
        return node
    if "value" in node:
        return values[node["value"]]
    if "name" in node:
        return named(node["name"])
    if "call" in node:
        positional = build(node.get("positional", []), values)
        return named(node["call"])(*positional, **build(node.get("arguments", {}), values))
    return {key: build(item, values) for key, item in node.items()}


def named(path: str) -> Any:
    """The object at a dotted path such as "optzoo.primitives.polar"."""
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != module or "." not in module:
            raise
        return getattr(named(module), attribute)


def in_torch_layout(node: Any) -> Any:
    """The same node for a recording as it is stored: every call that takes axes gets torch's."""
    if isinstance(node, list):
        return [in_torch_layout(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("call") == "optzoo.primitives.Axes":
        groups = node["arguments"]
        order = INDEX["layout"].get(str(sum(map(len, groups.values()))))
        turned = {name: [order[axis] for axis in group] for name, group in groups.items()}
        return node | {"arguments": turned}
    node = {key: in_torch_layout(item) for key, item in node.items()}
    if "call" in node and "axes" in inspect.signature(named(node["call"])).parameters:
        arguments = {"axes": {"name": "optzoo.torch_axes"}} | node.get("arguments", {})
        node["arguments"] = arguments
    return node


def transformation(node: dict, arrays: Arrays) -> optax.GradientTransformationExtraArgs:
    """The transformation that a node describes; it may name any kind of recorded arrays.

    What is recorded for steps becomes a schedule.
    """
    rates = arrays.get("sched", {}).get("lr")
    schedule = None if rates is None else lambda count: jnp.asarray(rates, float)[count]
    values = {**arrays, "sched/lr": schedule}
    values["draws"] = lambda n: arrays["draws"][f"normal_32x{n}"]
    for kind in ("updated", "balance", "update_U"):
        if kind in arrays:
            values[kind] = partial(_at_step, arrays[kind][""])
    return optax.with_extra_args_support(build(node, values))


def _at_step(recorded: np.ndarray, count: Any) -> Any:
    return jnp.asarray(recorded)[count]


def replay(
    node: dict,
    arrays: Arrays,
    dtype: str,
    evaluate: Callable[[Any, Any], Any] | None = None,
    start_state: Mapping[str, str] | None = None,
    after_first: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
) -> tuple[Leaves, Leaves | None]:
    """Feeds the recorded gradients, in one compiled scan, to what `node` describes.

    Args:
      node: a call in the index's notation that makes an `optax.GradientTransformation`.
      arrays: the recording, in the layout that the transformation expects.
      dtype: "float32" or "float64", of parameters and gradients.
      evaluate: maps (state, params) to the parameters to evaluate.
      start_state: parts of the state that begin as recorded: {field: kind of array}.
      after_first: parts of the state that are as recorded after the first step, {field: kind of
        array}: matrices, one for each axis of a leaf.
      extra: extra arguments of `update`, each with the kind of array that holds it step by step.

    Returns:
      The parameters after every step and, with `evaluate`, the parameters to evaluate.
    """
    with jax.enable_x64(dtype == "float64"):
        tx = transformation(node, arrays)
        start, grads = (
            {leaf: jnp.asarray(value, dtype) for leaf, value in arrays[kind].items()}
            for kind in ("params0", "data" if "data" in arrays else "grads")
        )

        def of_steps(kind):
            leaves = {leaf: jnp.asarray(value, dtype) for leaf, value in arrays[kind].items()}
            return leaves.get("", leaves)

        given = {name: of_steps(kind) for name, kind in (extra or {}).items()}

        def step(carry, inputs):
            params, state = carry
            gradient, arguments = inputs
            if "gradients" in arguments:
                gradient = jax.tree.map(lambda rows: rows.mean(0), gradient)
            if "data" in arrays:
                value_fn = partial(patchnet if "conv" in params else perceptron, gradient)
                value, gradient = jax.value_and_grad(value_fn)(params)
                arguments = arguments | {"value": value, "value_fn": value_fn}
            updates, state = tx.update(gradient, state, params, **arguments)
            params = optax.apply_updates(params, updates)
            return (params, state), (params, evaluate(state, params) if evaluate else None)

        parts = {
            field: {leaf: jnp.asarray(value, dtype) for leaf, value in arrays[kind].items()}
            for field, kind in (start_state or {}).items()
        }

        def recorded(kind, kept):
            def matrix(path, old):
                leaf, _, axis = path
                return jnp.asarray(arrays[f"{kind}/{leaf.key}"][str(axis.idx)][None], old.dtype)

            return jax.tree_util.tree_map_with_path(matrix, kept)

        def run(params, gradients):
            state = tx.init(params)
            for field, part in parts.items():
                # A state holds a recorded tree as it is, or packed.
                held = part if isinstance(optax.tree.get(state, field), dict) else packed(part)
                state = optax.tree.set(state, **{field: held})
            carry, done = (params, state), []
            if after_first:
                carry, first = step(carry, jax.tree.map(lambda value: value[0], gradients))
                done = [jax.tree.map(lambda value: value[None], first)]
                gradients = jax.tree.map(lambda value: value[1:], gradients)
                for field, kind in after_first.items():
                    kept = recorded(kind, optax.tree.get(carry[1], field))
                    carry = carry[0], optax.tree.set(carry[1], **{field: kept})
            done.append(jax.lax.scan(step, carry, gradients)[1])
            return jax.tree.map(lambda *values: jnp.concatenate(values), *done)

        return jax.tree.map(np.asarray, compiled(run)(start, (grads, given)))


def rising(power: float) -> Callable[[jax.Array], jax.Array]:
    """1 − (n + 1)^−power after n finished steps."""
    return lambda finished: 1 - (jnp.asarray(finished, float) + 1) ** -power


def handed_grad_fn(tx: Any) -> optax.GradientTransformationExtraArgs:
    """Optax's SAM, which asks for `grad_fn` and refuses whatever else a recording offers."""

    def update(updates, state, params=None, *, value_fn, **_):
        return tx.update(updates, state, params, grad_fn=lambda at, _: jax.grad(value_fn)(at))

    return optax.GradientTransformationExtraArgs(tx.init, update)


def patchnet(batch: Mapping[str, jax.Array], p: Mapping[str, jax.Array]) -> jax.Array:
    """The loss of the recordings that hold data instead of gradients, in PyTorch's layout."""
    h = jnp.tanh(jnp.einsum("nijk,oijk->no", batch["x"], p["conv"]))
    h = jnp.tanh(jnp.tanh(h @ p["w_sq"].T) @ p["w_tall"].T)
    return jnp.mean(
        ((h @ p["w_wide"].T + p["bias"][None]) * jnp.exp(p["scalar"]) - batch["y"]) ** 2
    )


def perceptron(batch: Mapping[str, jax.Array], p: Mapping[str, jax.Array]) -> jax.Array:
    """The other loss of such recordings."""
    return jnp.mean((hidden(batch["x"], p) - batch["y"]) ** 2)


def hidden(x: jax.Array, p: Mapping[str, jax.Array]) -> jax.Array:
    """Its network's outputs."""
    return jnp.tanh(x @ p["W1"].T + p["b1"][None]) @ p["W2"].T + p["b2"][None]


def compiled(run: Callable) -> Callable:
    """`jax.jit` without the optimisation passes: for a few steps they cost more than they save."""
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


def outputs(node: dict, arrays: Arrays, dtype: str) -> Any:
    """What a transformation makes of the recorded gradients at the recorded parameters."""
    with jax.enable_x64(dtype == "float64"):
        tx = transformation(node, arrays)
        before = {
            leaf: jnp.asarray(np.concatenate([start[None], arrays["params"][leaf][:-1]]), dtype)
            for leaf, start in arrays["params0"].items()
        }
        grads = {leaf: jnp.asarray(value, dtype) for leaf, value in arrays["grads"].items()}

        def step(state, inputs):
            gradient, params = inputs
            out, state = tx.update(gradient, state, params)
            return state, out

        def run(start, inputs):
            return jax.lax.scan(step, tx.init(start), inputs)[1]

        start = jax.tree.map(lambda value: value[0], before)
        return jax.tree.map(np.asarray, compiled(run)(start, (grads, before)))


def rates(node: dict, name: str, kind: str = "lr", first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What the schedule of a node makes at each recorded step, in float64, and the recording."""
    with np.load(FILES[name]) as recorded, jax.enable_x64(True):
        arrays = dict(recorded.items())
        schedule = build(node, arrays)
        want = arrays[f"sched/{kind}"]
        counts = jnp.arange(first, first + len(want), dtype=jnp.int32)
        return np.asarray(jax.vmap(schedule)(counts)), want


def deviation(got: Leaves, want: Leaves, start: Leaves, rounding: float = 0.0) -> dict[str, Any]:
    """How far each leaf is from the recording, relative to how far the recording has moved.

    Returns:
      {leaf: array over steps of (max|got − want| − rounding·max|want|) / max|want − start|}, the
      divisor being the largest so far; inf where nothing has moved and something differs.
    """

    def largest(x: np.ndarray) -> np.ndarray:
        return np.max(np.abs(x), axis=tuple(range(1, x.ndim)))

    def relative(leaf: str) -> np.ndarray:
        reference = want[leaf].astype(np.float64)
        error = largest(got[leaf] - reference) - rounding * largest(reference)
        moved = np.maximum.accumulate(largest(reference - start[leaf]))
        still = np.where(error > 0, np.inf, 0.0)
        return np.where(moved > 0, error / np.where(moved > 0, moved, 1.0), still)

    return {leaf: relative(leaf) for leaf in want}
