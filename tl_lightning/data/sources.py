"""One name for where the pictures are: a folder, a table, or a set that is known by name."""

from pathlib import Path

from tl_lightning.data.elpv import read_elpv
from tl_lightning.data.folder import read_folder
from tl_lightning.data.samples import Samples
from tl_lightning.data.table import read_table
from tl_lightning.errors import UserError

__all__ = ["Samples", "read_source"]


def read_source(
    source: str,
    *,
    target: str | None = None,
    image_column: str = "image",
    label_column: str = "label",
    classes: list[str] | None = None,
) -> Samples:
    """Lists the pictures and labels of a source; no picture is read.

    Args:
        source: ``elpv``, the path of a table that ends in ``.csv``, or a folder with one sub-folder per class.
        target: What is to be learned, where the source has several answers (`elpv`: defect, level or type).
        image_column: Column of the table that holds the path of the picture.
        label_column: Column of the table that holds the label.
        classes: Order of the classes, as from a checkpoint; `None` leaves it to the source.

    Returns:
        The samples.

    Raises:
        UserError: If the source cannot be used, saying what to do.
    """
    if source == "elpv":
        return read_elpv(target=target, classes=classes)
    if target is not None:
        raise UserError(f"data.target {target!r} is only for the source elpv, not for {source}; leave it out")
    path = Path(source).expanduser()
    if path.suffix.lower() == ".csv":
        return read_table(path, image_column=image_column, label_column=label_column, classes=classes)
    return read_folder(path, classes=classes)
