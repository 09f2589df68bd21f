"""Giving work out: the costliest first, small ones together, and again what got lost."""

import pickle
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from optzoo.compare.engines import versions
from optzoo.compare.engines.versions import OtherVersion
from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

TRIES = 3
# Units go together as long as they are no more than this share of all the work.
SHARE = 1 / 256
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """Why a unit has no result."""

    reason: str


def spread(
    executor: Executor,
    compute: Callable[[T], Any],
    units: Sequence[T],
    costs: Sequence[float],
    expected: Mapping[str, str],
) -> Generator[tuple[T, Any], None, None]:
    """Computes units by an executor; gives each with its result as soon as that is there.

    What fails or gets lost with a worker is given out again, alone, and is a `Failure` when it has
    had `TRIES`. Ended early, it cancels what has not begun.

    Args:
      executor: what computes.
      compute: a function of one unit, of a module that workers can import.
      units: what to compute.
      costs: what each costs, roughly and in any measure.
      expected: the versions that a worker must have; see `versions.versions`.

    Raises:
      UserError: if a unit cannot be sent, the executor takes no more, or a worker has other
        versions.
    """
    tries = Counter[int]()
    pending: dict[Future[Any], list[int]] = {}

    def give(places: list[int]) -> None:
        content = _packed((compute, [units[place] for place in places]))
        try:
            pending[executor.submit(_computed, dict(expected), content)] = places
        except RuntimeError as error:
            reason = f"the workers take no more: {one_line(error)}; what is finished is kept"
            raise UserError(reason) from error

    try:
        for places in batches(costs):
            give(places)
        while pending:
            # Python sees a signal that comes right before a wait only when that is over.
            finished, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            for future in finished:
                places = pending.pop(future)
                for place, result in zip(places, _results(future, len(places)), strict=True):
                    tries[place] += 1
                    if isinstance(result, Failure) and tries[place] < TRIES:
                        give([place])
                    else:
                        yield units[place], result
    finally:
        for future in pending:
            future.cancel()


def batches(costs: Sequence[float]) -> list[list[int]]:
    """The places of all costs, the highest first, small ones together."""
    limit, filled = SHARE * sum(costs), 0.0
    found = list[list[int]]()
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        filled += costs[place]
        if not found or filled > limit:
            found.append([])
            filled = costs[place]
        found[-1].append(place)
    return found


def _results(future: Future[Any], count: int) -> list[Any]:
    try:
        found = future.result()
    except Exception as error:
        return [Failure(one_line(error))] * count
    if isinstance(found, OtherVersion):
        raise found
    return found


def _computed(expected: dict[str, str], content: bytes) -> list[Any] | OtherVersion:
    """What a worker does: it reads the content if it has the versions that this comes from.

    Not every engine hands on exceptions as they are, so they are results.
    """
    try:
        versions.check(expected)
    except OtherVersion as error:
        return error
    compute, units = pickle.loads(content)
    return [_tried(compute, unit) for unit in units]


def _tried(compute: Callable[[T], Any], unit: T) -> Any:
    try:
        return compute(unit)
    except UserError as error:
        return Failure(str(error))
    except Exception as error:
        return Failure(one_line(error))


def _packed(content: Any) -> bytes:
    """Bytes for any process; functions without a name need what most engines bring along."""
    try:
        import cloudpickle
    except ImportError:
        cloudpickle = pickle
    try:
        return cloudpickle.dumps(content)
    except Exception as error:
        raise UserError(f"an optimizer or a problem cannot be sent: {one_line(error)}") from error
