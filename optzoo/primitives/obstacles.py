"""Why a leaf that has axes is no matrix to orthogonalise: embeddings, output heads and the like."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from optzoo.primitives.axes import Axes
from optzoo.primitives.evidence import (
    KERNELS,
    Seen,
    any_like,
    in_attention,
    layer_key,
    own_name,
    owner_name,
    plain,
    words,
)


@dataclass(frozen=True)
class Layer:
    """A leaf as its tree shows it, and its axes."""

    seen: Seen
    axes: Axes | None

    @property
    def path(self) -> str:
        return self.seen.path

    @cached_property
    def fans(self) -> tuple[int, int]:
        """How many inputs and outputs its matrix has."""
        assert self.axes is not None
        rows, columns = self.axes.matrix_shape(self.seen.shape)[-2:]
        return rows, columns

    @cached_property
    def module(self) -> str:
        return own_name(self.path)[0]

    @property
    def scope(self) -> str:
        """Where a leaf's module sits: "a" for "a/Dense_0/kernel"."""
        return self.module.rpartition("/")[0]

    @property
    def names(self) -> list[str]:
        return [plain(name) for name in self.path.split("/") if name != "params"]

    @property
    def family(self) -> tuple[str, str]:
        """What the layers have in common that are numbered together."""
        return self._family[:2]

    @property
    def number(self) -> int:
        return self._family[2]

    @cached_property
    def _family(self) -> tuple[str, str, int]:
        scope, name = own_name(self.path)
        if plain(name) in (*KERNELS, "") and not re.search(r"\d", name):
            scope, _, name = scope.rpartition("/")
        elif name.isdigit() and scope.rpartition("/")[2].isdigit():
            # A list of lists or tuples: the inner index tells weight from bias.
            scope, _, name = scope.rpartition("/")
        digits = re.search(r"\d*$", name)
        number = digits[0] if digits else ""
        return scope, name.removesuffix(number), int(number or -1)


_EXPERTS = r"\w*(moe|expert|mixture)\w*"
_HEAD = r"(?!pre)\w*(head|logits?|classifier|readout)|logit\w*|\w*unembed\w*"
_LAST = (
    r"out|\w*outputs?|(conv|fc)?(output|out|final|last)(layer|dense|linear|proj|projection|conv)?"
)
_EMBEDDING = r"\w*embed\w*|\w*emb|wte|wpe|pos|posenc|position(?!wise)\w*|cls|\w*tokens?"
_TABLE = r"\w*(table|queries|probes?|latents?|prompts?|slots?)|code(books?|vectors?)"
_POSITION = "pos|wpe"
_MAKES_TABLE = r"\w*(project|proj|projection|mappingin|mapping|linear|dense|fc|mlp|layer)"
_ROUTER = r"\w*router\w*"
_STATE_SPACE = r"[ABCDP](_?(log|re|im|real|imag))?|Lambda\w*|log_step|log_dt|dt_bias"
_GENERIC = r"|w|weights?|kernel|dense|linear|lin|fc|hidden|layers?|proj|projection|affine|decoder"


GUESSED_HEAD = "output head (as it seems)"
"""A last layer that no other one of its kind leads to: a hint, and no proof."""


def obstacles(layers: list[Layer]) -> dict[str, str]:
    """Why each leaf is no matrix to orthogonalise, by path; empty where it is one."""
    why = {layer.path: _obstacle(layer) for layer in layers}
    for layer in _hidden_in_heads(layers, why):
        why[layer.path] = _obstacle(layer, in_head=True)
    tied = _shapes_of_heads(layers, why)
    for layer in layers:
        if layer.axes is not None and (layer.scope, layer.fans) in tied:
            why[layer.path] = why[layer.path] or "output head"
    for layer, after_another in _last_layers(layers, why):
        why[layer.path] = "output head (last layer)" if after_another else GUESSED_HEAD
    return why


def _obstacle(layer: Layer, *, in_head: bool = False) -> str:
    """Why a leaf is no matrix, as far as names and its own shape tell; heads may have layers."""
    seen, axes = layer.seen, layer.axes
    if axes is None:
        return "vector or scalar" if seen.vector else "no matrix by its axes"
    owner, names = owner_name(seen.path), layer.names
    own = own_name(seen.path)[1]
    near, top_level = names[-3:], len(names) <= 2
    rows, columns = layer.fans
    if "vocab" in seen.names:
        return "output head" if seen.names.index("vocab") in axes.output else "embedding"
    if top_level and re.fullmatch(_LAST, owner):
        return "output head"
    if not in_head and not in_attention(seen.path) and any_like(_HEAD, near):
        return "output head"
    if any_like(_EMBEDDING, near) and not _reads_no_table(layer):
        return "embedding"
    if plain(own) == owner and (re.fullmatch(_TABLE, owner) or "pos" in words(own)):
        return "embedding"
    if any_like(_ROUTER, names[-4:]):
        return "router"
    # A bare "gate" is a router among experts, but half of a SwiGLU layer where it widens.
    if owner == "gate" and (columns < rows or any_like(_EXPERTS, names)):
        return "router"
    if re.fullmatch(_STATE_SPACE, own):
        return "state-space parameter"
    if min(rows, columns) < 2:
        return "single row or column"
    if len(axes.input) > 1 and seen.shape[axes.input[-1]] == 1:
        return "depthwise kernel"
    return ""


def _reads_no_table(layer: Layer) -> bool:
    """Whether a layer with "embed" in its path is a linear one: tables have no bias."""
    linear = re.fullmatch(_MAKES_TABLE, owner_name(layer.path)) and layer.seen.bias
    return bool(linear and len(layer.seen.rest) == 2 and "patch" not in layer.path.lower())


def _hidden_in_heads(layers: list[Layer], why: dict[str, str]) -> Iterator[Layer]:
    """Layers of heads that are not the last: the head reads or normalises their outputs."""
    heads = defaultdict(list)
    for layer in layers:
        modules = layer.path.split("/")
        ends = [at for at, name in enumerate(modules, 1) if re.fullmatch(_HEAD, plain(name))]
        if ends and ends[-1] < len(modules) - 1:
            heads["/".join(modules[: ends[-1]])].append(layer)
    for members in heads.values():
        normed = {
            layer.seen.shape[-1]
            for layer in members
            if layer.axes is None and len(layer.seen.shape) == 1 and "norm" in layer.path.lower()
        }
        for layer in members:
            if layer.axes is None or why[layer.path] != "output head":
                continue
            _, columns = layer.fans
            read = any(
                other.axes is not None
                and other.fans[0] == columns
                and other.module != layer.module
                and (other.family != layer.family or other.number > layer.number)
                and other.fans[1] != columns
                for other in members
            )
            if read or columns in normed:
                yield layer


def _shapes_of_heads(layers: list[Layer], why: dict[str, str]) -> set[tuple[str, tuple[int, ...]]]:
    """Where and in what shape (in, out) a layer is the head although its name does not say so.

    It is the mirror of the embedding (vocabulary, width) that it sits beside.
    """
    headed = {layer.scope for layer in layers if why[layer.path] == "output head"}
    return {
        (layer.scope, layer.seen.shape[::-1])
        for layer in layers
        if why[layer.path] == "embedding"
        and layer.scope not in headed
        and not re.search(_POSITION, layer.path.lower())
    }


def _last_layers(layers: list[Layer], why: dict[str, str]) -> Iterator[tuple[Layer, bool]]:
    """Layers near the top, named like any, whose outputs no other leaf makes or reads.

    With each, whether it reads what an earlier one of its kind makes.
    """
    makers: dict[int, set[tuple[str, str]]] = defaultdict(set)
    readers: dict[int, set[tuple[str, str]]] = defaultdict(set)
    whole: set[tuple[int, tuple[str, str]]] = set()
    families: dict[tuple[str, str], list[Layer]] = defaultdict(list)
    for layer in layers:
        outputs = set(layer.seen.shape)
        if layer.axes is not None:
            shape = layer.seen.shape
            rows, columns = layer.fans
            outputs = {columns, *(shape[axis] for axis in layer.axes.output)}
            for size in (rows, *(shape[axis] for axis in layer.axes.input)):
                readers[size].add(layer.family)
            whole.add((rows, layer.family))
            families[layer.family].append(layer)
        for size in outputs:
            makers[size].add(layer_key(layer.path))
    headed = {layer.scope for layer in layers if why[layer.path] == "output head"}
    several = sum(map(len, families.values())) > 1

    def ends(layer: Layer) -> bool:
        columns = layer.fans[1]
        # Gates and cells read their layers' outputs in two to four parts.
        parts = [columns // count for count in (2, 3, 4) if columns % count == 0]
        read = readers[columns] - {layer.family} and "decoder" not in words(layer.path)
        fused = any(size in parts and family != layer.family for size, family in whole)
        return makers[columns] == {layer_key(layer.path)} and not read and not fused

    for (scope, name), members in families.items():
        if not several or scope in headed or not re.fullmatch(_GENERIC, plain(name)):
            continue
        members = sorted(members, key=lambda layer: layer.number)
        made = set()
        for layer, after in zip(members, [*members[1:], None], strict=True):
            # The next one may begin another branch, which reads what the first one read.
            last = after is None or members[0].fans[0] == after.fans[0] != layer.fans[1]
            plainly = len(layer.seen.shape) == 2 and not in_attention(layer.path)
            if last and plainly and not why[layer.path] and _depth(layer) <= 3 and ends(layer):
                yield layer, layer.fans[0] in made
            made.add(layer.fans[1])


def _depth(layer: Layer) -> int:
    """How many named modules lead to a leaf."""
    modules = layer.module.split("/")
    return sum(not name.isdigit() and name not in ("", "~", "params") for name in modules)
