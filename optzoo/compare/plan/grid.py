"""The learning rates to try."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from optzoo.compare.errors import UserError

FALLBACK = 1e-3
MAX_GROWTH = 3
APART = 1.02


@dataclass(frozen=True)
class Grid:
    """A list of learning rates, absolute or as multiples of each rule's own default.

    Attributes:
      values: the rates or the multiples, in rising order.
      relative: whether they are multiples.
    """

    values: tuple[float, ...]
    relative: bool

    @classmethod
    def parse(cls, text: str) -> "Grid":
        """Reads "0.001,0.01" (learning rates) or "x0.1,x1,x10" (multiples of the defaults).

        Raises:
          UserError: if the list is empty, mixes both kinds, or holds anything but positive numbers.
        """
        words = [word.strip() for word in text.split(",") if word.strip()]
        relative = {word.startswith("x") for word in words}
        if len(relative) > 1:
            raise UserError(f"learning rates {text!r} mix multiples (x0.1) with rates (0.1)")
        try:
            values = [float(word.removeprefix("x")) for word in words]
        except ValueError as error:
            raise UserError(f"learning rates {text!r} are not numbers") from error
        return cls.of(values, relative=True in relative)

    @classmethod
    def of(cls, values: Sequence[float], *, relative: bool = False) -> "Grid":
        """A grid of the given values, sorted, each once.

        Raises:
          UserError: if there are none, one is not a positive number, or two are too near to each
            other to be told apart.
        """
        if not values:
            raise UserError("the list of learning rates is empty")
        for value in values:
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise UserError(f"learning rates must be positive numbers, not {value!r}")
        ordered = tuple(sorted({float(value) for value in values}))
        for low, high in pairwise(ordered):
            # Of multiples the rounded products must differ, too.
            near = high < APART * low if relative else _tidy(high) == _tidy(low)
            if near:
                least = (
                    f"by {APART - 1:.0%} at least" if relative else "in their first three digits"
                )
                raise UserError(f"learning rates {low!r} and {high!r} must differ {least}")
        return cls(ordered, relative)

    def rates(self, default: float) -> list[float]:
        """The learning rates to try for a rule whose own default is `default`."""
        return [_tidy(default * value) if self.relative else value for value in self.values]

    def beyond(self, rates: Sequence[float], best: float) -> list[float]:
        """As many rates as `values` on the side where `best` is the outermost of `rates`.

        None if it is inside, or if the grid has grown `MAX_GROWTH` times already. Only a relative
        grid grows: whoever lists learning rates gets exactly those.
        """
        count = len(self.values)
        grown = len(rates) // count - 1
        if not self.relative or count < 2 or best not in (rates[0], rates[-1]):
            return []
        if grown >= MAX_GROWTH:
            return []
        ratio = (self.values[-1] / self.values[0]) ** (1 / (count - 1))
        powers = range(1, count + 1) if best == rates[-1] else range(-count, 0)
        return [_tidy(best * ratio**power) for power in powers]


DEFAULT = Grid((0.1, 10**-0.5, 1.0, 10**0.5, 10.0), relative=True)


def _tidy(rate: float) -> float:
    """Three digits: the same everywhere that a rate is printed, stored and looked up."""
    return float(f"{rate:.3g}")
