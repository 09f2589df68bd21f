"""Tracing, compiling and stepping against the number of leaves, next to Optax.

    python benchmarks/scaling.py                        12 and 48 blocks: 121 and 481 leaves
    python benchmarks/scaling.py --blocks 6 12 24 48    more depths

Small matrices, so that what costs is the number of operations and not their size. Tracing and
compiling are CPU seconds, which other programs on the machine disturb least. `leaf µs` is the time
of one step, shared out to the leaves.
"""

import statistics
import sys
import time

import common
import jax


def measured(tx, shapes, rounds: int) -> common.Row:
    """One step's costs for parameters of these shapes."""
    start = time.process_time()
    traced = common.lowered(tx, shapes)
    middle = time.process_time()
    run = traced.compile()
    end = time.process_time()
    params = common.filled(shapes, 0)
    gradients = common.filled(shapes, 1)
    state = jax.tree.map(lambda leaf: leaf + 0, tx.init(params))
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        params, _ = jax.block_until_ready(
            run(params, jax.tree.map(lambda leaf: leaf + 0, state), gradients)
        )
        spent.append(time.perf_counter() - begin)
    leaves = len(jax.tree.leaves(shapes))
    return {
        "trace s": middle - start,
        "compile s": end - middle,
        "leaf µs": 1e6 * statistics.median(spent) / leaves,
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[12, 48], help="depths; 12 48")
    parser.add_argument("--width", type=int, default=16, help="of the model; 16 by default")
    parser.add_argument("--rounds", type=int, default=5, help="steps to time; 5 by default")
    common.add_rules(parser, ["ademamix", "muon", "novograd", "schedule_free_adamw"])
    options = parser.parse_args()
    rows = []
    for name in options.rules:
        for blocks in options.blocks:
            shapes = common.model(blocks, options.width, 64)
            row = {"rule": name, "leaves": len(jax.tree.leaves(shapes))}
            row |= measured(common.ours(name), shapes, options.rounds)
            if name in common.COUNTERPARTS:
                other = measured(common.COUNTERPARTS[name](), shapes, options.rounds)
                row |= {f"optax {key}": value for key, value in other.items()}
                totals = [part["trace s"] + part["compile s"] for part in (row, other)]
                row["trace and compile / optax"] = totals[0] / totals[1]
            rows.append(row)
            print(name, blocks, file=sys.stderr)
    common.report(rows, options)


if __name__ == "__main__":
    main()
