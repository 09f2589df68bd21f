"""Saving a run and resuming it."""

import tempfile
from pathlib import Path
from typing import Any

import jax

from optzoo.testing.check import DoesNotApply, check, fail
from optzoo.testing.subject import Subject, random_like
from optzoo.testing.trees import agree, leaves_with_path


@check(
    "a state restored by Orbax continues bit for bit",
    "ocp.StandardCheckpointer().save(path, state), then restore(path, abstract_state)",
)
def orbax(subject: Subject) -> None:
    try:
        import orbax.checkpoint as ocp
    except ModuleNotFoundError:
        raise DoesNotApply("needs orbax-checkpoint") from None
    before, after = subject.gradients[:2], subject.gradients[2:]
    run = subject.run(subject.params, before, step=subject.step)
    saved = {"params": run.params, "state": run.state}
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
        path = Path(folder) / "step"
        checkpointer.save(path, saved)
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, saved)
        restored = checkpointer.restore(path, abstract)
    agree("restored leaves", restored, saved, rtol=0)
    resumed = subject.run(restored["params"], after, state=restored["state"], step=subject.step)
    straight = subject.run(run.params, after, state=run.state, step=subject.step)
    agree("after a restart the results", resumed, straight, rtol=0)


@check(
    "evaluation parameters are right from a state in host memory, in NumPy or without its types",
    "eval_params(jax.device_put(state, jax.memory.Space.Host), params)",
)
def evaluation_restored(subject: Subject) -> None:
    find = subject.eval_params
    if find is None:
        raise DoesNotApply("no eval_params given")
    run = subject.run(subject.params, random_like(subject.params, 10), step=subject.step)
    expected = find(run.state, run.params)
    host = jax.device_put(run.state, jax.memory.Space.Host)
    for place, state in {"host memory": host, "NumPy": jax.device_get(run.state)}.items():
        got = find(state, run.params)
        agree(f"from a state in {place} the evaluation parameters", got, expected, rtol=1e-6)
        for path, leaf in leaves_with_path(got):
            if not isinstance(leaf, jax.Array) or leaf.sharding.memory_kind == "pinned_host":
                fail(f"from a state in {place} the evaluation parameter {path} stays there")
    try:
        got = find(_raw(run.state), run.params)
    except ValueError:
        return
    agree("from plain dictionaries the evaluation parameters", got, expected, rtol=1e-6)


def _raw(state: Any) -> Any:
    """A state as a restore without a target returns it: named tuples as dicts, tuples as lists."""
    if isinstance(state, dict):
        return {name: _raw(value) for name, value in state.items()}
    if hasattr(state, "_asdict"):
        return _raw(state._asdict())
    return [_raw(value) for value in state] if isinstance(state, tuple | list) else state
