"""The one terminal that every part of the package writes to."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tl_lightning.core.screen import SCREEN

T = TypeVar("T")


class _Console(Console):
    def status(self, status: RenderableType, **options: Any) -> Any:  # noqa: ANN401 - the signature is rich's
        if self.options.ascii_only:
            options.setdefault("spinner", "line")
        return super().status(status, **options)


# A folder or a phase may have square brackets in its name, which rich would take for a style.
console = _Console(file=SCREEN, highlight=False, soft_wrap=True, markup=False)  # type: ignore[arg-type]


def progress_bar() -> Progress:
    """A bar that is gone when it stops; each of its tasks has a field ``note``, shown behind the bar.

    Where the output is no terminal (a log file, a pipe) it shows nothing.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}")
    return Progress(*columns, note, console=console, transient=True, disable=not console.is_terminal)


def track(items: Iterable[T], description: str, *, total: int) -> Iterator[T]:
    """Passes the items through while a progress bar, gone at the end, shows how many are done.

    Args:
        items: What to iterate over.
        description: What is being done, shown before the bar.
        total: The number of items.

    Yields:
        Each item, in order.
    """
    with progress_bar() as progress:
        task = progress.add_task(description, total=total, note="")
        yield from progress.track(items, task_id=task, total=total)


def new_table(title: str, *columns: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table under a heading.

    Args:
        title: The heading.
        columns: The first columns, of words.
        numbers: The columns behind them, whose cells stand at the right.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def duration(seconds: float) -> str:
    """A length of time as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
