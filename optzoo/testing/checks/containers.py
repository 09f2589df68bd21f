"""Trees of every kind: empty, full of holes, deep, wide, or in somebody's own container."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optzoo.testing import mesh as meshes
from optzoo.testing.check import DoesNotApply, check, fail
from optzoo.testing.subject import Subject, random_from, random_like
from optzoo.testing.trees import (
    agree,
    all_finite,
    is_random,
    leaves_with_path,
    same_shapes,
    same_structure,
)


def _two_steps(subject: Subject, params: Any, *, compiled: bool = True):
    gradients = random_like(params, 2)
    run = (subject.run_compiled if compiled else subject.run)(params, gradients)
    for update in run.updates:
        same_shapes("the updates", update, params)
    all_finite("the update is not finite", run.updates)
    return run


@check("an empty tree is no error", "tx.update({}, tx.init({}), {})")
def empty_tree(subject: Subject) -> None:
    _two_steps(subject, {}, compiled=False)


@check(
    "None leaves stay None and change nothing",
    "p = {'a': jnp.ones(3), 'b': None}; tx.update(p, tx.init(p), p)",
)
def none_leaves(subject: Subject) -> None:
    def holed(tree):
        return {"hole": None, "tree": tree}

    gradients = [holed(gradient) for gradient in subject.gradients]
    run = subject.run(holed(subject.params), gradients)
    expected = [holed(update) for update in subject.eager.updates]
    agree("beside a None leaf the updates", run.updates, expected)


@check(
    "arrays of size zero are no error",
    "p = {'a': jnp.ones((2, 3)), 'b': jnp.ones((0, 3))}; tx.update(p, tx.init(p), p)",
)
def zero_size(subject: Subject) -> None:
    shapes = {"full": (4, 3), "gone": (0,), "in": (0, 3), "out": (4, 0), "conv": (2, 0, 3)}
    _two_steps(subject, random_from(shapes, 5))


@check(
    "ranks 0 to 5 train",
    "p = {str(n): jnp.ones((2,) * n) for n in range(6)}; tx.update(p, tx.init(p), p)",
)
def every_rank(subject: Subject) -> None:
    sizes = (2, 3, 2, 2, 3)
    _two_steps(subject, random_from({f"rank_{n}": sizes[:n] for n in range(6)}, 6))


@check(
    "renaming and reordering leaves changes nothing",
    "the update of {'a': x, 'b': y} against that of {'a': y, 'b': x}",
)
def renaming(subject: Subject) -> None:
    if is_random(subject.eager.state):
        raise DoesNotApply("random numbers belong to positions")

    def named(tree, backwards):
        leaves = jax.tree.leaves(tree)
        last = len(leaves) - 1
        return {f"leaf_{last - i if backwards else i:03}": x for i, x in enumerate(leaves)}

    def updates(backwards):
        gradients = [named(gradient, backwards) for gradient in subject.gradients]
        run = subject.run(named(subject.params, backwards), gradients)
        return [named(update, backwards) for update in run.updates]

    agree("in another order the updates", updates(True), updates(False))


@check(
    "the work of tracing grows linearly with the number of leaves",
    "p = {f'{i}': jnp.ones(3) for i in range(10_000)}; jax.eval_shape(tx.update, p, s, p)",
)
def many_leaves(subject: Subject) -> str:
    sizes = [subject.leaves // 4, subject.leaves // 2, subject.leaves]
    _calls(subject, sizes[0])  # fills JAX's caches
    small, medium, large = (_calls(subject, size) for size in sizes)
    growth = (large - medium) / max(medium - small, 1)
    if growth > 2.6:
        fail(
            f"tracing {sizes[0]}, {sizes[1]} and {sizes[2]} leaves takes {small:,}, {medium:,} and "
            f"{large:,} Python calls, more than in proportion"
        )
    return f"{large // sizes[2]} Python calls a leaf"


def _calls(subject: Subject, leaves: int) -> int:
    """Python calls of tracing one step: unlike seconds, the same on a busy machine."""
    shapes = ((4, 3), (3,))
    params = {f"leaf_{i}": jax.ShapeDtypeStruct(shapes[i % 2], jnp.float32) for i in range(leaves)}
    state = jax.eval_shape(subject.tx.init, params)
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        jax.eval_shape(lambda g, s, p: subject.update(g, s, p), params, state, params)
    finally:
        sys.setprofile(previous)
    return count


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """Parameters in a dataclass, as Equinox and others keep them."""

    bias: Any
    kernel: Any


@check(
    "nested dataclasses work like dicts",
    "a jax.tree_util.register_dataclass of arrays as parameters",
)
def dataclasses_(subject: Subject) -> None:
    _same_program(subject, lambda tree: {"block": Layer(tree["bias"], Layer(**tree))})


@check("flax's FrozenDict works like a dict", "flax.core.freeze(params)")
def frozen_dict(subject: Subject) -> None:
    flax_core = _module("flax.core")
    _same_program(subject, lambda tree: flax_core.freeze({"block": tree}))


@check("flax's nnx.State works like a dict", "nnx.State(params)")
def nnx_state(subject: Subject) -> None:
    nnx = _module("flax.nnx")
    _same_program(subject, lambda tree: nnx.State({"block": tree}))


AXES = ("rows", "columns")


def _mesh() -> jax.sharding.Mesh:
    """Two by two by two devices, or one under three names: specs must fit there, too."""
    size = 2 if jax.device_count() >= meshes.DEVICES else 1
    kinds = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh((size,) * 3, ("data", *AXES), kinds, devices=jax.devices()[: size**3])


@check(
    "flax.linen's partition specs fit the state: boxed parameters, made eagerly and inside jit",
    "boxed = {'w': nn.Partitioned(jnp.ones((4, 3)), ('x', 'y'))}; "
    "nn.get_partition_spec(jax.eval_shape(tx.init, boxed))",
)
def linen_metadata(subject: Subject) -> None:
    nn = _module("flax.linen")

    def boxed(tree):
        return jax.tree.map(lambda x: nn.LogicallyPartitioned(x, AXES[: x.ndim]), tree)

    host, (host_gradients, *_) = meshes.host_trees()
    expected = subject.run_compiled(host, [host_gradients]).updates[0]
    params, gradients = boxed(host), boxed(host_gradients)
    specs = nn.get_partition_spec(jax.eval_shape(subject.tx.init, params))
    shardings = nn.logical_to_mesh_sharding(specs, _mesh(), [(axis, axis) for axis in AXES])
    inside = jax.jit(subject.tx.init, out_shardings=shardings)(params)
    for path, leaf in leaves_with_path(nn.unbox(inside)):
        if len(leaf.sharding.spec) > leaf.ndim:
            fail(f"the state leaf {path} of shape {leaf.shape} has the spec {leaf.sharding.spec}")
    step = jax.jit(subject.update)
    for state in (inside, jax.device_put(subject.tx.init(params), shardings)):
        updates, _ = step(gradients, state, params)
        same_structure("the updates", updates, params)
        agree("of boxed parameters the updates", nn.unbox(updates), expected, rtol=1e-3)


@check(
    "flax.nnx's sharding metadata fit the state: annotated parameters, made eagerly and inside jit",
    "nnx.Optimizer(nnx.Dict(w=nnx.Param(jnp.ones((4, 3)), out_sharding=('x', 'y'))), tx, "
    "wrt=nnx.Param)",
)
def nnx_metadata(subject: Subject) -> None:
    nnx = _module("flax.nnx")
    mesh = _mesh()
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    host, (gradients, *_) = meshes.host_trees()
    expected = subject.run_compiled(host, [gradients]).params
    host = jax.device_put(host, everywhere)
    # It hands over what the rule asks for.
    tx = optax.GradientTransformation(subject.tx.init, subject.update)

    def annotated(tree):
        if isinstance(tree, dict):
            return nnx.Dict({name: annotated(child) for name, child in tree.items()})
        return nnx.Param(tree, out_sharding=AXES[: tree.ndim])

    def create():
        model = annotated(host)
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, gradients):
        boxed = nnx.state(model, nnx.Param)
        nnx.replace_by_pure_dict(boxed, gradients)
        optimizer.update(model, boxed)

    with jax.set_mesh(mesh):
        for made in (create, nnx.jit(create)):
            model, optimizer = made()
            state = nnx.state(optimizer)
            nnx.update(optimizer, jax.device_put(state, nnx.get_named_sharding(state, mesh)))
            step(model, optimizer, jax.device_put(gradients, everywhere))
            got = nnx.to_pure_dict(nnx.state(model))
            agree("of annotated parameters the next", jax.device_get(got), expected, rtol=1e-3)


def _module(name: str) -> Any:
    try:
        return __import__(name, fromlist=["*"])
    except ModuleNotFoundError:
        raise DoesNotApply(f"needs {name.partition('.')[0]}") from None


def _same_program(subject: Subject, contain: Callable) -> None:
    """The same leaves, in a container and in a list, must compile to the same program."""
    tree = random_from({"bias": (3,), "kernel": (4, 3)}, 7)
    params = contain(tree)
    gradients = contain(jax.tree.map(jnp.cos, tree))
    run = subject.run(params, [gradients, gradients])
    same_structure("the updates", run.updates[0], params)
    names = [f"{i}/{key[-1]}" for i, key in enumerate(_paths(params))]
    plain, plain_gradients = (
        dict(zip(names, jax.tree.leaves(x), strict=True)) for x in (params, gradients)
    )
    expected = subject.run(plain, [plain_gradients, plain_gradients])
    got = [dict(zip(names, jax.tree.leaves(u), strict=True)) for u in run.updates]
    agree("in this container the updates", got, expected.updates)


def _paths(tree: Any) -> list[list[str]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return [path.removesuffix("/value").split("/") for path in paths]
