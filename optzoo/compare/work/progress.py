"""How far a comparison is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a comparison is; told after every optimizer on every problem.

    Attributes:
      done: finished pairs of optimizer and problem.
      total: all pairs.
      label: the pair that has just finished, in words.
      computed: how many of its runs were computed now.
      reused: how many were in the store already.
      seconds_left: an estimate.
    """

    done: int
    total: int
    label: str
    computed: int
    reused: int
    seconds_left: float
