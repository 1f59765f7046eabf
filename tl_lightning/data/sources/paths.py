"""Sources that have a path: a folder, a table, an archive of either, or shards."""

from collections.abc import Collection
from pathlib import Path

from tl_lightning.data.archives.files import folders_of, is_folder
from tl_lightning.data.images.formats import is_ignored
from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import split_of
from tl_lightning.data.sources.annotations.found import read_export
from tl_lightning.data.sources.columns import Columns, list_table
from tl_lightning.data.sources.folder import find_images, read_folder
from tl_lightning.data.sources.several import files_of
from tl_lightning.data.sources.table import read_csv, read_table
from tl_lightning.data.sources.walk import is_named_image, listed
from tl_lightning.data.sources.webdataset import are_shards, read_shards
from tl_lightning.errors import UserError

ENDINGS = (".csv", ".parquet", ".zip", ".tar", ".json", ".xml")  # of what is always a file


def list_path(
    source: str,
    *,
    columns: Columns,
    separator: str = "|",
    may_be_empty: bool = True,
    classes: Collection[str] = (),
    evaluating: bool = False,
    blank_targets: bool = True,
) -> Listing:
    """What the files at a path say, as text; see `tl_lightning.data.sources.read.list_source`.

    Args:
        source: A folder, a .csv or .parquet table, a zip or tar archive of a folder, or shards, which a pattern or a
            folder of them names.
        columns: Which columns of a table say what.
        separator: Between the labels of one cell.
        may_be_empty: Whether a folder may have class folders without images.
        classes: The names that classes may have, where they are known; see `read_folder`.
        evaluating: Whether nothing is to train; see `read_folder`.
        blank_targets: Whether the cell of a target may be blank.

    Raises:
        UserError: If it cannot be listed.
    """
    try:
        paths = files_of(source)
        first, kind = paths[0], paths[0].suffix.lower()
        if kind == ".parquet" and not first.is_dir():
            return read_table(*paths, columns=columns, blank_targets=blank_targets, separator=separator)
        if len(paths) > 1 or are_shards(paths):
            table, columns = read_shards(paths, source, columns)
            return list_table(table, columns, blank_targets=blank_targets, separator=separator)
        top = top_folder(first)
        if first.exists() and (export := read_export(top, source, columns)) is not None:
            table, columns = export
            return list_table(table, columns, blank_targets=blank_targets, separator=separator)
        table_path = first if kind == ".csv" else _table_in(top, columns)
        if table_path is not None:
            return read_table(table_path, columns=columns, blank_targets=blank_targets, separator=separator)
        check_no_columns(source, columns)
        return read_folder(top, may_be_empty=may_be_empty, classes=classes, evaluating=evaluating)
    except OSError as error:
        raise UserError(f"data.source {source} cannot be read: {error.strerror or error}") from error


def top_folder(path: Path) -> Path:
    """Where the folders of an archive begin: many hold one folder, which has its name; other paths as they are."""
    while not path.is_dir() and is_folder(path):
        inside = [each for each in listed(path) if not is_ignored(each.name)]
        if len(inside) != 1 or split_of(inside[0].name) or inside[0] not in folders_of(path):
            break
        if all(map(is_named_image, listed(inside[0]))):  # the folder of a class
            break
        path = inside[0]
    return path


def _table_in(top: Path, columns: Columns) -> Path | None:
    """The only table at the top of an archive, where it names images; `None` for folders on the disk, too.

    Raises:
        UserError: If there is an archive in the archive.
    """
    if top.is_dir() or not is_folder(top):
        return None
    inside = listed(top)
    if packed := [path for path in inside if path.suffix.lower() in (".zip", ".tar", ".tgz", ".gz", ".parquet")]:
        raise UserError(f"data.source {packed[0]} is an archive in an archive: unpack the outer one first")
    tables = [path for path in inside if path.suffix.lower() == ".csv"]
    return tables[0] if len(tables) == 1 and columns.image in read_csv(tables[0]).columns else None


def check_no_columns(source: str, columns: Columns) -> None:
    """Refuses columns that were named for a source that has none."""
    for role in ("split", "group", "domain", "weight", "time"):
        if getattr(columns, role) is not None:
            raise UserError(
                f"data.{role}_column is for tables, and {source} has no columns: leave it out, or make a table"
            )


def files_at(source: str, columns: Columns) -> list[Path]:
    """The images at a path, in order, whatever is said of them.

    Args:
        source: An image, a folder, an archive or a table; or shards, as ``test-{000..009}.tar``.
        columns: Which columns of a table say what.

    Raises:
        UserError: If there are none.
    """
    unlabelled = Columns(image=columns.image, label=None)
    try:
        paths = files_of(source, setting="--input")
        kind = paths[0].suffix.lower()
        if kind == ".csv" or (kind == ".parquet" and not paths[0].is_dir()):
            return read_table(*paths, columns=unlabelled).paths
        return [image for path in paths for image in find_images(path)]
    except OSError as error:
        raise UserError(f"--input {source} cannot be read: {error.strerror or error}") from error
