"""What a compiled program does, counted from its text: kernels, bytes, products, collectives."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

COLLECTIVES = {
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
}
_FREE = {
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
_ENTRY_BY_ENTRY = {
    *("abs", "add", "bitcast", "clamp", "compare", "convert", "copy", "divide", "exponential"),
    *("maximum", "minimum", "multiply", "negate", "power", "rsqrt", "select", "sign", "sqrt"),
    *("subtract", "tanh", "transpose"),
}
_BODIES = {"while": "body", "call": "to_apply", "conditional": "branch_computations"}
_COMPUTATION = re.compile(r"(ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.-]+) = ((?:\(.*?\)|\S+)) ([a-z][a-z0-9-]*)\((.*)")
_SHAPE = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\](\{[^}]*\})?")
_FAST_MEMORY = re.compile(r"S\([1-9]\)")
_REFERENCE = re.compile(r"%([\w.-]+)")


@dataclass(frozen=True)
class Instruction:
    """One line: its opcode, the type of its result, the names it reads and the rest of the text."""

    opcode: str
    result: str
    operands: tuple[str, ...]
    rest: str

    @property
    def runs(self) -> bool:
        """Whether it is a kernel or a copy: other lines are names, or the end of a transfer."""
        glue = self.opcode == "custom-call" and "ConcatBitcast" in self.rest
        return not (self.opcode in _FREE or self.opcode.endswith(("-done", "-update")) or glue)

    @property
    def kind(self) -> str:
        """The opcode of both halves of an asynchronous operation."""
        return self.opcode.removesuffix("-start")

    def called(self, attribute: str) -> list[str]:
        """The computations that an attribute names."""
        found = re.search(attribute + r"=(\{[^}]*\}|%[\w.-]+)", self.rest)
        return _REFERENCE.findall(found[1]) if found else []


def size(type_text: str, *, everywhere: bool = False) -> int:
    """Bytes of main memory of a type; `everywhere` counts arrays in fast on-chip memory, too."""
    return (
        sum(
            math.prod(int(n) for n in dims.split(",") if n)
            * (8 if kind == "pred" else int(bits or 0))
            for kind, bits, dims, layout in _SHAPE.findall(type_text)
            if everywhere or not _FAST_MEMORY.search(layout)
        )
        // 8
    )


class Program:
    """A compiled program, from `compiled.as_text()`.

    Bodies of loops count as often as they run, where the text says how often.
    """

    def __init__(self, text: str):
        self._computations: dict[str, dict[str, Instruction]] = {}
        self._entry = ""
        lines: dict[str, Instruction] = {}
        for line in text.splitlines():
            if begin := _COMPUTATION.match(line):
                lines = self._computations[begin[2]] = {}
                self._entry = begin[2] if begin[1] else self._entry
            elif found := _INSTRUCTION.match(line):
                _, name, result, opcode, rest = found.groups()
                operands, _, _ = rest.partition(")")
                lines[name] = Instruction(opcode, result, tuple(_REFERENCE.findall(operands)), rest)

    @cached_property
    def _executed(self) -> list[tuple[dict[str, Instruction], Instruction, int]]:
        return list(self._walk(self._entry, 1))

    def _walk(self, name: str, times: int) -> Iterator[tuple]:
        lines = self._computations[name]
        for instruction in lines.values():
            if attribute := _BODIES.get(instruction.opcode):
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.rest)
                for body in instruction.called(attribute):
                    yield from self._walk(body, times * int(trips[1] if trips else 1))
            elif instruction.runs:
                yield lines, instruction, times

    @property
    def kernels(self) -> int:
        """Operations that run one after the other, copies included, transfers beside them not."""
        return sum(n for _, line, n in self._executed if not line.opcode.endswith("-start"))

    @property
    def opcodes(self) -> Counter[str]:
        """How often each opcode runs, those inside fusions not counted."""
        counts: Counter[str] = Counter()
        for _, instruction, times in self._executed:
            counts[instruction.kind] += times
        return counts

    @property
    def collectives(self) -> Counter[str]:
        """How often each collective runs."""
        return Counter({kind: n for kind, n in self.opcodes.items() if kind in COLLECTIVES})

    @property
    def copies(self) -> int:
        """Copies between buffers of main memory, which no algorithm asks for."""
        return sum(
            times
            for _, instruction, times in self._executed
            if instruction.kind == "copy" and not _FAST_MEMORY.search(instruction.result)
        )

    @property
    def products(self) -> int:
        """Matrix products, wherever they are."""
        return sum(
            line.opcode in ("dot", "convolution")
            or (line.opcode == "custom-call" and "matmul" in line.rest)
            for lines in self._computations.values()
            for line in lines.values()
        )

    @property
    def traffic(self) -> int:
        """Bytes that kernels read from and write to main memory."""
        return sum(times * self._moved(lines, line) for lines, line, times in self._executed)

    def _moved(self, lines: dict[str, Instruction], line: Instruction) -> int:
        if line.opcode.endswith("-start"):
            # The result repeats the operand: (operand, destination, …).
            source, *_ = line.operands
            whole = size(lines[source].result)
            destination = size(line.result) - whole
            taken = size(line.result, everywhere=True) - size(lines[source].result, everywhere=True)
            return min(whole, taken) + destination
        fused = line.called("calls") if line.opcode == "fusion" else []
        read = sum(
            min(size(lines[name].result), self._read(fused[0], index))
            if fused
            else size(lines[name].result)
            for index, name in enumerate(line.operands)
            if name not in line.operands[:index]
        )
        return read + size(line.result)

    def _read(self, computation: str, index: int) -> int:
        """Bytes of its parameter that a fusion reads: less than all where it only slices it."""
        lines = self._computations[computation]
        name = next(
            name
            for name, line in lines.items()
            if line.opcode == "parameter" and line.rest.startswith(f"{index})")
        )
        return self._used(lines, name)

    def _used(self, lines: dict[str, Instruction], name: str) -> int:
        """Bytes of an array that the lines of a fusion use, which computes what it writes alone."""
        whole = size(lines[name].result, everywhere=True)
        total = 0.0
        users = [
            (other, user, place)
            for other, user in lines.items()
            for place, operand in enumerate(user.operands)
            if operand == name
        ]
        for other, user, place in users:
            if user.opcode in ("slice", "dynamic-slice"):
                total += size(user.result, everywhere=True)
            elif user.opcode == "fusion":
                total += self._read(user.called("calls")[0], place)
            elif user.opcode in _ENTRY_BY_ENTRY and (made := size(user.result, everywhere=True)):
                total += whole * self._used(lines, other) / made
            else:
                return whole
        return round(total) if users else whole
