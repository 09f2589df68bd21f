"""Odd quintics a·x + b·x³ + c·x⁵ whose composition brings singular values to 1."""

from typing import Annotated, TypeAlias

import numpy as np

from optzoo.primitives.base import Range, checked

Coefficients: TypeAlias = tuple[tuple[float, float, float], ...]

KELLER_JORDAN: Coefficients = ((3.4445, -4.7750, 2.0315),)
"""The original Muon's, one for all steps: singular values land in about [0.68, 1.13]."""

DION: Coefficients = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Those of Dion's code, tuned by Jiacheng You for five steps in bfloat16."""

MODULA: Coefficients = tuple(
    (a / 1024, b / 1024, c / 1024)
    for a, b, c in (
        (3955, -8306, 5008),
        (3735, -6681, 3463),
        (3799, -6499, 3211),
        (4019, -6385, 2906),
        (2677, -3029, 1162),
        (2172, -1833, 682),
    )
)
"""Those of Modula's code, for six steps."""


@checked
def polar_express(
    steps: Annotated[int, Range("[1, inf)")] = 5,
    *,
    smallest: Annotated[float, Range("(0, 1)")] = 1e-3,
    cushion: Annotated[float, Range("(0, 1)")] = 0.02407327424182761,
    safety: Annotated[float, Range("(0, inf)")] = 1.01,
) -> Coefficients:
    """The quintics that are optimal one after the other: each makes the largest error smallest.

    Rule, from [l, u] = [smallest, 1]:
      p = the odd quintic nearest to 1 on [max(l, cushion·u), u], scaled so that p(l) + p(u) = 2
      [l, u] ← [p(l), 2 − p(l)];   all steps but the last are then evaluated at x/safety

    Args:
      steps: how many; more than needed repeat (15, −10, 3)/8 in the end.
      smallest: singular values, relative to the matrix's norm, that are to arrive at 1.
      cushion: bounds the first polynomials' slope at 0, which would amplify rounding.
      safety: keeps singular values that rounding pushed above u from diverging.

    Returns:
      (a, b, c) of each step.

    Raises:
      ValueError: for an argument out of range.

    Source: Amsel et al. 2025, arXiv 2505.16932; the defaults are its code's.
    """
    powers = np.array([1, 3, 5])
    low, high = smallest, 1.0
    found: list[tuple[float, float, float]] = []
    for step in range(steps):
        p = _nearest_to_one(max(low, cushion * high), high)
        at_low, at_high = (float(end**powers @ p) for end in (low, high))
        scale = 2 / (at_low + at_high)
        low, high = scale * at_low, scale * at_high
        reach = safety if step < steps - 1 else 1.0
        a, b, c = (p * scale / reach**powers).tolist()
        found.append((a, b, c))
    return tuple(found)


def _nearest_to_one(low: float, high: float) -> np.ndarray:
    """Coefficients of the odd quintic with the smallest maximal distance from 1 on [low, high].

    Remez' exchange: the error alternates at the ends and at the two inner extrema.
    """
    powers = np.array([1, 3, 5])
    if high - low < 1e-5 * high:
        return np.array([15, -10, 3]) / 8 * ((low + high) / 2) ** -powers
    inner = low + (high - low) * np.array([0.25, 0.75])
    for _ in range(50):
        points = np.array([low, *inner, high])[:, None]
        *p, _ = np.linalg.solve(np.hstack([points**powers, [[1], [-1], [1], [-1]]]), np.ones(4))
        a, b, c = p
        # The derivative a + 3b·x² + 5c·x⁴ is a quadratic in x².
        inner = np.sqrt((-3 * b + np.array([-1, 1]) * np.sqrt(9 * b * b - 20 * a * c)) / (10 * c))
    return np.array(p)
