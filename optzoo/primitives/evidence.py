"""What a tree of parameters tells about its leaves: read once, before any leaf is judged.

A leaf's name is a convention and its shape alone is mute; its neighbours prove things. The scale of
a norm has one axis, so a second one counts stacked layers; its size is the width of the model; the
bias beside a kernel has the shape of its outputs. Nothing here depends on a leaf's numbers.
"""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import jax
import numpy as np

from optzoo.primitives.base import Tree

AxisNames: TypeAlias = tuple[str | None, ...]


@dataclass(frozen=True)
class Seen:
    """A leaf and what its tree proves of it.

    Attributes:
      path: "a/b/c".
      shape: its shape.
      names: the model's own names of its axes, None for those without.
      vector: whether rank, name or neighbours tell that it is no matrix.
      stacked: the axes along which independent leaves are stacked.
      rest: the other axes.
      bias: the shape of the bias beside it, without stacked axes; None without a bias.
      width: the size of the model's width, if the leaf has an axis of that size.
      transposed: whether the kernels of its neighbourhood are (out, in), as their biases prove;
        None where there is no proof.
      guessed: whether a name that no other leaf bears out is all that tells of a stack.
    """

    path: str
    shape: tuple[int, ...]
    names: AxisNames
    vector: bool
    stacked: tuple[int, ...] = ()
    rest: tuple[int, ...] = ()
    bias: tuple[int, ...] | None = None
    width: int | None = None
    transposed: bool | None = None
    guessed: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of `rest`."""
        return tuple(self.shape[axis] for axis in self.rest)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the name that says what the leaf is."""
        return words(owner_name(self.path, raw=True))


def gather(tree: Tree) -> dict[str, Seen]:
    """All leaves of a tree under their paths, in time linear in their number."""
    leaves = jax.tree_util.tree_leaves_with_path
    named = {
        path_name(path): _axis_names(node)
        for path, node in leaves(tree, is_leaf=_is_box)
        if _is_box(node)
    }
    found = []
    for path, leaf in leaves(tree):
        name, shape = path_name(path), np.shape(leaf)
        names = named.get(name, ())
        fitting = names if len(names) == len(shape) else (None,) * len(shape)
        found.append((name, shape, fitting))
    return judge(tuple(found))


def _is_box(node: Any) -> bool:
    """Whether a node is one of Flax's boxes around an array, which may know its axes by name."""
    return hasattr(type(node), "get_metadata") or hasattr(type(node), "get_partition_spec")


def _axis_names(box: Any) -> AxisNames:
    names: Any = getattr(box, "names", None)
    if hasattr(type(box), "get_metadata"):
        metadata = box.get_metadata()
        kinds = ("sharding_names", "out_sharding", "sharding")
        names = next((metadata[kind] for kind in kinds if metadata.get(kind)), None)
    if not isinstance(names, Iterable):
        return ()
    return tuple(name if isinstance(name, str) else None for name in names)


def path_name(path: tuple[Any, ...]) -> str:
    """A leaf's key path as "a/b/c", without the `.value` of Flax's boxes around arrays."""
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def ancestry(path: str) -> Iterator[str]:
    """The path, its parent, and so on up to the root, ""."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def plain(name: str) -> str:
    """A name in lower case, without underscores and final digits."""
    return name.replace("_", "").rstrip("0123456789").lower()


def words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, without digits: ToQKV_0 is ("to", "qkv")."""
    return tuple(map(str.lower, re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)))


def own_name(path: str) -> tuple[str, str]:
    """A leaf's module and its name; an index after "weight" or "bias" belongs to a container."""
    module, _, name = path.rpartition("/")
    if name.isdigit() and plain(module.rpartition("/")[2]).rstrip("es") in ("weight", "bia"):
        module, _, name = module.rpartition("/")
    return module, name


def layer_key(path: str) -> tuple[str, str]:
    """What a kernel and its bias share: their module, and their names but for what tells them."""
    module, name = own_name(path)
    if name.isdigit() and module.rpartition("/")[2].isdigit():
        return module, ""
    index = "" if path.endswith(name) else path.rpartition("/")[2]
    return module, re.sub(_KIND, "", name) + index


def owner_name(path: str, *, raw: bool = False) -> str:
    """The name that says what a leaf is: its module's where its own is just "kernel"."""
    module, name = own_name(path)
    if module and plain(name) in KERNELS:
        name = module.rpartition("/")[2]
    return name if raw else plain(name)


KERNELS = ("kernel", "weight", "weights", "w")
# Patterns are texts, which `re` compiles when they are first needed: importing stays cheap.
# Names are compared in lower case, without underscores and final digits: Embed_0 is "embed".
_BIAS = r"\w*bias(es)?|b|beta|offset"
_KIND = r"kernel|weights?|bias(es)?|scale|gamma|beta|offset|(^|_)[wWb](?=_?\d*$)"
_SCALE = r"\w*scale|gamma"
_NORM = r"\w*norm|\w*ln|ln\w?|bn\w?|\w*bn"
_QUERY_NORM = r"\w*(q|k|query|key)(layer)?(norm|ln)\w*"
PROJECTION = r"(to|w)?(q|k|v|kv|qkv|query|key|value|querykeyvalue)(proj|projection)?"
# These are compared with the name as it stands, whose case and digits tell.
_LIFTED = r"(?:(?:Scan|Vmap|Checkpoint|Remat)(?=[A-Z]))+"
_STACK = r"(\w*_)?(layers|blocks|experts)|(scan|stacked)\w*|expert"
_INDEX = r"\d+|(layer|block|expert)s?_?\d+"
_STACKED_AXIS = r"layers?|blocks?|stack(ed)?|scan|stages?|exp(ert)?s?|ensemble"


_ATTENTION = r"\w*(attention|attn|multihead)\w*"


def in_attention(path: str) -> bool:
    """Whether a module's name puts a leaf into attention, or its own makes it a projection."""
    names = map(plain, path.split("/"))
    return bool(re.fullmatch(PROJECTION, owner_name(path))) or any_like(_ATTENTION, names)


def any_like(pattern: str, names: Iterable[str]) -> bool:
    """Whether a pattern matches one of the names as a whole."""
    return any(re.fullmatch(pattern, name) for name in names)


def is_vector(path: str, ndim: int) -> bool:
    """Whether rank or name tell that a leaf is no matrix."""
    name = plain(own_name(path)[1])
    normed = ndim == 2 and re.fullmatch(_NORM, owner_name(path))
    return ndim < 2 or bool(re.fullmatch(_BIAS, name) or re.fullmatch(_SCALE, name) or normed)


@functools.lru_cache(maxsize=64)
def judge(leaves: tuple[tuple[str, tuple[int, ...], AxisNames], ...]) -> dict[str, Seen]:
    """What the leaves, each a path, a shape and names of axes, prove of one another."""
    tree = _Tree(leaves)
    tree.drop_named_axes()
    tree.drop_proven_stacks()
    tree.drop_stacks_by_name()
    return tree.conclusions()


class _Tree:
    """The leaves of a tree with those of their axes that are not yet known to be stacks."""

    def __init__(self, leaves: Iterable[tuple[str, tuple[int, ...], AxisNames]]):
        self.leaves = {path: (shape, names) for path, shape, names in leaves}
        self.rest = {path: list(range(len(shape))) for path, (shape, _) in self.leaves.items()}
        self.proofs: dict[str, list[str]] = defaultdict(list)
        self.guessed: set[str] = set()
        self.biases = {
            layer_key(path): path
            for path in self.leaves
            if re.fullmatch(_BIAS, plain(own_name(path)[1])) or self.is_beside(path)
        }
        self.norms = {path for path in self.leaves if self.is_norm(path)}
        self.vectors = {path for path in self.leaves if is_vector(path, len(self.rest[path]))}
        self.vectors |= self.norms.union(self.biases.values())

    def sizes(self, path: str) -> tuple[int, ...]:
        shape, _ = self.leaves[path]
        return tuple(shape[axis] for axis in self.rest[path])

    def is_beside(self, path: str) -> bool:
        """Whether a leaf called x_b is the bias of another one called x_w."""
        return path.endswith("_b") and f"{path[:-1]}w" in self.leaves

    def is_norm(self, path: str) -> bool:
        """A norm has a scale named so, or a weight that has the shape of its bias."""
        module, name = own_name(path)
        shape, _ = self.leaves[path]
        if re.fullmatch(_SCALE, plain(name)):
            return len(shape) > 0
        if plain(name) not in KERNELS or not shape:
            return False
        bias = self.biases.get(layer_key(path))
        alike = bias is not None and self.leaves[bias][0] == shape
        named = re.fullmatch(_NORM, plain(module.rpartition("/")[2])) and len(shape) < 3
        return bool(len(shape) == 1 or alike or named)

    def bias(self, path: str) -> tuple[int, ...] | None:
        """The bias beside a kernel, without stacked axes and those that only broadcast."""
        beside = self.biases.get(layer_key(path))
        if beside is None or beside == path:
            return None
        sizes = self.sizes(beside)
        while len(sizes) > 1 and sizes[-1] == 1:
            sizes = sizes[:-1]
        return sizes

    def drop_named_axes(self) -> None:
        for path, (_, names) in self.leaves.items():
            for axis, name in enumerate(names):
                if name and re.fullmatch(_STACKED_AXIS, name):
                    self.rest[path].remove(axis)
                    self.proofs[path].append(own_name(path)[0])

    def drop_proven_stacks(self) -> None:
        """Drops stacked axes, the outer ones first, until norms and biases have no more of them."""
        while found := self.proven_stacks():
            for path in self.leaves:
                owners = [owner for owner in ancestry(path) if owner in found]
                if owners:
                    del self.rest[path][found[owners[-1]]]
                    self.proofs[path].append(owners[-1])

    def proven_stacks(self) -> dict[str, int]:
        """Modules that are stacked, and the position of the axis along which they are."""
        common = [self.common(position) for position in (0, 1)]
        covered = {
            owner
            for path in self.leaves
            if path not in self.vectors and len(self.rest[path]) > 1
            for owner in ancestry(path)
        }
        widths = {size for path in self.norms if len(size := self.sizes(path)) == 1}

        def top(path: str, position: int) -> str | None:
            highest = None
            for owner in ancestry(path):
                if not common[position][owner]:
                    break
                highest = owner
            return highest if highest in covered else None

        found = {}
        for path in self.norms:
            if len(sizes := self.sizes(path)) > 1:
                tops = [
                    (owner.count("/") + bool(owner), sizes[:at] + sizes[at + 1 :] not in widths, at)
                    for at in (0, 1)
                    for owner in [top(path, at)]
                    if owner is not None
                ]
                if tops:
                    *_, position = min(tops)
                    found[top(path, position) or ""] = position
        for path in self.leaves:
            if path not in self.vectors and self.is_stack_beside_bias(path):
                owner = top(path, 0)
                if owner is not None and not any(above in found for above in ancestry(owner)):
                    found[owner] = 0
        return found

    def common(self, position: int) -> dict[str, int]:
        """For each module the size that this axis has in all of its leaves; 0 if they differ."""
        found: dict[str, int] = {}
        for path in self.leaves:
            sizes = self.sizes(path)
            size = sizes[position] if position < len(sizes) else 0
            for owner in ancestry(path):
                if found.setdefault(owner, size) != size:
                    found[owner] = 0
        return found

    def is_stack_beside_bias(self, path: str) -> bool:
        """A kernel (E, in, out) beside a bias (E, out)."""
        sizes, bias = self.sizes(path), self.bias(path)
        if (
            bias is None
            or len(sizes) < 3
            or len(bias) < 2
            or re.fullmatch(PROJECTION, owner_name(path))
        ):
            return False
        outputs = bias[1:]
        ends = outputs in (sizes[-len(outputs) :], sizes[1 : 1 + len(outputs)])
        return bias[0] == sizes[0] and ends and sizes[-len(bias) :] != bias

    def drop_stacks_by_name(self) -> None:
        """Leading axes of modules whose names say that they are lifted, if no leaf denies it."""
        common = self.common(0)
        alike = Counter(
            (owner, self.sizes(path)[:1]) for path in self.leaves for owner in ancestry(path)
        )
        for path in self.leaves:
            proofs = list(self.proofs[path])
            count = 0
            for owner, often, experts in _stacks_by_name(path):
                for _ in range(often):
                    proof = next((p for p in proofs if _explains(p, owner, experts)), None)
                    if proof is not None:
                        proofs.remove(proof)
                    elif common.get(owner) or experts or count:
                        count += 1
                        lifted = re.match(_LIFTED, owner.rpartition("/")[2])
                        if not lifted and alike[owner, self.sizes(path)[:1]] < 2:
                            self.guessed.add(path)
            if path not in self.vectors and count:
                del self.rest[path][: min(count, len(self.rest[path]) - 2)]

    def conclusions(self) -> dict[str, Seen]:
        widths = self.widths()
        key = widths.__getitem__
        votes: dict[str, Counter[bool]] = defaultdict(Counter)
        for path in self.leaves:
            sizes, bias = self.sizes(path), self.bias(path)
            if path not in self.vectors and bias and len(sizes) == 2 and sizes[0] != sizes[1]:
                if bias[-1] in sizes and len(bias) == 1:
                    for owner in ancestry(path):
                        votes[owner][bias[0] == sizes[0]] += 1

        def conclude(path: str) -> Seen:
            shape, names = self.leaves[path]
            rest, sizes = tuple(self.rest[path]), self.sizes(path)
            vote = next((votes[owner] for owner in ancestry(path) if owner in votes), None)
            width = max((size for size in sizes if size in widths), key=key, default=None)
            return Seen(
                path,
                shape,
                names,
                path in self.vectors or len(rest) < 2,
                tuple(axis for axis in range(len(shape)) if axis not in rest),
                rest,
                self.bias(path),
                width,
                None if vote is None or not _is_kernel(path) else vote[True] > vote[False],
                path in self.guessed,
            )

        return {path: conclude(path) for path in self.leaves}

    def widths(self) -> dict[int, tuple[int, int]]:
        """How much speaks for a size as the model's width; norms of queries and keys do little."""
        count: Counter[int] = Counter()
        for path in self.norms:
            if len(sizes := self.sizes(path)) == 1:
                count[sizes[0]] += not re.fullmatch(
                    _QUERY_NORM, plain(own_name(path)[0].rpartition("/")[2])
                )
        return {size: (often, size) for size, often in count.items()}


def _is_kernel(path: str) -> bool:
    """Whether a leaf is called so, which an embedding's table is not."""
    return plain(own_name(path)[1]) in KERNELS


def _explains(proof: str, owner: str, experts: bool) -> bool:
    """Whether a proven stack is the one that a module's name tells of."""
    inside = f"{proof}/".startswith(f"{owner}/")
    return inside or (not experts and (not proof or owner.startswith(f"{proof}/")))


def _stacks_by_name(path: str) -> Iterator[tuple[str, int, bool]]:
    """Modules on the way to a leaf that are stacks by name, how often, and if of experts."""
    owner, mixture = "", ""
    for module, child in pairwise(path.split("/")):
        owner = f"{owner}/{module}" if owner else module
        if lifted := re.match(_LIFTED, module):
            yield owner, len(re.findall("Scan|Vmap", lifted[0])), False
        elif re.fullmatch(_STACK, module) and not re.fullmatch(_INDEX, child):
            yield owner, 1, "expert" in module
            mixture = "" if "expert" in module else mixture
        elif "moe" in module.lower() and not in_attention(path):
            mixture = owner
    if mixture:
        yield mixture, 1, True
