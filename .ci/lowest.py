"""Prints the lowest versions that pyproject.toml allows, as constraints for pip."""

import tomllib
from pathlib import Path

with Path("pyproject.toml").open("rb") as file:
    project = tomllib.load(file)["project"]
wanted = [*project["dependencies"]]
for extra in ("compare", "tune", "dask", "slurm", "test"):
    wanted += project["optional-dependencies"][extra]
print(*(text.replace(">=", "==") for text in wanted if ">=" in text), sep="\n")
