"""Two stores as one."""

from pathlib import Path
from typing import Any

from optzoo.compare.errors import UserError
from optzoo.compare.keep.store import STORE_NAME, Chosen, Store

# What makes a problem the same in two comparisons.
SAME = ("steps", "target", "checkpoints")
# What must be the same for optimizers to be ranked together.
ALIKE = {
    "tuner": "tuner",
    "grid": "learning rates",
    "weight_decay": "weight decay",
    "until": "question of --until",
}
Part = tuple[Path, dict[str, Any], list[Chosen], dict[tuple[str, str], dict[str, Any]]]


def merge(first: Path, second: Path, out: Path) -> None:
    """Writes a store with all runs of two others, whose last comparisons become one.

    Args:
      first, second: the folders of the two.
      out: the folder for the store; it must hold none.

    Raises:
      UserError: if the comparisons were made by different rules, an optimizer differs between them
        on a problem that both have, or a file cannot be read or written.
    """
    parts = [_part(folder) for folder in (first, second)]
    about, chosen = _joined(*parts)
    path = out / STORE_NAME
    if path.exists():
        raise UserError(f"{out} holds results already: give a new folder")
    try:
        with Store(path) as store:
            for folder, *_ in parts:
                store.take_all(folder / STORE_NAME)
            store.begin(about)
            for grid in chosen:
                store.choose(grid)
            for pair, found in {**parts[1][3], **parts[0][3]}.items():
                store.answer(*pair, found)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _part(folder: Path) -> Part:
    path = folder / STORE_NAME
    if not path.is_file():
        raise UserError(f"{folder} holds no results of `optzoo compare`")
    with Store(path) as store:
        return folder, *store.comparison(), store.answers()


def _joined(first: Part, second: Part) -> tuple[dict[str, Any], list[Chosen]]:
    names, abouts = [str(part[0]) for part in (first, second)], (first[1], second[1])
    refusal = f"{names[0]} and {names[1]} cannot be merged"
    for key, word in ALIKE.items():
        if abouts[0][key] != abouts[1][key]:
            raise UserError(f"{refusal}: other {word} in each")
    problems = [about["problems"] for about in abouts]
    for name in problems[0].keys() & problems[1].keys():
        for key in SAME:
            if problems[0][name][key] != problems[1][name][key]:
                raise UserError(f"{refusal}: {name} has other {key} in each")
    chosen = {(grid.problem, grid.optimizer): grid for grid in first[2]}
    for grid in second[2]:
        twin = chosen.setdefault((grid.problem, grid.optimizer), grid)
        if twin.program != grid.program:
            raise UserError(
                f"{refusal}: {grid.optimizer} on {grid.problem} is another program in each; "
                f"`optzoo report {names[0]} {names[1]}` shows them side by side"
            )
    versions = [about["versions"] for about in abouts]
    return abouts[0] | {
        "optimizers": list(dict.fromkeys(abouts[0]["optimizers"] + abouts[1]["optimizers"])),
        "problems": problems[0] | problems[1],
        "schedules": sorted({*abouts[0]["schedules"], *abouts[1]["schedules"]}),
        "seeds": min(about["seeds"] for about in abouts),
        "command": "; ".join(filter(None, (about["command"] for about in abouts))),
        "workers": " and ".join(dict.fromkeys(filter(None, (a["workers"] for a in abouts)))),
        "versions": {
            name: " and ".join(dict.fromkeys(one[name] for one in versions if name in one))
            for name in versions[0] | versions[1]
        },
        "date": max(about["date"] for about in abouts),
    }, list(chosen.values())
