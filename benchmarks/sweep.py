"""A tuning sweep by optzoo against the same runs one after the other in PyTorch.

    python benchmarks/sweep.py                one row a rule: seconds of both, and their ratio
    python benchmarks/sweep.py --scaling      optzoo's seconds on 1, 2, 4 and 8 virtual devices

The runs are those of `optzoo compare` on three of its problems: the same model, batch size, steps,
learning rates and seeds, evaluated as often. optzoo's time includes compilation; PyTorch runs
eagerly on one thread, which is its fastest at this size, with pytorch_optimizer's optimizers. Both
are told in processor time, which other programs hardly change. To keep the wait bearable a few of
PyTorch's runs are timed and the whole is reckoned from their mean.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time

RULES = {"adamp": "AdamP", "ademamix": "AdEMAMix", "diffgrad": "DiffGrad", "novograd": "NovoGrad"}
DEVICES = (1, 2, 4, 8)


def optzoo_seconds(problem: str, rule: str, rates: list[float], seeds: int) -> tuple[float, float]:
    """Processor seconds of a whole sweep with compilation, nothing cached, and again without."""
    import jax

    from optzoo import get
    from optzoo.compare.plan.contestants import Contestant
    from optzoo.compare.work.sweep import Sweep
    from optzoo.problems import PROBLEMS

    task = PROBLEMS[problem]()
    # JAX's own start and the data are not part of the sweep.
    jax.block_until_ready(task.init(jax.random.key(0)))
    cells = [(rate, seed) for rate in rates for seed in range(seeds)]
    sweep = Sweep(task, Contestant(get(rule)), task.steps)
    start = time.process_time()
    sweep.run(cells)
    first = time.process_time()
    sweep.run(cells)
    return first - start, time.process_time() - first


def torch_seconds(problem: str, rule: str, rates: list[float], runs: int) -> list[float]:
    """Processor seconds of each of the first runs of the same sweep."""
    import pytorch_optimizer
    import torch

    from optzoo.compare.work.sweep import checkpoints
    from optzoo.problems import PROBLEMS

    task = PROBLEMS[problem]()
    marks = set(checkpoints(task.steps, path=task.box is not None).tolist())
    torch.set_num_threads(1)
    taken = []
    for seed in range(runs):
        torch.manual_seed(seed)
        params, loss, evaluate = TWINS[problem]()
        optimizer = getattr(pytorch_optimizer, RULES[rule])(params, lr=rates[0])
        start = time.process_time()
        for step in range(task.steps + 1):
            if step in marks:
                with torch.no_grad():
                    evaluate().item()
            if step < task.steps:
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
        taken.append(time.process_time() - start)
    return taken


def rosenbrock():
    import torch

    point = torch.nn.Parameter(torch.tensor([-1.2, 1.0]) + 0.1 * torch.randn(2))

    def height():
        x, y = point
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    return [point], height, height


def quadratic():
    import torch

    left, right, minimum = torch.randn(3, 16, 16)
    kernel = torch.nn.Parameter(torch.randn(16, 16))

    def tilted():
        return left @ (kernel - minimum) @ right

    def loss():
        error = tilted()
        return (error * (error / 2 + 0.3 * torch.randn(16, 16))).sum()

    return [kernel], loss, lambda: (tilted() ** 2).sum() / 2


def digits():
    import torch
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.data / 16, dtype=torch.float32)
    labels = torch.tensor(data.target)
    layers = [torch.nn.Linear(a, b) for a, b in ((64, 32), (32, 32), (32, 10))]
    relu = torch.nn.ReLU()
    model = torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2])

    def error(rows):
        return torch.nn.functional.cross_entropy(model(images[rows]), labels[rows])

    def loss():
        return error(torch.randint(600, len(labels), (64,)))

    return list(model.parameters()), loss, lambda: error(slice(300))


# optzoo's problems in PyTorch: parameters, loss on a fresh batch, loss on the validation split.
TWINS = {function.__name__: function for function in (rosenbrock, quadratic, digits)}


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
    print(
        "| problem | rule | optzoo, s | of it training, s | PyTorch, s | ratio | training alone |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for problem, rule in itertools.product(TWINS, rules):
        whole, training = alone("optzoo_seconds", problem, rule, rates, seeds)
        each = alone("torch_seconds", problem, rule, rates, timed)
        torch = count * sum(each[1:]) / (len(each) - 1)
        print(
            f"| `{problem}` | `{rule}` | {whole:.2f} | {training:.2f} | {torch:.1f} "
            f"| {torch / whole:.1f} | {torch / training:.0f} |",
            flush=True,
        )


def scaling(rule: str, rates: list[float], seeds: int) -> None:
    print(f"{len(rates) * seeds} runs of {rule} on digits, {os.cpu_count()} cores")
    print("| virtual devices | with compilation, s | training, s |")
    print("| --- | --- | --- |")
    for devices in DEVICES:
        whole, training = alone("optzoo_seconds", "digits", rule, rates, seeds, devices=devices)
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
