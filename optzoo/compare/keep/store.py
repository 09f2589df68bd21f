"""Results on disk: one SQLite file that survives being killed at any moment."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optzoo.compare.errors import UserError
from optzoo.compare.plan.tuners import Trial
from optzoo.plugins import one_line

STORE_NAME = "results.sqlite"
VERSION = 4
SCHEMA = """
CREATE TABLE run (
  program TEXT, rate REAL, seed INTEGER, curves TEXT, final TEXT, device TEXT,
  PRIMARY KEY (program, rate, seed)
);
CREATE TABLE cost (program TEXT, device TEXT, seconds REAL, PRIMARY KEY (program, device));
CREATE TABLE comparison (id INTEGER PRIMARY KEY, about TEXT);
CREATE TABLE chosen (
  comparison INTEGER, problem TEXT, optimizer TEXT, program TEXT, default_rate REAL, rates TEXT,
  state_ratio REAL, gradients INTEGER,
  PRIMARY KEY (comparison, problem, optimizer)
);
CREATE TABLE answer (
  comparison INTEGER, problem TEXT, optimizer TEXT, found TEXT,
  PRIMARY KEY (comparison, problem, optimizer)
);
CREATE TABLE taken (
  problem TEXT, optimizer TEXT, program TEXT, PRIMARY KEY (problem, optimizer, program)
);
"""
COLUMNS = "problem, optimizer, program, default_rate, rates, state_ratio, gradients"
# What belongs to one comparison.
RESULTS = {"chosen": COLUMNS, "answer": "problem, optimizer, found"}


@dataclass(frozen=True)
class Run:
    """One optimizer on one problem with one learning rate and one seed.

    Attributes:
      rate: the learning rate.
      seed: the seed.
      curves: metric -> its values at the checkpoints, validation split; recorded gradient norms
        have one value a step.
      final: metric -> its value after the last step, test split.
      options: further arguments that were tuned.
      device: what computed it.
    """

    rate: float
    seed: int
    curves: dict[str, list[float]]
    final: dict[str, float]
    options: Mapping[str, float] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True)
class Chosen:
    """The runs of one comparison for one optimizer on one problem.

    Attributes:
      problem, optimizer: their names.
      program: the fingerprint that its runs are stored under.
      default_rate: the rule's own learning rate.
      trials: what was tried, in the order of the tuner.
      state_ratio: bytes of optimizer state per byte of parameters.
      gradients: how many gradients a step costs.
    """

    problem: str
    optimizer: str
    program: str
    default_rate: float
    trials: list[Trial]
    state_ratio: float
    gradients: int


class Store:
    """Runs by program fingerprint, and what each comparison consists of.

    A run is written once, when it is complete; runs of earlier comparisons stay and are found
    again by their fingerprint. Several processes may write at a time: each keeps to the comparison
    that it began.
    """

    def __init__(self, path: Path | None, content: bytes = b"") -> None:
        """Opens or creates the store; `None` keeps it in memory, and begins with a `part`.

        Raises:
          UserError: if the file cannot be opened, is damaged, or comes from another version.
        """
        self.path = path
        self._lock = threading.Lock()
        self._comparison = 0
        with self._explained():
            name = path or ":memory:"
            self._database = sqlite3.connect(name, timeout=60, check_same_thread=False)
            if content:
                self._database.deserialize(content)
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

    def find(
        self, program: str, trials: Iterable[Trial], seeds: Iterable[int], length: int | None = None
    ) -> list[Run]:
        """The finished runs of a program among the given trials and seeds.

        Args:
          program: its fingerprint.
          trials, seeds: which runs.
          length: the steps of a run that the program was told, if it was.
        """
        rates: dict[tuple[tuple[str, float], ...], set[float]] = {}
        for trial in trials:
            rates.setdefault(trial.options, set()).add(trial.rate)
        seeds, found = set(seeds), list[Run]()
        for options, some in rates.items():
            with self._transaction() as database:
                rows = database.execute(
                    "SELECT rate, seed, curves, final, device FROM run WHERE program = ?"
                    " ORDER BY rate, seed",
                    (_variant(program, dict(options), length),),
                ).fetchall()
            found += [
                Run(rate, seed, json.loads(curves), json.loads(final), dict(options), device)
                for rate, seed, curves, final, device in rows
                if rate in some and seed in seeds
            ]
        return found

    def save(self, program: str, runs: Iterable[Run], length: int | None = None) -> None:
        """Writes finished runs, all or none of them; see `find` for the arguments."""
        rows = [
            (
                _variant(program, r.options, length),
                *(r.rate, r.seed, json.dumps(r.curves), json.dumps(r.final), r.device),
            )
            for r in runs
        ]
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?)", rows)

    def save_cost(self, program: str, device: str, seconds: float) -> None:
        """Writes what a step of a program costs on a device."""
        row = (program, device, seconds)
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO cost VALUES (?, ?, ?)", row)

    def costs(self, program: str) -> dict[str, float]:
        """device -> seconds of one step of a program there; NaN where they were too few."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT device, seconds FROM cost WHERE program = ? ORDER BY device", (program,)
            ).fetchall()
        # SQLite keeps NaN as NULL.
        return {device: float("nan") if value is None else value for device, value in rows}

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
        trials = [[t.rate, dict(t.options)] if t.options else t.rate for t in grid.trials]
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO chosen VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (self._comparison, *row, json.dumps(trials), grid.state_ratio, grid.gradients),
            )

    def answer(self, problem: str, optimizer: str, found: dict[str, Any]) -> None:
        """Makes the steps that a loss took part of the comparison that this process began."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)",
                (self._comparison, problem, optimizer, json.dumps(found)),
            )

    def answers(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(problem, optimizer) -> what `answer` was told in the comparison of `comparison`."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT problem, optimizer, found FROM answer WHERE comparison = ?"
                " ORDER BY problem, optimizer",
                (self._number(database),),
            ).fetchall()
        return {(problem, optimizer): json.loads(found) for problem, optimizer, found in rows}

    def _number(self, database: sqlite3.Connection) -> int | None:
        """The comparison that this process began, or the last one that has results."""
        return (
            self._comparison or database.execute("SELECT max(comparison) FROM chosen").fetchone()[0]
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

    def part(self, problem: str, optimizers: Iterable[str]) -> bytes:
        """What all comparisons chose for optimizers on a problem, as the content of a store."""
        names = [problem, *optimizers]
        marks = ", ".join("?" * (len(names) - 1))
        with self._attached() as database:
            for statement in SCHEMA.replace("TABLE ", "TABLE other.").split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA other.user_version = {VERSION}")
            where = f"WHERE problem = ? AND optimizer IN ({marks})"
            for table in ("chosen", "taken"):
                database.execute(f"INSERT INTO other.{table} SELECT * FROM {table} {where}", names)
            # Runs of other lengths and of further arguments are other programs'.
            programs = "SELECT program FROM other.chosen UNION SELECT program FROM other.taken"
            for table in ("run", "cost"):
                where = f"WHERE program IN ({programs})"
                database.execute(f"INSERT INTO other.{table} SELECT * FROM {table} {where}")
            database.commit()
            return database.serialize(name="other")

    def content(self) -> bytes:
        """All of a store that is kept in memory."""
        with self._transaction() as database:
            return database.serialize()

    def take(self, content: bytes, problem: str, optimizer: str) -> None:
        """Adds what somebody who had a `part` computed of an optimizer on a problem.

        What was chosen and answered becomes part of this store's comparison; of runs that both
        have, its own stay.
        """
        with self._attached() as database:
            database.deserialize(content, name="other")
            self._copy_runs(database)
            database.execute(
                "INSERT OR IGNORE INTO taken SELECT DISTINCT ?, ?, program FROM other.run",
                (problem, optimizer),
            )
            for table, columns in RESULTS.items():
                database.execute(
                    f"INSERT OR REPLACE INTO {table} SELECT ?, {columns} FROM other.{table}"
                    " WHERE comparison = 0",
                    (self._comparison,),
                )

    def take_all(self, path: Path) -> None:
        """Adds all comparisons of another store; of runs that both have, its own stay."""
        with self._attached(path) as database:
            last = database.execute("SELECT coalesce(max(id), 0) FROM comparison").fetchone()
            self._copy_runs(database)
            database.execute(
                "INSERT INTO comparison SELECT id + ?, about FROM other.comparison", last
            )
            for table, columns in RESULTS.items():
                database.execute(
                    f"INSERT INTO {table} SELECT comparison + ?, {columns} FROM other.{table}", last
                )

    def _copy_runs(self, database: sqlite3.Connection) -> None:
        for table in ("run", "cost", "taken"):
            database.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table}")

    @contextmanager
    def _attached(self, path: Path | None = None) -> Iterator[sqlite3.Connection]:
        """Beside it another database by the name of `other`; None for an empty one in memory."""
        with self._explained(), self._lock:
            self._database.execute("ATTACH ? AS other", (str(path or ":memory:"),))
            try:
                with self._database as database:
                    yield database
            finally:
                self._database.execute("DETACH other")

    def comparison(self) -> tuple[dict[str, Any], list[Chosen]]:
        """What `begin` was told and `choose` since; in a store just opened, the last that were.

        Raises:
          UserError: if no comparison has come to a first result.
        """
        with self._transaction() as database:
            number = self._number(database)
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


def _variant(program: str, options: Mapping[str, float], length: int | None) -> str:
    """What runs are kept under whose program was told more than the rate."""
    told = f" {json.dumps(dict(options), sort_keys=True)}" if options else ""
    return f"{program}{told}" + (f" {length} steps" if length else "")


def _chosen(row: tuple[Any, ...]) -> Chosen:
    problem, optimizer, program, default_rate, kept, *costs = row
    trials = [_trial(one) for one in json.loads(kept)]
    return Chosen(problem, optimizer, program, default_rate, trials, *costs)


def _trial(kept: Any) -> Trial:
    """A number, or a number and further arguments."""
    rate, options = kept if isinstance(kept, list) else (kept, {})
    return Trial(rate, tuple(options.items()))
