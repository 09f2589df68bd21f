"""A tuning sweep by optzoo against the same runs one after the other in PyTorch.

    python benchmarks/sweep.py                one row a rule: seconds of both, and their ratio
    python benchmarks/sweep.py --scaling      optzoo's seconds on 1, 2, 4 and 8 virtual devices

The runs are those of `optzoo compare` on its problem "digits": the same network, data, batch size,
steps, learning rates and seeds, evaluated as often. optzoo's time includes compilation; PyTorch
runs eagerly on one thread, which is its fastest at this size, with pytorch_optimizer's optimizers.
Both are told in processor time, which other programs hardly change. To keep the wait bearable a
few of PyTorch's runs are timed and the whole is reckoned from their mean.
"""

import argparse
import json
import os
import subprocess
import sys
import time

RULES = {"adamp": "AdamP", "ademamix": "AdEMAMix", "diffgrad": "DiffGrad", "novograd": "NovoGrad"}
DEVICES = (1, 2, 4, 8)
BATCH, WIDTH = 64, 32


def optzoo_seconds(rule: str, rates: list[float], seeds: int) -> tuple[float, float]:
    """Processor seconds of a whole sweep with compilation, nothing cached, and again without."""
    import jax

    from optzoo import get
    from optzoo.compare.contestants import Contestant
    from optzoo.compare.sweep import Sweep
    from optzoo.problems import PROBLEMS

    problem = PROBLEMS["digits"]()
    jax.block_until_ready(problem.init(jax.random.key(0)))
    cells = [(rate, seed) for rate in rates for seed in range(seeds)]
    sweep = Sweep(problem, Contestant(get(rule)), problem.steps)
    start = time.process_time()
    sweep.run(cells)
    first = time.process_time()
    sweep.run(cells)
    return first - start, time.process_time() - first


def torch_seconds(rule: str, rates: list[float], runs: int) -> list[float]:
    """Processor seconds of each of the first runs of the same sweep."""
    import numpy as np
    import pytorch_optimizer
    import torch
    from sklearn.datasets import load_digits

    from optzoo.compare.sweep import checkpoints
    from optzoo.problems import PROBLEMS

    steps = PROBLEMS["digits"]().steps
    marks = set(checkpoints(steps).tolist())
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.tensor(data.data[order] / 16, dtype=torch.float32)
    labels = torch.tensor(data.target[order])
    cross_entropy = torch.nn.functional.cross_entropy
    torch.set_num_threads(1)
    taken = []
    for seed in range(runs):
        torch.manual_seed(seed)
        sizes = (64, WIDTH, WIDTH, 10)
        layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        relu = torch.nn.ReLU()
        model = torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2])
        optimizer = getattr(pytorch_optimizer, RULES[rule])(model.parameters(), lr=rates[0])
        start = time.process_time()
        for step in range(steps + 1):
            if step in marks:
                with torch.no_grad():
                    cross_entropy(model(images[:300]), labels[:300]).item()
            if step < steps:
                rows = torch.randint(600, len(labels), (BATCH,))
                optimizer.zero_grad()
                cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
        taken.append(time.process_time() - start)
    return taken


def alone(function: str, *arguments: object, devices: int = 1) -> list[float]:
    """The outcome of one of the functions above in a process of its own."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import sweep; "
        "print(json.dumps(getattr(sweep, sys.argv[2])(*json.loads(sys.argv[3]))))"
    )
    folder = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-c", program, folder, function, json.dumps(arguments)]
    done = subprocess.run(
        command, env=os.environ | flags, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(rules: list[str], rates: list[float], seeds: int, timed: int) -> None:
    count = len(rates) * seeds
    print(f"{count} runs of each rule: {len(rates)} learning rates x {seeds} seeds")
    print("| rule | optzoo, s | of it training, s | PyTorch, s | ratio | training alone |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rule in rules:
        whole, training = alone("optzoo_seconds", rule, rates, seeds)
        each = alone("torch_seconds", rule, rates, timed)
        torch = count * sum(each[1:]) / (len(each) - 1)
        print(
            f"| `{rule}` | {whole:.2f} | {training:.2f} | {torch:.1f} | {torch / whole:.1f} | "
            f"{torch / training:.0f} |",
            flush=True,
        )


def scaling(rule: str, rates: list[float], seeds: int) -> None:
    print(f"{len(rates) * seeds} runs of {rule} on {os.cpu_count()} cores")
    print("| virtual devices | with compilation, s | training, s |")
    print("| --- | --- | --- |")
    for devices in DEVICES:
        whole, training = alone("optzoo_seconds", rule, rates, seeds, devices=devices)
        print(f"| {devices} | {whole:.2f} | {training:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--rates", type=int, default=10, help="how many learning rates")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--timed", type=int, default=4, help="PyTorch runs to time, after one more")
    parser.add_argument("--scaling", action="store_true")
    options = parser.parse_args()
    spread = [1e-4 * 10 ** (i / 3) for i in range(options.rates)]
    names = options.rules.split(",")
    if options.scaling:
        scaling(names[0], spread, options.seeds)
    else:
        compare(names, spread, options.seeds, options.timed + 1)
