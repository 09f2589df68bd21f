"""Records the trajectories whose reference implementation is on PyPI.

    python tests/golden/record.py            record again and write the files
    python tests/golden/record.py --check    record again and compare with the files

Each reference gets the stored parameters and gradients, so that a recording depends on nothing
but the package. Needs the extra "parity", in the versions that index.json names.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import sys
from collections.abc import Iterator
from functools import partial
from unittest import mock

import numpy as np
import torch
from replay import CONFIGURATIONS, FILES, HERE, INDEX, Arrays, Leaves, build, deviation, load

REPRODUCED = 1e-12
"""Largest deviation that counts as the same recording: rounding differs between processors."""


def record(configuration: dict, stored: Arrays) -> Arrays:
    """Replays stored parameters and gradients through a PyTorch optimizer.

    Args:
      configuration: an entry of the index, or any mapping with its keys "reference", "leaves" and,
        where they apply, "evaluation", "averager" and "patches".
      stored: the recording to take parameters, gradients, learning rates and steps from.

    Returns:
      "params", and "eval" or "avg" where the configuration records them.
    """
    params = torch.nn.ParameterDict(
        [(leaf, torch.tensor(stored["params0"][leaf])) for leaf in configuration["leaves"]]
    )
    kind = configuration.get("evaluation")
    wanted = set(stored[f"{kind}_steps"][""].tolist()) if kind else set()
    rates = stored.get("sched", {}).get("lr")
    trajectory: dict[str, list[Leaves]] = {"params": [], **({kind: []} if kind else {})}
    with quiet(), patched(configuration.get("patches", {})):
        optimizer = build(configuration["reference"], {"params": list(params.values()), **params})
        averager = build(configuration.get("averager"), {"model": params})
        if kind == "eval":
            optimizer.train()
        for step, batch in enumerate(_batches(stored, configuration["leaves"][0])):
            closure = None
            if batch is None:
                for leaf, param in params.items():
                    param.grad = torch.tensor(stored["grads"][leaf][step])
            else:
                closure = partial(_differentiated, params, batch)
                closure()
            if rates is not None:
                for group in optimizer.param_groups:
                    group["lr"] = float(rates[step])
            optimizer.step(*filter(None, [closure]))
            trajectory["params"].append(values(params))
            if averager is not None:
                averager.step()
            if step in wanted:
                trajectory[kind].append(evaluated(optimizer, averager, params))
    return {
        name: {leaf: np.stack([tree[leaf] for tree in trees]) for leaf in params}
        for name, trees in trajectory.items()
    }


def _batches(stored: Arrays, leaf: str) -> list[dict[str, torch.Tensor] | None]:
    """The data of every step; None for each where there are gradients."""
    if "data" not in stored:
        return [None] * len(stored["grads"][leaf])
    batches = zip(stored["data"]["x"], stored["data"]["y"], strict=True)
    return [{"x": torch.tensor(x), "y": torch.tensor(y)} for x, y in batches]


def _differentiated(params: torch.nn.ParameterDict, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss of `replay.patchnet`, with new gradients in place of the old ones."""
    params.zero_grad()
    h = torch.tanh(torch.einsum("nijk,oijk->no", batch["x"], params["conv"]))
    h = torch.tanh(torch.tanh(h @ params["w_sq"].T) @ params["w_tall"].T)
    out = (h @ params["w_wide"].T + params["bias"]) * torch.exp(params["scalar"])
    loss = torch.mean((out - batch["y"]) ** 2)
    loss.backward()
    return loss


def rates(node: dict, steps: int) -> np.ndarray:
    """The learning rates that a scheduler of PyTorch or timm sets for as many steps.

    Args:
      node: {"reference": call that takes {"value": "optimizer"}, "lr": the optimizer's rate}.
      steps: how many.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=node["lr"], momentum=0.9)
    scheduler = build(node["reference"], {"optimizer": optimizer})
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        # timm's schedulers are told the step, PyTorch's count it.
        if hasattr(scheduler, "step_update"):
            scheduler.step_update(step + 1)
        elif step + 1 < steps:
            scheduler.step()
    return np.asarray(found, np.float64)


def values(params: torch.nn.ParameterDict) -> Leaves:
    """A copy of the present values."""
    return {leaf: param.detach().numpy().copy() for leaf, param in params.items()}


def evaluated(optimizer, averager, params: torch.nn.ParameterDict) -> Leaves:
    """The parameters to evaluate; the ones in training are left bit for bit as they were."""
    if averager is not None:
        return values(averager.averaged_model)
    training = {leaf: param.detach().clone() for leaf, param in params.items()}
    optimizer.eval()
    result = values(params)
    optimizer.train()
    for leaf, param in params.items():
        param.data.copy_(training[leaf])
    return result


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what the references print."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def patched(patches: dict[str, dict]) -> Iterator[None]:
    """Replaces attributes for a while: {dotted path: node of the index}."""
    with contextlib.ExitStack() as stack:
        for target, replacement in patches.items():
            stack.enter_context(mock.patch(target, build(replacement, {})))
        yield


def require_pinned_versions() -> None:
    """Exits unless every reference is installed in the version that the index names."""
    for package, version in INDEX["packages"].items():
        try:
            installed = importlib.metadata.version(package).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            sys.exit(f"{package} is not installed: pip install 'optzoo[parity]'")
        if installed != version:
            sys.exit(f"recordings are of {package} {version}; {installed} is installed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="configurations; all that can be recorded")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    require_pinned_versions()
    recordable = [name for name, entry in CONFIGURATIONS.items() if "reference" in entry]
    if unknown := sorted(set(options.names) - set(recordable)):
        parser.error(f"cannot record {', '.join(unknown)}; there are {', '.join(recordable)}")
    failed = 0
    for name in options.names or recordable:
        stored = load(name)
        fresh = record(CONFIGURATIONS[name], stored)
        worst = max(
            float(np.max(part))
            for kind, leaves in fresh.items()
            for part in deviation(leaves, stored[kind], stored["params0"]).values()
        )
        failed += worst > REPRODUCED
        print(f"{name:28} {worst:.1e}{'' if worst <= REPRODUCED else '  differs'}")
        if not options.check:
            write(name, stored | fresh)
    return 1 if failed and options.check else 0


def write(name: str, arrays: Arrays) -> None:
    """Stores a recording and what made it."""
    flat = {
        f"{kind}/{leaf}" if leaf else kind: value
        for kind, leaves in arrays.items()
        for leaf, value in leaves.items()
    }
    np.savez_compressed(FILES[name], **flat)
    path = HERE / "provenance.json"
    provenance = json.loads(path.read_text()) if path.exists() else {}
    package = CONFIGURATIONS[name]["package"]
    provenance[name] = {
        part: importlib.metadata.version(part) for part in sorted({package, "torch", "numpy"})
    }
    path.write_text(json.dumps(provenance, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
