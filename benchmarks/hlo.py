"""Exact counts from a compiled program's text: kernels, bytes moved, collectives."""

import math
import re
from dataclasses import dataclass, field

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_FREE = {
    "after-all",
    "bitcast",
    "constant",
    "domain",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
_BITS = {"pred": 8, "token": 0, "bf16": 16}
_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.-]+) = (.*)")
_SHAPE = re.compile(r"\b(pred|token|bf16|[fsuc]\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_OPCODE = re.compile(r"\s*([a-z][a-z0-9-]*)\((.*)")
_CALLED = re.compile(r"(?:to_apply|calls|body|called_computations=\{)=?%?([\w.-]+)")


@dataclass(frozen=True)
class Instruction:
    """One line of a program: its opcode, its result's type and what it reads."""

    name: str
    opcode: str
    result: str
    operands: tuple[str, ...]
    rest: str
    root: bool

    @property
    def called(self) -> str | None:
        found = _CALLED.search(self.rest)
        return found[1] if found else None

    @property
    def repeats(self) -> int:
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.rest)
        return int(found[1]) if found else 1


def size(type_text: str) -> int:
    """Bytes of main memory of an HLO type; arrays in a fast memory space count nothing."""
    return sum(
        math.prod(int(n) for n in dims.split(",") if n) * _bits(kind) // 8
        for kind, dims, layout in _SHAPE.findall(type_text)
        if not re.search(r"S\([1-9]\)", layout)
    )


def _bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    bits = int(re.match(r"\D(\d+)", kind)[1])
    return bits


@dataclass(frozen=True)
class Program:
    """A compiled program, read from `compiled.as_text()`.

    Attributes:
      text: the program.
    """

    text: str
    _names: dict = field(default_factory=dict, repr=False)
