"""Results on disk: one SQLite file that survives being killed at any moment."""

import json
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

STORE_NAME = "results.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE run (
  program TEXT, rate REAL, seed INTEGER, curves TEXT, final TEXT, seconds REAL,
  PRIMARY KEY (program, rate, seed)
);
CREATE TABLE chosen (
  problem TEXT, optimizer TEXT, program TEXT, default_rate REAL, rates TEXT,
  PRIMARY KEY (problem, optimizer)
);
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT);
"""


@dataclass(frozen=True)
class Run:
    """One optimizer on one problem with one learning rate and one seed.

    Attributes:
      rate: the learning rate.
      seed: the seed.
      curves: metric -> its values at the checkpoints, validation split.
      final: metric -> its value after the last step, test split.
      seconds: the run's share of the wall-clock time of its grid.
    """

    rate: float
    seed: int
    curves: dict[str, list[float]]
    final: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Chosen:
    """The runs of the current comparison for one optimizer on one problem."""

    problem: str
    optimizer: str
    program: str
    default_rate: float
    rates: list[float]


class Store:
    """Runs by program fingerprint, and what the current comparison consists of.

    A run is written once, when it is complete; runs of earlier comparisons stay and are found
    again by their fingerprint.
    """

    def __init__(self, path: Path | None) -> None:
        """Opens or creates the store; `None` keeps it in memory.

        Raises:
          UserError: if the file cannot be opened, is damaged, or comes from a newer optzoo.
        """
        self.path = path
        self._lock = threading.Lock()
        try:
            name = path or ":memory:"
            self._database = sqlite3.connect(name, timeout=60, check_same_thread=False)
            with self._transaction() as database:
                database.execute("BEGIN IMMEDIATE")
                version = database.execute("PRAGMA user_version").fetchone()[0]
                if not version:
                    for statement in SCHEMA.split(";"):
                        database.execute(statement)
                    database.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as error:
            raise UserError(f"cannot use {path}: {one_line(error)}") from error
        if version > VERSION:
            raise UserError(f"{path} was written by a newer version of optzoo")

    @contextmanager
    def _transaction(self):
        with self._lock, self._database as database:
            yield database

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def find(self, program: str, rates: Iterable[float], seeds: Iterable[int]) -> list[Run]:
        """The finished runs of a program among the given rates and seeds."""
        rates, seeds = set(rates), set(seeds)
        with self._transaction() as database:
            rows = database.execute(
                "SELECT rate, seed, curves, final, seconds FROM run WHERE program = ?"
                " ORDER BY rate, seed",
                (program,),
            ).fetchall()
        return [
            Run(rate, seed, json.loads(curves), json.loads(final), seconds)
            for rate, seed, curves, final, seconds in rows
            if rate in rates and seed in seeds
        ]

    def save(self, program: str, runs: Iterable[Run]) -> None:
        """Writes finished runs, all or none of them."""
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (program, r.rate, r.seed, json.dumps(r.curves), json.dumps(r.final), r.seconds)
                    for r in runs
                ],
            )

    def begin(self, about: dict[str, Any]) -> None:
        """Starts a comparison: forgets what the last one consisted of, but none of its runs."""
        with self._transaction() as database:
            database.execute("DELETE FROM chosen")
            rows = [(key, json.dumps(value)) for key, value in about.items()]
            database.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    def choose(self, grid: Chosen) -> None:
        """Makes a finished grid part of the current comparison."""
        row = (grid.problem, grid.optimizer, grid.program, grid.default_rate)
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO chosen VALUES (?, ?, ?, ?, ?)",
                (*row, json.dumps(grid.rates)),
            )

    def about(self) -> dict[str, Any]:
        """What `begin` was told."""
        with self._transaction() as database:
            rows = database.execute("SELECT key, value FROM about").fetchall()
        return {key: json.loads(value) for key, value in rows}

    def grids(self) -> list[Chosen]:
        """What the current comparison consists of so far."""
        with self._transaction() as database:
            rows = database.execute("SELECT * FROM chosen ORDER BY problem, optimizer").fetchall()
        return [Chosen(a, b, c, d, json.loads(rates)) for a, b, c, d, rates in rows]
