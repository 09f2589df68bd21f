"""Whether a model's activations keep their size as it grows wider, step after step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class CoordinateCheck:
    """Sizes of activations over widths and steps.

    Attributes:
      widths: the widths tried.
      sizes: name -> mean absolute value, one row a step (the first before any) and one column a
        width.
      tolerance: the largest exponent that counts as no change.
    """

    widths: tuple[int, ...]
    sizes: dict[str, np.ndarray]
    tolerance: float

    @property
    def exponents(self) -> dict[str, np.ndarray]:
        """name -> the power of the width by which the sizes grow, one a step."""
        across = np.log(self.widths)
        found = {}
        for name, sizes in self.sizes.items():
            logs = np.log(np.maximum(sizes, np.finfo(np.float32).tiny))
            found[name] = np.polyfit(across, logs.T, 1)[0]
        return found

    @property
    def off(self) -> dict[str, float]:
        """What grows with the width at some step, or shrinks after the last, and its exponent.

        Smaller outputs of a wider model are as they should be before the first step.
        """
        found = {}
        for name, powers in self.exponents.items():
            largest = float(np.max(powers))
            worst = largest if largest > self.tolerance else float(powers[-1])
            if not abs(worst) <= self.tolerance:
                found[name] = worst
        return found

    def __str__(self) -> str:
        steps = len(next(iter(self.sizes.values())))
        head = "activation: power of the width by which it grows, after 0 to "
        lines = [f"{head}{steps - 1} steps"]
        off = self.off
        for name, powers in self.exponents.items():
            row = " ".join(f"{power:+.2f}" for power in powers)
            lines.append(f"{name}: {row}{'  is off' if name in off else ''}")
        return "\n".join(lines)


def coordinate_check(
    train: Callable[[int], Iterable[Mapping[str, jax.Array]]],
    widths: Sequence[int],
    *,
    tolerance: float = 0.2,
) -> CoordinateCheck:
    """Trains a model in several widths for a few steps, and measures its activations.

    Under µP no activation may grow with the width at any step, and none may vanish once the model
    is trained. `print` the result; `.off` names what is wrong.

    Args:
      train: a function of the width that builds the model, its parameters and its optimizer,
        trains, and yields the activations by name: once before the first step and once after each,
        always on the same inputs.
      widths: two or more widths, best a factor of two apart.
      tolerance: the largest power of the width that counts as no change.

    Returns:
      The check.

    Raises:
      ValueError: for fewer than two widths, or where they yield different activations.

    Source: Yang et al. 2022, arXiv 2203.03466, appendix D.1, and microsoft/mup.
    """
    if len(set(widths)) < 2 or min(widths) < 1:
        raise ValueError(f"coordinate_check: widths must be two or more; got {widths!r}")
    runs = []
    for width in widths:
        rows: dict[str, list[float]] = {}
        for activations in train(width):
            for name, x in activations.items():
                rows.setdefault(name, []).append(float(jnp.mean(jnp.abs(x))))
        runs.append(rows)
    lengths = {tuple((name, len(row)) for name, row in rows.items()) for rows in runs}
    if len(lengths) > 1 or not runs[0]:
        raise ValueError("coordinate_check: train must yield the same activations in every width")
    sizes = {name: np.array([rows[name] for rows in runs]).T for name in runs[0]}
    return CoordinateCheck(tuple(widths), sizes, tolerance)
