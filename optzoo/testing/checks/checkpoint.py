"""Saving a run and resuming it."""

import tempfile
from pathlib import Path

import jax

from optzoo.testing.check import DoesNotApply, check
from optzoo.testing.subject import Subject
from optzoo.testing.trees import agree


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
