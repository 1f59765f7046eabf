"""Data sets of Hugging Face's library ``datasets``, by name or from a folder."""

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tl_lightning.core.console import console
from tl_lightning.core.files import user_path
from tl_lightning.data.samples import split_of
from tl_lightning.data.sources.columns import Columns, Table
from tl_lightning.data.sources.exports import Content, open_export
from tl_lightning.errors import UserError, nearest

PREFIX = "datasets/"


def read_hub(name: str, columns: Columns) -> tuple[Table, Columns]:
    """Lists a data set of the library ``datasets``; the first time it is loaded and exported.

    Encoded images are exported as they are; those that lie in files of their own are used there. An export is kept
    until it is removed with ``tl cache clear``, whatever happens on the hub meanwhile; that of a folder is made anew
    when its files have changed.

    Args:
        name: As on the hub, with ``:`` and a configuration where it has several; or a folder that exists, either of
            ``save_to_disk`` or of files that ``load_dataset`` understands.
        columns: `Columns.image` chooses among several columns of images.

    Returns:
        The table, and the columns to read: where nobody chose an answer, it is the only column with classes. The
        splits become its column ``split``, unless there is one only; those of one meaning (validation, dev) are put
        together; splits other than train, validation and test are left out. A split without any answers, such as the
        test images of a competition, is left out, too.

    Raises:
        UserError: If the library is missing, the set cannot be loaded, or it has no column of images.
    """
    path, _, config = name.partition(":")
    if not path:
        raise UserError(f"data.source {PREFIX}{name} names no data set; datasets/NAME or datasets/FOLDER is expected")
    folder = user_path(path)
    source = f"{PREFIX}{name}"
    state = _state(folder.absolute()) if folder.is_dir() else ()
    table = open_export(
        source, (source, columns.image, *state), lambda: _content(source, path, config or None, columns.image)
    )
    with_classes = list(table.classes)
    if columns.label == "label" and "label" not in table.columns and len(with_classes) == 1:
        columns = replace(columns, label=with_classes[0])
    return table, columns


def _state(folder: Path) -> Iterator[str]:
    """Where a folder lies and what it holds, as far as names, sizes and times tell."""
    yield str(folder)
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            try:
                status = os.stat(os.path.join(parent, name))
                yield f"{parent}/{name} {status.st_size} {status.st_mtime_ns}"
            except OSError:  # a link that leads nowhere
                yield f"{parent}/{name}"


def _content(source: str, path: str, config: str | None, image: str) -> Content:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"data.source {source} needs a package that is missing: pip install 'tl_lightning[datasets]'"
        ) from error
    folder = user_path(path)
    with _one_line(source, "" if folder.is_dir() else f"; nor is there a folder {source} or {path}"):
        saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
        loaded = datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(
            str(folder) if folder.is_dir() else path, config
        )  # fmt: skip
    parts = _parts(source, loaded)
    features = next(iter(parts.values())).features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise UserError(f"data.source {source} has no column of images; its columns are {', '.join(features)}")
    if image not in images and len(images) > 1:
        raise UserError(
            f"data.source {source} has several columns of images ({', '.join(images)}); choose one as "
            f"data.image_column, which is {image!r}" + nearest(image, images)
        )
    chosen = image if image in images else images[0]
    usable = [name for name, feature in features.items() if _is_usable(feature)]
    with _one_line(source):
        cells = {split: {name: _cells(part, name) for name in usable} for split, part in parts.items()}
    classes = {name: names for name in usable if (names := _class_names(features[name])) is not None}
    blank = [split for split, own in cells.items()
             if classes and all(cell is None for name in classes for cell in own[name])]  # fmt: skip
    if blank and len(blank) < len(parts):
        console.print(f"{source}: no image of {', '.join(blank)} has an answer; they are left out")
        parts = {split: part for split, part in parts.items() if split not in blank}
    columns = {name: [cell for split in parts for cell in cells[split][name]] for name in usable}
    if "" not in parts:
        columns["split"] = [split for split, part in parts.items() for _ in range(len(part))]
    return Content(
        images=_images(source, [part.select_columns([chosen]) for part in parts.values()], chosen),
        total=sum(map(len, parts.values())),
        columns=columns,
        classes=classes,
    )


def _parts(source: str, loaded: Any) -> dict[str, Any]:  # noqa: ANN401 - a Dataset or DatasetDict
    """The splits by their names here; the name is empty where there is one only."""
    import datasets

    parts = dict(loaded) if isinstance(loaded, dict) else {"": loaded}
    if len(parts) > 1:
        known = {name: split_of(name) for name in parts}
        if "train" not in known.values():
            raise UserError(f"data.source {source} has the splits {', '.join(parts)}; train is expected among them")
        if ignored := [name for name, split in known.items() if split is None]:
            console.print(f"{source}: its splits {', '.join(ignored)} are left out; used are train, validation, test")
        by_split: dict[str, list[Any]] = {}
        for name, split in known.items():
            if split is not None:
                by_split.setdefault(split, []).append(parts[name].with_format(None))
        with _one_line(source):  # such as validation and dev, of different columns
            return {split: datasets.concatenate_datasets(same) for split, same in by_split.items()}
    return {"": next(iter(parts.values())).with_format(None)}


def _inner(feature: Any) -> Any:  # noqa: ANN401 - a feature
    """What a list is made of; the feature itself where it is none."""
    return feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)


def _class_names(feature: Any) -> list[str] | None:  # noqa: ANN401 - a feature
    names: list[str] | None = getattr(_inner(feature), "names", None)
    return names


def _is_usable(feature: Any) -> bool:  # noqa: ANN401 - a feature
    """Whether cells are text, numbers or the like, or lists of these; not sound, boxes or bytes."""
    import datasets

    inner = _inner(feature)
    return isinstance(inner, datasets.ClassLabel | datasets.Value) and "binary" not in str(inner.dtype)


def _cells(part: Any, column: str) -> list[Any]:  # noqa: ANN401 - a Dataset
    """A column's cells, classes by their names; the hub's -1 is no class, hence blank."""
    cells: list[Any] = part[column][:]
    names = _class_names(part.features[column])
    if names is None:
        return cells

    def name(number: int | None) -> str | None:
        return None if number is None or number < 0 else names[number]

    return [[name(each) for each in cell] if isinstance(cell, list) else name(cell) for cell in cells]


def _images(source: str, parts: list[Any], column: str) -> Iterator[bytes | Path]:
    import datasets

    for part in parts:
        encoded = part.cast_column(column, datasets.Image(decode=False))
        for index in range(len(encoded)):
            with _one_line(source):
                cell = encoded[index][column] or {}
            path, data = cell.get("path"), cell.get("bytes")
            # Neither is a broken image like others, which the user has stopped at or skipped: an empty file.
            yield Path(path) if data is None and path and os.path.isfile(path) else data or b""


@contextmanager
def _one_line(source: str, hint: str = "") -> Iterator[None]:
    """Says whatever the library and the network raise as a user's error."""
    try:
        yield
    except Exception as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 300)
        if "Config name is missing" in reason:
            hint = f"; name one as {source}:CONFIG"
        raise UserError(f"data.source {source} cannot be loaded: {reason}{hint}") from error
