"""Results on disk: one SQLite file that survives being killed at any moment."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optzoo.compare.errors import UserError
from optzoo.plugins import one_line

STORE_NAME = "results.sqlite"
VERSION = 3
SCHEMA = """
CREATE TABLE run (
  program TEXT, rate REAL, seed INTEGER, curves TEXT, final TEXT,
  PRIMARY KEY (program, rate, seed)
);
CREATE TABLE cost (program TEXT PRIMARY KEY, seconds REAL);
CREATE TABLE comparison (id INTEGER PRIMARY KEY, about TEXT);
CREATE TABLE chosen (
  comparison INTEGER, problem TEXT, optimizer TEXT, program TEXT, default_rate REAL, rates TEXT,
  state_ratio REAL, gradients INTEGER,
  PRIMARY KEY (comparison, problem, optimizer)
);
"""
COLUMNS = "problem, optimizer, program, default_rate, rates, state_ratio, gradients"


@dataclass(frozen=True)
class Run:
    """One optimizer on one problem with one learning rate and one seed.

    Attributes:
      rate: the learning rate.
      seed: the seed.
      curves: metric -> its values at the checkpoints, validation split; recorded gradient norms
        have one value a step.
      final: metric -> its value after the last step, test split.
    """

    rate: float
    seed: int
    curves: dict[str, list[float]]
    final: dict[str, float]


@dataclass(frozen=True)
class Chosen:
    """The runs of one comparison for one optimizer on one problem.

    Attributes:
      problem, optimizer: their names.
      program: the fingerprint that its runs are stored under.
      default_rate: the rule's own learning rate.
      rates: the learning rates tried.
      state_ratio: bytes of optimizer state per byte of parameters.
      gradients: how many gradients a step costs.
    """

    problem: str
    optimizer: str
    program: str
    default_rate: float
    rates: list[float]
    state_ratio: float
    gradients: int


class Store:
    """Runs by program fingerprint, and what each comparison consists of.

    A run is written once, when it is complete; runs of earlier comparisons stay and are found
    again by their fingerprint. Several processes may write at a time: each keeps to the comparison
    that it began.
    """

    def __init__(self, path: Path | None) -> None:
        """Opens or creates the store; `None` keeps it in memory.

        Raises:
          UserError: if the file cannot be opened, is damaged, or comes from another version.
        """
        self.path = path
        self._lock = threading.Lock()
        self._comparison = 0
        with self._explained():
            name = path or ":memory:"
            self._database = sqlite3.connect(name, timeout=60, check_same_thread=False)
        try:
            self._open()
        except UserError:
            # Nobody is handed the store who could close it.
            self._database.close()
            raise

    def _open(self) -> None:
        with self._transaction() as database:
            database.execute("BEGIN IMMEDIATE")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if not version:
                for statement in SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {VERSION}")
        if version not in (0, VERSION):
            age = "a newer" if version > VERSION else "an older"
            raise UserError(
                f"{self.path} was written by {age} version of optzoo: use that one, or another "
                "folder"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained(), self._lock, self._database as database:
            yield database

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever SQLite objects to, in a sentence."""
        try:
            yield
        except sqlite3.Error as error:
            kept = "; what it holds is safe" if "full" in str(error) else ""
            raise UserError(f"cannot use {self.path}: {one_line(error)}{kept}") from error

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def find(self, program: str, rates: Iterable[float], seeds: Iterable[int]) -> list[Run]:
        """The finished runs of a program among the given rates and seeds."""
        rates, seeds = set(rates), set(seeds)
        with self._transaction() as database:
            rows = database.execute(
                "SELECT rate, seed, curves, final FROM run WHERE program = ? ORDER BY rate, seed",
                (program,),
            ).fetchall()
        return [
            Run(rate, seed, json.loads(curves), json.loads(final))
            for rate, seed, curves, final in rows
            if rate in rates and seed in seeds
        ]

    def save(self, program: str, runs: Iterable[Run]) -> None:
        """Writes finished runs, all or none of them."""
        rows = [(program, r.rate, r.seed, json.dumps(r.curves), json.dumps(r.final)) for r in runs]
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?)", rows)

    def save_cost(self, program: str, seconds: float) -> None:
        """Writes what a step of a program costs."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO cost VALUES (?, ?)", (program, seconds))

    def cost(self, program: str) -> float:
        """Seconds of one step of a program; NaN where they were too few, or never measured."""
        row = self._cost(program)
        # SQLite keeps NaN as NULL.
        return float("nan") if row is None or row[0] is None else row[0]

    def is_timed(self, program: str) -> bool:
        """Whether `save_cost` was told of a program."""
        return self._cost(program) is not None

    def _cost(self, program: str) -> tuple[float | None] | None:
        with self._transaction() as database:
            return database.execute(
                "SELECT seconds FROM cost WHERE program = ?", (program,)
            ).fetchone()

    def begin(self, about: dict[str, Any]) -> None:
        """Starts a comparison; earlier ones keep what they have."""
        with self._transaction() as database:
            cursor = database.execute(
                "INSERT INTO comparison (about) VALUES (?)", (json.dumps(about),)
            )
            self._comparison = cursor.lastrowid or 0

    def choose(self, grid: Chosen) -> None:
        """Makes a finished grid part of the comparison that this process began."""
        row = (grid.problem, grid.optimizer, grid.program, grid.default_rate)
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO chosen VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (self._comparison, *row, json.dumps(grid.rates), grid.state_ratio, grid.gradients),
            )

    def earlier(self, problem: str, optimizer: str) -> list[Chosen]:
        """What all comparisons chose for one optimizer on one problem, the latest first."""
        with self._transaction() as database:
            rows = database.execute(
                f"SELECT {COLUMNS} FROM chosen WHERE problem = ? AND optimizer = ?"
                " ORDER BY comparison DESC",
                (problem, optimizer),
            ).fetchall()
        return list(map(_chosen, rows))

    def comparison(self) -> tuple[dict[str, Any], list[Chosen]]:
        """What `begin` was told and `choose` since; in a store just opened, the last that were.

        Raises:
          UserError: if no comparison has come to a first result.
        """
        with self._transaction() as database:
            number = (
                self._comparison
                or database.execute("SELECT max(comparison) FROM chosen").fetchone()[0]
            )
            rows = database.execute(
                f"SELECT {COLUMNS} FROM chosen WHERE comparison = ? ORDER BY problem, optimizer",
                (number,),
            ).fetchall()
            if not rows:
                raise UserError("the comparison was stopped before its first result")
            about = database.execute(
                "SELECT about FROM comparison WHERE id = ?", (number,)
            ).fetchone()[0]
        return json.loads(about), list(map(_chosen, rows))


def _chosen(row: tuple[Any, ...]) -> Chosen:
    problem, optimizer, program, default_rate, rates, *costs = row
    return Chosen(problem, optimizer, program, default_rate, json.loads(rates), *costs)
