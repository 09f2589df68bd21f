"""Orthogonalisation on a mesh: collectives, and operations a device, next to Optax.

    python benchmarks/sharded.py                    1, 2, 4 and 8 devices, weak and strong scaling
    python benchmarks/sharded.py --rules adago      another rule

The devices are virtual, parts of this CPU: what is counted is exact, what a step takes would mean
nothing. Matrices are sharded over both mesh axes. `work` is the operations of one device times
the devices over those of a single device that does everything: 1 is perfect, the number of
devices means that each does everything. Strong scaling keeps 16 matrices, weak scaling gives
each device 4.
"""

import sys
from collections.abc import Callable

import common
import jax
import optax
from hlo import Program
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import optzoo
from optzoo.registry import Trait


def shapes_of(matrices: int, rows: int, columns: int) -> common.Tree:
    """That many hidden matrices."""
    leaf = jax.ShapeDtypeStruct((rows, columns), "float32")
    return {f"block_{index}": {"up": {"kernel": leaf}} for index in range(matrices)}


def compiled(tx, shapes, mesh):
    """A step on parameters sharded over both axes of a mesh."""
    sharding = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())
    matrices = {leaf.shape for leaf in jax.tree.leaves(shapes)}
    with jax.set_mesh(mesh):
        placed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
        )
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape,
                leaf.dtype,
                sharding=sharding if leaf.shape in matrices else whole,
            ),
            jax.eval_shape(tx.init, shapes),
        )
        return common.step(tx).lower(placed, state, placed).compile()


def measured(label: str, tx, kind: AxisType, devices: int, scaling: str, shapes) -> common.Row:
    """One row of the table."""
    row = {"rule": label, "axes": kind.name, "scaling": scaling, "devices": devices}
    row["matrices"] = len(jax.tree.leaves(shapes))
    down = 2 if devices > 2 else 1
    mesh = jax.make_mesh((devices // down, down), ("data", "model"), axis_types=(kind, kind))
    try:
        program = compiled(tx, shapes, mesh)
    except Exception as error:  # Optax's rule does not trace under explicit axes.
        return row | {"collectives": f"fails: {str(error).split('.')[0][:60]}"}
    alone = common.lowered(tx, shapes).compile()
    counts = Program(program.as_text()).collectives
    return row | {
        "collectives": ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())) or "none",
        "in all": counts.total(),
        "work": program.cost_analysis()["flops"] * devices / alone.cost_analysis()["flops"],
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=64, help="of a matrix; 64 by default")
    parser.add_argument("--columns", type=int, default=256, help="of a matrix; 256 by default")
    common.add_rules(parser, ["muon", "normuon", "adamuon", "scion", "asgo", "dion"])
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    candidates: dict[str, Callable[[], optax.GradientTransformation]] = {}
    for name in options.rules:
        if Trait.SHAPED not in optzoo.get(name).traits:
            parser.error(f"--rules: {name} does not look at matrices")
        candidates[name] = lambda name=name: common.ours(name)
        if name in common.COUNTERPARTS:
            candidates[f"optax {name}"] = common.COUNTERPARTS[name]
    rows = []
    for label, make in candidates.items():
        for scaling, kind, devices in [
            *(("strong", AxisType.Auto, n) for n in (1, 2, 4, 8)),
            *(("weak", AxisType.Auto, n) for n in (2, 4, 8)),
            ("strong", AxisType.Explicit, 8),
        ]:
            matrices = 16 if scaling == "strong" else 4 * devices
            shapes = shapes_of(matrices, options.rows, options.columns)
            rows.append(measured(label, make(), kind, devices, scaling, shapes))
        print(label, file=sys.stderr)
    common.report(rows, options)


if __name__ == "__main__":
    main()
