"""Memory traffic, kernels and temporaries of one step, read from the compiled program.

    python benchmarks/memory_traffic.py                  for the CPU
    python benchmarks/memory_traffic.py --target tpu     ahead of time; needs libtpu
    python benchmarks/memory_traffic.py --target gpu     ahead of time; needs jax[cuda13]

No accelerator is needed: its compiler is enough. Where that is not installed, the program says so
and exits with 0. `traffic` is in floats a parameter; `minimum` reads each input that the step uses
once and writes each output that it changes once, and reads the gradient twice for rules whose
numbers depend on a whole leaf or tree (a norm must precede its use).
"""

import os
import sys
import time

TARGETS = {
    "cpu": {},
    "tpu": {"platform": "tpu", "topology_name": "v5e:2x2x1"},
    "gpu": {"platform": "cuda", "topology_name": "h100", "topology": "1x1x1"},
}
os.environ.update(
    JAX_PLATFORMS="cpu",
    JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1",
    TPU_SKIP_MDS_QUERY="1",
    TF_CPP_MIN_LOG_LEVEL="3",
)

import common  # noqa: E402
import jax  # noqa: E402
import jax.extend  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from hlo import Program  # noqa: E402
from jax.experimental import topologies  # noqa: E402

import optzoo  # noqa: E402
from optzoo.registry import Trait  # noqa: E402

H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  device_memory_size: 84942979072
}
"""


def device(target: str):
    """The device to compile for; exits where its compiler is missing."""
    if target == "cpu":
        return jax.devices("cpu")[0]
    more = {"target_config": H100} if target == "gpu" else {}
    try:
        return topologies.get_topology_desc(**TARGETS[target], **more).devices[0]
    except Exception as error:  # Each plug-in has its own way to say that it is not there.
        package = {"tpu": "libtpu", "gpu": "jax[cuda13]"}[target]
        print(f"No compiler for {target} here: pip install '{package}' ({str(error)[:120]})")
        sys.exit(0)


def minimum(tx, shapes) -> int:
    """Bytes of the inputs that a step uses and of the outputs that it computes."""
    state = jax.eval_shape(tx.init, shapes)
    jaxpr = jax.make_jaxpr(common.step(tx).__wrapped__)(shapes, state, shapes).jaxpr
    donated = jaxpr.invars[: -len(jax.tree.leaves(shapes))]
    operands = (var for equation in jaxpr.eqns for var in equation.invars)
    used = {var for var in operands if not isinstance(var, jax.extend.core.Literal)}
    read = [var for var in jaxpr.invars if var in used]
    written = [var for var in jaxpr.outvars if var not in donated]
    return sum(var.aval.size * var.aval.dtype.itemsize for var in (*read, *written))


def measured(label: str, tx, shapes, where, *, twice: bool) -> common.Row:
    """One row of the table."""
    start = time.process_time()
    sharding = jax.sharding.SingleDeviceSharding(where)
    # Without autotuning, which would need the GPU itself.
    flags = {"xla_gpu_autotune_level": 0} if where.platform in ("cuda", "gpu") else None
    compiled = common.lowered(tx, shapes, sharding).compile(compiler_options=flags)
    seconds = time.process_time() - start
    program = Program(compiled.as_text())
    parameter = 4 * common.numbers(shapes)
    least = minimum(tx, shapes) / parameter + twice
    traffic = program.traffic / parameter
    return {
        "rule": label,
        "traffic": traffic,
        "minimum": least,
        "ratio": traffic / least,
        "kernels": program.kernels,
        "copies": program.copies,
        "temporary floats a parameter": compiled.memory_analysis().temp_size_in_bytes / parameter,
        "trace and compile CPU s": seconds,
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--target", choices=TARGETS, default="cpu")
    parser.add_argument("--blocks", type=int, default=6, help="of the model; 6 by default")
    parser.add_argument("--width", type=int, default=512, help="of the model; 512 by default")
    parser.add_argument("--no-optax", action="store_true", help="only the rules of optzoo")
    common.add_rules(parser, list(optzoo.REGISTRY.optimizers))
    options = parser.parse_args()
    where = device(options.target)
    shapes = common.model(options.blocks, options.width)
    rows = []
    for name in options.rules:
        normed = {Trait.SHAPED, Trait.COUPLED} & optzoo.get(name).traits
        candidates = {name: common.ours(name)}
        if name == "muon":
            half = optzoo.primitives.newton_schulz(dtype=jnp.bfloat16)
            candidates["muon in bfloat16"] = optzoo.muon(orthogonalizer=half)
        if name in common.COUNTERPARTS and not options.no_optax:
            candidates[f"optax {name}"] = common.COUNTERPARTS[name]()
        for label, tx in candidates.items():
            rows.append(measured(label, tx, shapes, where, twice=bool(normed)))
            print(label, file=sys.stderr)
    common.report(rows, options)


if __name__ == "__main__":
    main()
