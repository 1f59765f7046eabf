"""One name for where the pictures are: a folder, a table, or a set that is known by name."""

from pathlib import Path

from tl_lightning.data.answers import make_samples
from tl_lightning.data.columns import Columns, list_table
from tl_lightning.data.elpv import read_elpv
from tl_lightning.data.folder import read_folder
from tl_lightning.data.hub_sets import PREFIX as HUB
from tl_lightning.data.hub_sets import read_hub
from tl_lightning.data.samples import AnswerKind, Listing, Samples
from tl_lightning.data.table import SUFFIXES, read_table
from tl_lightning.data.torchvision_sets import PREFIX as TORCHVISION
from tl_lightning.data.torchvision_sets import read_torchvision
from tl_lightning.errors import UserError

__all__ = ["Columns", "Samples", "read_source"]


def read_source(
    source: str,
    *,
    answers: AnswerKind = "class",
    target: str | None = None,
    columns: Columns | None = None,
    separator: str = "|",
    classes: list[str] | None = None,
) -> Samples:
    """Lists the pictures and answers of a source; none is read, but for libraries' sets that are new here.

    Args:
        source: ``elpv``, the path of a table that ends in ``.csv`` or ``.parquet``, or a folder with one sub-folder per
            class; else ``torchvision/NAME``, or ``datasets/NAME``, ``datasets/NAME:CONFIG`` or ``datasets/FOLDER`` for
            the library ``datasets``. A path that exists is always taken for one.
        answers: The kind of answer that is wanted.
        target: What is to be learned, where the source has several answers (`elpv`: defect, level, type, probability).
        columns: Of a table, or of a set of the library ``datasets``.
        separator: Between the labels of one cell.
        classes: Order of the classes, as from a checkpoint; `None` leaves it to the source.

    Returns:
        The samples.

    Raises:
        UserError: If the source cannot be used, saying what to do.
    """
    listing = _list(source, answers, target, columns or Columns(), separator, may_be_empty=classes is not None)
    return make_samples(listing, answers=answers, classes=classes, separator=separator)


def _list(
    source: str, answers: AnswerKind, target: str | None, columns: Columns, separator: str, *, may_be_empty: bool
) -> Listing:
    if source == "elpv":
        return read_elpv(target=target)
    if target is not None:
        raise UserError(f"data.target {target!r} is only for the source elpv, not for {source}; leave it out")
    path = Path(source).expanduser()
    blank = answers == "labels"
    if path.suffix.lower() in SUFFIXES:
        return read_table(path, columns=columns, blank_answers=blank, separator=separator)
    if source.startswith(TORCHVISION) and not path.exists():
        return list_table(read_torchvision(source.removeprefix(TORCHVISION)), columns, separator=separator)
    if source.startswith(HUB) and not path.exists():
        table, columns = read_hub(source.removeprefix(HUB), columns)
        return list_table(table, columns, blank_answers=blank, separator=separator)
    if answers in ("labels", "number"):
        wanted = "a number" if answers == "number" else "several labels"
        raise UserError(
            f"a folder says one class of each picture, not {wanted}: name a .csv or .parquet table as data.source"
        )
    return read_folder(path, may_be_empty=may_be_empty)
