"""What a traced program computes, as a digest: equal for equal programs, another for any other."""

import dataclasses
import enum
import hashlib
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, array_types
from jax.sharding import AbstractMesh, Mesh, PartitionSpec, Sharding
from jaxlib.version import __version__ as jaxlib_version

# They have a say in what a program computes, but need not show in its equations.
SETTINGS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_random_seed_offset")
# What these carry beside jaxprs is called by differentiation alone, which tracing is done with.
DIFFERENTIABLE = {"checkpoint", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
# Machine code from elsewhere, known by nothing but its name.
FOREIGN = {"ffi_call"}
# Some versions of JAX keep literals in a class of their own.
ARRAYS = (np.ndarray, np.generic, jax.Array, *array_types)
GENERATORS = (random.threefry_prng_impl, random.rbg_prng_impl, random.unsafe_rbg_prng_impl)
# Their text says everything, and the same in every process.
PRINTED = (
    type(None),
    str,
    bytes,
    complex,
    np.dtype,
    jax.core.AbstractValue,
    jax.tree_util.PyTreeDef,
    AbstractMesh,
    Mesh,
    PartitionSpec,
    Sharding,
)
CAPTURED = "a captured value"


class Fingerprint(NamedTuple):
    """What `fingerprint` read.

    Attributes:
      digest: tells the programs from all others, as far as they can be seen.
      unseen: the operations whose work they do not tell: callbacks, foreign code, unknown objects.
    """

    digest: str
    unseen: tuple[str, ...]


def fingerprint(*programs: ClosedJaxpr, beside: Any = None) -> Fingerprint:
    """Reads traced programs: operations, parameters, types, captured values, at every depth.

    The version of JAX, the kind of device and settings that change numbers count, too; the version
    of optzoo does not, whose part in a program is in the program.

    Args:
      programs: what `jax.make_jaxpr` or `jax.jit(f).trace(…).jaxpr` gives.
      beside: numbers, arrays, texts and containers of them that count, too.
    """
    reader = _Reader()
    surroundings = [jax.__version__, jaxlib_version, jax.default_backend()]
    surroundings += [jax.config.values.get(name) for name in SETTINGS]
    digest = _sha256(reader.text([surroundings, beside, *programs], ""))
    return Fingerprint(digest, tuple(sorted(reader.unseen)))


class _Reader:
    """Writes out what it is given so that different things never read alike.

    Texts are quoted, all else is bracketed and led by its kind.
    """

    def __init__(self) -> None:
        self.unseen = set[str]()
        # The jaxprs themselves, too, lest their ids be given away.
        self._bodies: dict[int, tuple[Jaxpr, str]] = {}

    def text(self, value: Any, owner: str) -> str:
        """`owner` is the operation that the value belongs to."""
        kind = type(value).__qualname__
        if isinstance(value, ClosedJaxpr):
            return f"{self._body(value.jaxpr)}{self.text(value.consts, CAPTURED)}"
        if isinstance(value, Jaxpr):
            return self._body(value)
        if isinstance(value, Primitive):
            return self._primitive(value)
        if isinstance(value, enum.Enum):
            return f"{kind}({value.name})"
        if isinstance(value, ARRAYS):
            return self._array(value, owner)
        if isinstance(value, float):
            # Subclasses print otherwise, and have a dtype, which the program's types tell.
            return f"{kind}({value.hex()})"
        if isinstance(value, int):
            return f"{kind}({int(value)})"
        if isinstance(value, PRINTED):
            dtype = getattr(value, "dtype", None)
            extended = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended)
            return f"{kind}({str(value)!r}){self.text(dtype, owner) if extended else ''}"
        generator = getattr(value, "_impl", value)
        if isinstance(generator, type(GENERATORS[0])) and generator in GENERATORS:
            # The types of keys only name what draws their numbers, which may be somebody's own.
            return f"{kind}({generator.name!r})"
        if isinstance(value, Mapping):
            pairs = [f"{self.text(key, owner)}:{self.text(value[key], owner)}" for key in value]
            return f"{kind}[{','.join(sorted(pairs))}]"
        if isinstance(value, tuple | list | set | frozenset):
            items = [self.text(item, owner) for item in value]
            ordered = items if isinstance(value, tuple | list) else sorted(items)
            return f"{kind}[{','.join(ordered)}]"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return f"{kind}{self.text(fields, owner)}"
        if owner != CAPTURED and _is_open(value):
            return f"{kind}{self.text(vars(value), owner)}"
        if owner not in DIFFERENTIABLE:
            self.unseen.add(owner)
        return kind

    def _body(self, jaxpr: Jaxpr) -> str:
        if id(jaxpr) not in self._bodies:
            self._bodies[id(jaxpr)] = jaxpr, _sha256("\n".join(self._lines(jaxpr)))
        return f"jaxpr({self._bodies[id(jaxpr)][1]})"

    def _lines(self, jaxpr: Jaxpr) -> Iterator[str]:
        """One equation a line; variables go by the order that they appear in."""
        places: dict[Any, int] = {}

        def bind(variables: Iterable[Any], owner: str) -> str:
            for variable in variables:
                places[variable] = len(places)
            return self.text([variable.aval for variable in variables], owner)

        def use(atoms: Iterable[Any], owner: str) -> str:
            return self.text(
                [
                    ("literal", atom.val, atom.aval) if isinstance(atom, Literal) else places[atom]
                    for atom in atoms
                ],
                owner,
            )

        yield bind(jaxpr.constvars, CAPTURED)
        yield bind(jaxpr.invars, CAPTURED)
        for equation in jaxpr.eqns:
            name, context = equation.primitive.name, equation.ctx
            told = [
                equation.primitive,
                equation.params,
                sorted(type(effect).__qualname__ for effect in equation.effects),
                context.compute_type,
                context.threefry_partitionable,
                context.xla_metadata,
            ]
            taken = use(equation.invars, name)
            yield f"{self.text(told, name)}{taken}{bind(equation.outvars, name)}"
        yield use(jaxpr.outvars, CAPTURED)

    def _primitive(self, primitive: Primitive) -> str:
        if primitive.name in FOREIGN or not _is_of_jax(primitive):
            self.unseen.add(primitive.name)
        return f"Primitive({primitive.name!r})"

    def _array(self, value: Any, owner: str) -> str:
        if not getattr(value, "is_fully_addressable", True) or value.dtype == object:
            self.unseen.add(owner)
            return "array"
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return f"{self.text(value.dtype, owner)}{_contents(jax.random.key_data(value))}"
        return _contents(value)


def _is_open(value: Any) -> bool:
    """Whether it is an object of JAX's own that keeps all it has in plain attributes."""
    kind = type(value)
    slots = any("__slots__" in vars(base) for base in kind.__mro__)
    return kind.__module__.startswith("jax.") and not slots and hasattr(value, "__dict__")


@cache
def _is_of_jax(primitive: Primitive) -> bool:
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "jax"]
    return any(value is primitive for module in modules for value in list(vars(module).values()))


# Arrays of JAX never change, so a data set that many programs share is read once.
_READ: dict[int, tuple[weakref.ref[Any], str]] = {}


def _contents(array: Any) -> str:
    found = _READ.get(id(array))
    if found and found[0]() is array:
        return found[1]
    flat = np.ascontiguousarray(np.asarray(array)).reshape(-1)
    digest = hashlib.sha256(flat.view(np.uint8).data).hexdigest()
    text = f"array({str(array.dtype)!r},{array.shape},{digest})"
    if isinstance(array, jax.Array):
        place = id(array)
        _READ[place] = weakref.ref(array, lambda _: _READ.pop(place, None)), text
    return text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
