"""Tar shards as WebDataset writes them: the files of one sample share a name up to its first dot."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tl_lightning.core.console import console
from tl_lightning.data.archives.files import archive_at
from tl_lightning.data.archives.members import Members
from tl_lightning.data.images.formats import SUFFIXES
from tl_lightning.data.samples import name_some
from tl_lightning.data.sources.columns import Columns, Table
from tl_lightning.data.sources.several import stated_splits
from tl_lightning.errors import UserError, shown

BESIDE = ("cls", "json", "txt")  # what is read beside an image; a file of another kind is none of ours


def are_shards(paths: Sequence[Path]) -> bool:
    """Whether the first tar archive has files of these kinds beside its images, rather than folders of classes."""
    members = archive_at(paths[0]) if _TAR.search(paths[0].name) else None
    kinds: dict[str, set[str]] = {}
    for name in members.files if members is not None else ():
        key, end = _parted(name)
        kinds.setdefault(key, set()).add(_kind(end))
    # A text beside an image in the folder of a class is a caption, or whatever else.
    return any(
        found & _IMAGES and found & {"cls", "json", *(() if "/" in key else ("txt",))} for key, found in kinds.items()
    )


def read_shards(paths: Sequence[Path], source: str, columns: Columns) -> tuple[Table, Columns]:
    """Lists the samples of tar shards; what says the target is read, images are not.

    A sample is what shares a name up to the first dot of its last part, wherever in one shard it lies. A ``.json``
    gives a column for each of its keys; ``.cls`` and ``.txt`` give columns of these names, of which the first that
    there is takes the place of a ``label`` that no one has.

    Args:
        paths: The shards.
        source: What messages call them.
        columns: Which column holds what; `Columns.image` chooses among several images of a sample by what follows the
            first dot, as in ``left.jpg``.

    Returns:
        The table, with the column ``split`` where the shards' names state one; and the columns to read.

    Raises:
        UserError: If a shard is damaged, a sample has several images, or what lies beside them cannot be read.
    """
    splits = stated_splits(paths, source)
    images: list[Path] = []
    rows: list[dict[str, Any]] = []
    without: list[str] = []
    for number, path in enumerate(paths):
        members = archive_at(path)
        if members is None:
            raise UserError(f"data.source {source}: {path} is no tar archive" if path.is_file()
                            else f"data.source {source}: there is no {path}")  # fmt: skip
        for key, ends in _samples(members).items():
            image = _image(path, key, ends, columns.image)
            if image is None:
                without.append(f"{path}/{key}")
                continue
            images.append(path / f"{key}.{image}")
            row = _row(members, path, key, ends)
            if splits is not None and "split" not in row:
                row["split"] = splits[number]
            rows.append(row)
    if without:
        console.print(
            f"{source}: {len(without)} of {len(without) + len(images)} samples have no image and are left out: "
            f"{name_some([shown(name) for name in without], most=3)}"
        )
    if not images:
        raise UserError(f"data.source {source} holds no images")
    names = dict.fromkeys(name for row in rows for name in row)
    if columns.label == "label" and "label" not in names:
        columns = replace(columns, label=next((name for name in ("cls", "txt") if name in names), "label"))
    table = Table(
        name=source,
        columns={name: [row.get(name) for row in rows] for name in names},
        place=lambda index: str(images[index]),
        paths=images,
    )
    return table, columns


_TAR = re.compile(r"\.(tar|tgz)(\.\w+)?$", re.IGNORECASE)
_IMAGES = {suffix.removeprefix(".") for suffix in SUFFIXES}


def _parted(name: str) -> tuple[str, str]:
    """A member's key and what follows it: only dots of the last part count."""
    folder, slash, last = name.rpartition("/")
    key, _, end = last.partition(".")
    return f"{folder}{slash}{key}", end


def _kind(end: str) -> str:
    return end.rpartition(".")[2].lower()


def _samples(members: Members) -> dict[str, list[str]]:
    """By key what follows it; hidden files and what WebDataset itself leaves out, names without a dot, are none."""
    found: dict[str, list[str]] = {}
    for name in members.files:
        key, end = _parted(name)
        if end and not key.rpartition("/")[2].startswith("__") and key and not key.endswith("/"):
            found.setdefault(key, []).append(end)
    return found


def _image(path: Path, key: str, ends: list[str], wanted: str) -> str | None:
    found = [end for end in ends if _kind(end) in _IMAGES]
    if wanted in found:
        return wanted
    if len(found) > 1:
        raise UserError(
            f"{path}: the sample {shown(key)!r} has several images ({', '.join(found[:5])}): a sample's name ends at "
            "its first dot; choose one as data.image_column, or rename the files"
        )
    return found[0] if found else None


def _row(members: Members, path: Path, key: str, ends: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for end in sorted(ends, key=lambda end: BESIDE.index(end.lower()) if end.lower() in BESIDE else -1):
        kind = end.lower()
        if kind not in BESIDE:
            continue
        place = f"{path}/{key}.{end}"
        try:
            text = members.files[f"{key}.{end}"].read().decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"{shown(place)} is no UTF-8 text: {error}") from error
        if kind != "json":
            row[kind] = text
            continue
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UserError(f"{shown(place)} is no JSON: {error}") from error
        row |= content if isinstance(content, dict) else {"json": content}
    return row
