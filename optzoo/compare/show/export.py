"""Tables in other programs' formats."""

from pathlib import Path

import pandas as pd

from optzoo.compare.errors import UserError
from optzoo.compare.read.tables import PAIR, Tables


def csv_text(frame: pd.DataFrame) -> str:
    """The runs as CSV, with an apostrophe before names that a spreadsheet takes for formulas."""
    names = frame[PAIR].replace(r"^([=+\-@\t\r])", r"'\1", regex=True)
    return frame.assign(**names).to_csv(index=False)


def write(
    results: Tables,
    *,
    csv: Path | None = None,
    parquet: Path | None = None,
    json: Path | None = None,
    png: Path | None = None,
) -> list[Path]:
    """Writes what is asked for; returns the paths.

    Args:
      results: what to write.
      csv, parquet, json: files for the runs, one row each.
      png: a folder for the charts.

    Raises:
      UserError: where something cannot be written, or pyarrow is missing for Parquet.
    """
    written: list[Path] = []
    try:
        if csv:
            csv.write_text(csv_text(results.frame), "utf-8", "backslashreplace")
            written.append(csv)
        if json:
            results.frame.to_json(json, orient="records", double_precision=15)
            written.append(json)
        if parquet:
            results.frame.to_parquet(parquet, engine="pyarrow", index=False)
            written.append(parquet)
        if png:
            from optzoo.compare.show import pictures

            written += pictures.write(results, png)
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    except ImportError as error:
        if "pyarrow" not in str(error):
            raise
        raise UserError("Parquet needs pyarrow: pip install pyarrow") from error
    return written
