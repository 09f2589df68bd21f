"""Time of one step: optzoo, Optax's counterpart and PyTorch code, called in turn.

    python benchmarks/step_time.py                       every rule; a few minutes
    python benchmarks/step_time.py --rules muon dog      some rules
    python benchmarks/step_time.py --seconds 20          more rounds

A step takes gradients and replaces 23 million parameters and the state, whose memory it reuses.
Ratios are medians over rounds of the other's time over ours in the same round: above 1, ours is
faster. On a CPU, optzoo and Optax run in the compiler's default order and leaf by leaf, and the
faster one counts. "floats" are those that optzoo's compiled step moves for each parameter, "of
SGD's speed" is how fast it moves them, over how fast plain SGD moves its three: from 1 on, memory
is what takes the time, and only moving less could be faster.
PyTorch peers that are not installed are left out (pip install 'optzoo[parity]').
"""

import importlib
import statistics
import sys
from collections.abc import Callable

import common
import jax
import optax
from hlo import Program

import optzoo

PEERS = {
    "adago": "pytorch_optimizer:AdaGO",
    "adamp": "adamp:AdamP",
    "adamuon": "pytorch_optimizer:AdaMuon",
    "ademamix": "pytorch_optimizer:AdEMAMix",
    "diffgrad": "pytorch_optimizer:DiffGrad",
    "dog": "dog:DoG",
    "grams": "grams:Grams",
    "ldog": "dog:LDoG",
    "muon": "torch.optim:Muon",
    "normuon": "pytorch_optimizer:NorMuon",
    "novograd": "pytorch_optimizer:NovoGrad",
    "ranger21": "ranger21:Ranger21",
    "schedule_free_adamw": "schedulefree:AdamWScheduleFree",
    "schedule_free_radam": "schedulefree:RAdamScheduleFree",
    "schedule_free_sgd": "schedulefree:SGDScheduleFree",
    "scion": "pytorch_optimizer:SCION",
    "sgdp": "adamp:SGDP",
}
"""The authors' code where it can be installed, otherwise torch's own or pytorch_optimizer's."""

SETTINGS = {
    "Ranger21": {"lr": 1e-3, "num_epochs": 10, "num_batches_per_epoch": 100},
    "SGDP": {"lr": 0.1},
    "SGDScheduleFree": {"lr": 1.0},
}
"""What a peer must be told; the rest are its defaults."""

SGD_FLOATS = 3
"""What plain SGD reads and writes for each parameter."""


def jax_step(tx, shapes, compiler_options=None) -> Callable[[], None]:
    """One training step at a time, the gradients staying the same."""
    params = common.filled(shapes, 0, 0.05)
    gradients = common.filled(shapes, 1, 0.01)
    # Some states alias the parameters, which cannot be donated twice.
    state = jax.tree.map(lambda leaf: leaf + 0, tx.init(params))
    run = common.step(tx, compiler_options)

    def call():
        nonlocal params, state
        params, state = jax.block_until_ready(run(params, state, gradients))

    return call


def torch_step(target: str, shapes) -> Callable[[], None] | None:
    """The same in PyTorch; None where the peer is not installed."""
    module, _, name = target.partition(":")
    try:
        import torch

        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None
    torch.manual_seed(0)
    labelled = zip(
        jax.tree.leaves(shapes), jax.tree.leaves(optzoo.matrix_labels(shapes)), strict=True
    )
    params, matrices, others = [], [], []
    for leaf, label in labelled:
        param = torch.nn.Parameter(0.05 * torch.randn(leaf.shape))
        param.grad = 0.01 * torch.randn(leaf.shape)
        params.append(param)
        (matrices if label == "matrix" else others).append(param)
    settings = SETTINGS.get(name, {})
    if target == "torch.optim:Muon":
        parts = [torch.optim.Muon(matrices), torch.optim.AdamW(others)]
    elif name in ("AdaGO", "AdaMuon", "NorMuon"):
        groups = [{"params": matrices, "use_muon": True}, {"params": others, "use_muon": False}]
        parts = [factory(groups)]
    else:
        parts = [factory(params, **settings)]
    if module == "dog":
        # Ours keeps the average that the paper evaluates; theirs is an object of its own.
        averager = importlib.import_module(module).PolynomialDecayAverager
        parts.append(averager(torch.nn.ParameterList(params)))
    if module == "schedulefree":
        parts[0].train()

    def call():
        for part in parts:
            part.step()

    return call


def row_of(name: str, shapes, seconds: float, torch: bool) -> common.Row:
    """The row of one rule."""
    orders = {"default": None}
    if jax.default_backend() == "cpu":
        orders["leaf by leaf"] = common.LEAF_BY_LEAF
    rules = {"optzoo": common.ours(name)}
    if name in common.COUNTERPARTS:
        rules["optax"] = common.COUNTERPARTS[name]()
    contestants = {
        f"{who}, {order}": jax_step(tx, shapes, options)
        for who, tx in rules.items()
        for order, options in orders.items()
    }
    contestants["sgd"] = jax_step(optax.sgd(1e-2), shapes)
    peer = torch_step(PEERS[name], shapes) if torch and name in PEERS else None
    if peer:
        contestants["torch"] = peer
    times = common.paired(contestants, seconds)

    def faster(who):
        return min(orders, key=lambda order: statistics.median(times[f"{who}, {order}"]))

    order = faster("optzoo")
    own = times[f"optzoo, {order}"]
    others = {"optax": times[f"optax, {faster('optax')}"]} if "optax" in rules else {}
    others |= {"torch": times["torch"]} if peer else {}
    low, _, high = statistics.quantiles(own, n=4)
    compiled = common.lowered(rules["optzoo"], shapes).compile(orders[order])
    moved = Program(compiled.as_text()).traffic / 4 / common.numbers(shapes)
    print(name, file=sys.stderr)
    return (
        {"rule": name, "rounds": len(own), "order": order}
        | {
            "optzoo ms": 1e3 * statistics.median(own),
            "spread": (high - low) / statistics.median(own),
        }
        | {f"{who} ms": 1e3 * statistics.median(spent) for who, spent in others.items()}
        | {f"{who} / optzoo": common.ratio(spent, own) for who, spent in others.items()}
        | {"floats": moved, "of SGD's speed": moved / SGD_FLOATS * common.ratio(times["sgd"], own)}
        | ({"PyTorch code": PEERS[name]} if peer else {})
    )


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="a rule, at least; 3 by default")
    parser.add_argument("--blocks", type=int, default=6, help="of the model; 6 by default")
    parser.add_argument("--width", type=int, default=512, help="of the model; 512 by default")
    parser.add_argument("--no-torch", action="store_true", help="only optzoo and Optax")
    common.add_rules(parser, list(optzoo.REGISTRY.optimizers))
    options = parser.parse_args()
    shapes = common.model(options.blocks, options.width)
    rows = [row_of(name, shapes, options.seconds, not options.no_torch) for name in options.rules]
    common.report(rows, options)


if __name__ == "__main__":
    main()
