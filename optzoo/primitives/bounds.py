"""What convex theory says of a schedule before it is run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optzoo.primitives.base import Positive, Schedule, checked


class ScheduleBound(NamedTuple):
    """A bound on the last iterate's excess loss, by the factor on the schedule.

    With the schedule times r it is start/r + r·noise.

    Attributes:
      start: the part that a larger rate lowers, from the distance to go.
      noise: the part that a larger rate raises, from the gradients' norms.
    """

    start: float
    noise: float

    @property
    def rate(self) -> float:
        """The best factor on the schedule."""
        return float(np.sqrt(self.start / self.noise))

    @property
    def value(self) -> float:
        """The bound with the best factor."""
        return float(2 * np.sqrt(self.start * self.noise))


@checked
def schedule_bound(
    schedule: Schedule,
    norms: jax.typing.ArrayLike,
    *,
    distance: Positive = 1.0,
) -> ScheduleBound:
    """How good a schedule is for SGD on a convex loss, from gradient norms alone.

    It ranks schedules, shows what a cooldown gains, and moves a tuned rate to a longer run:
    rate·schedule_bound(longer, …).rate/schedule_bound(shorter, …).rate. On real networks the
    orders that it gives have been found to hold, its values not.

    Rule:
      start = distance²/(2·Σ η), sums over all steps
      noise = Σ η²n²/(2·Σ η) + ½·Σ η_k·E_k/(S_k·(S_k + η_k)) over all steps k but the last
      S_k = Σ η of the steps after k;   E_k = Σ η²n² of k and the steps after it

    Args:
      schedule: a schedule of the number of finished steps; steps at its end whose rate is 0, which
        move nothing, are left out.
      norms: the l2 norm of every step's gradient; `optzoo.record_norms` records them.
      distance: from the start to the solution; it scales the rate and the bound, for all schedules
        alike.

    Returns:
      The bound.

    Raises:
      ValueError: for a distance out of range, for norms that are not a row of positive numbers, or
        for rates below 0 or none above.

    Source: Defazio et al. 2023, arXiv 2310.07831, theorem 10, as used by Schaipp et al. 2025,
    arXiv 2501.18965; code fabian-sp/lr-scheduling.
    """
    sizes = np.asarray(norms, np.float64)
    if sizes.ndim != 1 or not np.all((sizes > 0) & np.isfinite(sizes)):
        raise ValueError(
            f"schedule_bound: norms must be a row of positive numbers; got shape {sizes.shape}, "
            f"from {sizes.min(initial=np.inf)} to {sizes.max(initial=0)}"
        )
    counts = jnp.arange(len(sizes), dtype=jnp.int32)
    rates = np.asarray(jax.vmap(lambda count: jnp.asarray(schedule(count), float))(counts))
    rates = np.trim_zeros(rates.astype(np.float64), "b")
    if not len(rates) or not np.all((rates >= 0) & np.isfinite(rates)):
        raise ValueError(
            "schedule_bound: schedule must give rates from 0 up, and some above; "
            f"got {rates.min(initial=0)} to {rates.max(initial=0)}"
        )
    energy = np.cumsum(np.square(rates * sizes[: len(rates)])[::-1])[::-1]
    whole = np.cumsum(rates[::-1])[::-1]
    later = whole[1:]
    rest = np.sum(rates[:-1] * energy[:-1] / (later * whole[:-1]))
    start = float(jnp.asarray(distance)) ** 2 / (2 * whole[0])
    return ScheduleBound(float(start), float((energy[0] / whole[0] + rest) / 2))
