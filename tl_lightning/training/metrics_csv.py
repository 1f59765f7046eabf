"""The CSV log that every run writes."""

import csv
import io
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from tl_lightning.core.files import write_text

# Sees each row of `metrics.csv` as it is logged, by column; it may raise KeyboardInterrupt to end the run.
Watch = Callable[[Mapping[str, Any]], None]


class MetricsCsv(Logger):
    """Writes everything that is logged to one CSV file, with a column for each name that ever came.

    Args:
        path: The file; what it holds already stays.
        watch: Called with each row, once it is in the file; may be set to `None` later.
    """

    def __init__(self, path: Path, watch: Watch | None = None) -> None:
        super().__init__()
        self._path = path
        self.watch = watch
        self._columns = ["epoch", "step"]
        self._rows: list[dict[str, Any]] = []
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a last line that was cut off may still look like a row
            reader = csv.DictReader(io.StringIO(whole))
            self._rows = list(reader)
            self._columns = list(reader.fieldnames or self._columns)

    def drop_from(self, step: int) -> None:
        """Removes the rows of a step and of all later ones, which a resumed run writes again.

        A column that only they had goes too, so that the file is that of a run that was never interrupted.
        """
        self._rows = [row for row in self._rows if _before(row, step)]
        used = {name for row in self._rows for name, value in row.items() if value not in (None, "")}
        self._columns = [name for name in self._columns if name in used or name in ("epoch", "step")]
        self._rows = [{name: row.get(name) for name in self._columns} for row in self._rows]
        if self._path.is_file():
            write_text(self._path, self._table(self._rows, header=True))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What is in the file, by column; as text where it was read from there."""
        return self._rows

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """The run's, which is its folder's name."""
        return self._path.parent.name

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Does nothing: the run's ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row."""
        row = {"step": step, **{name: _plain(value) for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        self._columns += new
        self._rows.append(row)
        if new or len(self._rows) == 1:
            write_text(self._path, self._table(self._rows, header=True))
        else:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._table([row], header=False))
        if self.watch is not None:
            self.watch(row)

    def _table(self, rows: list[dict[str, Any]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _before(row: dict[str, Any], step: int) -> bool:
    try:
        return int(row["step"]) < step
    except (TypeError, ValueError):
        return False  # cut off in the middle


def _plain(value: object) -> object:
    return value.item() if isinstance(value, Tensor) else value
