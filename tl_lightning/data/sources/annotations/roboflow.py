"""What Roboflow exports of a classification with several labels: a ``_classes.csv`` beside the images of each split."""

from collections.abc import Sequence
from pathlib import Path

from tl_lightning.data.samples import split_of
from tl_lightning.data.sources.annotations.locating import locate
from tl_lightning.data.sources.columns import Table
from tl_lightning.data.sources.table import read_csv
from tl_lightning.errors import UserError

CLASSES = "_classes.csv"


def read_classes(tables: Sequence[Path], source: str) -> Table:
    """Makes one table of those of all splits.

    Args:
        tables: Each ``_classes.csv``: a column ``filename``, and one of 0 and 1 for each label.
        source: What messages call it.

    Raises:
        UserError: If the tables differ in their labels, a cell is neither 0 nor 1, or an image is missing.
    """
    paths: list[Path] = []
    cells: list[list[str]] = []
    splits: list[str] = []
    names: list[str] | None = None
    for path in tables:
        table = read_csv(path)
        first, *labels = table.columns
        if first != "filename" or not labels or (names is not None and set(labels) != set(names)):
            raise UserError(
                f"data.source {source}: {path} has the columns {', '.join(table.columns)}; expected are filename and "
                f"{', '.join(names) if names else 'one for each label'}"
            )
        names = names or labels
        stated = [str(name) for name in table.columns[first]]
        for row in range(len(stated)):
            marks = {name: str(table.columns[name][row]).strip() for name in labels}
            if wrong := [name for name, mark in marks.items() if mark not in ("0", "1")]:
                raise UserError(f"{table.place(row)}: column {wrong[0]!r} is {marks[wrong[0]]!r}; it must be 0 or 1")
            cells.append([name for name in names if marks[name] == "1"])
        paths += locate(stated, path.parent, source)
        splits += [split_of(path.parent.name) or ""] * len(stated)
    stating = all(splits) and len(set(splits)) > 1
    used = {name for cell in cells for name in cell}
    return Table(
        name=source,
        columns={"label": cells, **({"split": splits} if stating else {})},
        place=lambda index: f"the image {paths[index].name} of {source}",
        paths=paths,
        classes={"label": [name for name in names or () if name in used]},
    )
