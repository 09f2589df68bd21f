"""The runs of a sweep: those that the store holds, and those that it must make."""

from collections.abc import Sequence

import numpy as np

from optzoo.compare.keep.store import Run, Store
from optzoo.compare.machine import agree
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
        self, rates: Sequence[float], seeds: Sequence[int], length: int | None = None
    ) -> np.ndarray:
        """Losses of all rates and seeds, of which the missing ones are computed.

        The shape is (rates, seeds, marks + 1): validation at the sweep's marks, and test after the
        last step. NaN where a loss is not finite.

        Args:
          rates, seeds: which runs.
          length: steps of a run, for a sweep that is told; its own number by default.
        """
        found = self._known(rates, seeds, length)
        missing = np.argwhere(np.isinf(found[..., -1]))
        if not len(missing):
            return found
        cells = [(rates[i], seeds[j]) for i, j in missing]
        outcome = self.sweep.run(cells, length)
        runs = [
            Run(
                *cell,
                {name: values[i].tolist() for name, values in outcome.curves.items()},
                {name: float(values[i]) for name, values in outcome.final.items()},
            )
            for i, cell in enumerate(cells)
        ]
        self.store.save(self._program(length), runs)
        self.computed += len(cells)
        return self._known(rates, seeds, length)

    def _known(
        self, rates: Sequence[float], seeds: Sequence[int], length: int | None
    ) -> np.ndarray:
        """As `losses`, infinite where a run is missing."""
        found = np.full((len(rates), len(seeds), len(self.sweep.marks) + 1), np.inf)
        for run in self.store.find(self._program(length), rates, seeds):
            losses = np.asarray([*run.curves["loss"], run.final["loss"]], float)
            place = rates.index(run.rate), seeds.index(run.seed)
            found[place] = np.where(np.isfinite(losses), losses, np.nan)
        return agree(found)

    def _program(self, length: int | None) -> str:
        return self.sweep.fingerprint + (f"@{length}" if length else "")
