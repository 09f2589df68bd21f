"""The runs of a sweep: those that the store holds, and those that it must make."""

from collections.abc import Sequence

import numpy as np

from optzoo.compare.keep.store import Run, Store
from optzoo.compare.machine import agree, device
from optzoo.compare.plan.tuners import Trial
from optzoo.compare.work.sweep import Sweep


class Kept:
    """A sweep whose runs are made once.

    Args:
      store: where they are kept; the first process's counts.
      sweep: what makes them.

    Attributes:
      computed: how many it has made.
    """

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self.store, self.sweep, self.computed = store, sweep, 0

    def losses(
        self, trials: Sequence[Trial], seeds: Sequence[int], length: int | None = None
    ) -> np.ndarray:
        """Losses of all trials and seeds, of which the missing ones are computed.

        The shape is (trials, seeds, marks + 1): validation at the sweep's marks, and test after the
        last step. NaN where a loss is not finite.

        Args:
          trials, seeds: which runs.
          length: steps of a run, for a sweep that is told; its own number by default.
        """
        found = self._known(trials, seeds, length)
        missing = np.argwhere(np.isinf(found[..., -1]))
        if not len(missing):
            return found
        cells = [(trials[i], seeds[j]) for i, j in missing]
        outcome = self.sweep.run(cells, length)
        runs = [
            Run(
                trial.rate,
                seed,
                {name: values[i].tolist() for name, values in outcome.curves.items()},
                {name: float(values[i]) for name, values in outcome.final.items()},
                dict(trial.options),
                device(),
            )
            for i, (trial, seed) in enumerate(cells)
        ]
        self.store.save(self.sweep.fingerprint, runs, length)
        self.computed += len(cells)
        return self._known(trials, seeds, length)

    def _known(
        self, trials: Sequence[Trial], seeds: Sequence[int], length: int | None
    ) -> np.ndarray:
        """As `losses`, infinite where a run is missing."""
        found = np.full((len(trials), len(seeds), len(self.sweep.marks) + 1), np.inf)
        rates = [trial.rate for trial in trials]
        for run in self.store.find(self.sweep.fingerprint, trials, seeds, length):
            losses = np.asarray([*run.curves["loss"], run.final["loss"]], float)
            place = rates.index(run.rate), seeds.index(run.seed)
            found[place] = np.where(np.isfinite(losses), losses, np.nan)
        return agree(found)
