"""One source out of several files: shards, by a pattern or in a folder, and the splits that their names state."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tl_lightning.core.files import user_path
from tl_lightning.data.archives.files import folders_of
from tl_lightning.data.samples import name_some, split_of
from tl_lightning.errors import UserError

SHARDS = (".tar", ".parquet")
MOST = 100_000  # of the names that one pattern stands for

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def files_of(source: str, *, setting: str = "data.source") -> list[Path]:
    """The files that a source stands for; itself where it is one, or a folder of anything but shards.

    Args:
        source: A path; or several of one kind, as ``train-{000..099}.tar``, ``{train,val}.parquet`` or ``data/*.tar``.
        setting: What messages call the setting.

    Raises:
        UserError: If a file is missing, none fits, or they are of several kinds.
    """
    path = user_path(source)
    if os.path.lexists(path):
        return _shards_in(path, setting) if path.is_dir() else [path]
    if not any(sign in source for sign in "{*?["):
        return [path]
    found = []
    for name in _expanded(str(path), f"{setting} {source}"):
        if fitting := sorted(glob.glob(name)):
            found += fitting
        else:
            raise UserError(f"{setting} {source}: there is no {name}")
    kinds = sorted({os.path.splitext(name)[1].lower() for name in found})
    if len(kinds) > 1 or kinds[0] not in SHARDS:
        raise UserError(
            f"{setting} {source} stands for {len(found)} files that end in {', '.join(kinds)}; several must be all "
            ".tar, or all .parquet"
        )
    return [Path(name) for name in dict.fromkeys(found)]


def stated_splits(paths: Sequence[Path], source: str) -> list[str] | None:
    """The split that each file's name states, as ``train-000.tar`` or ``test/0000.parquet``.

    Args:
        paths: One or more.
        source: What messages call the source.

    Returns:
        A split for each; `None` where they are all of the same one, or none states any.

    Raises:
        UserError: If some state one and some do not.
    """
    found = [_split_in(path.stem) or split_of(path.parent.name) or "" for path in paths]
    if len(set(found)) < 2:
        return None
    if missing := [str(path) for path, split in zip(paths, found, strict=True) if not split]:
        raise UserError(
            f"{source}: the names of {len(missing)} of {len(paths)} files do not say which split they are, as others "
            f"do: {name_some(missing, most=3)}; call them train-..., val-... or test-..."
        )
    return found


def _split_in(name: str) -> str:
    """The only split that a name has a word for; empty where there is none, or several."""
    words = {split for word in re.split(r"[^a-z]+", name.lower()) if (split := split_of(word))}
    return words.pop() if len(words) == 1 else ""


def _shards_in(folder: Path, setting: str) -> list[Path]:
    """The shards in a folder, or in the folders within; the folder itself where it holds others."""
    try:
        found = [folder / name for name in sorted(_names(folder)) if name.lower().endswith(SHARDS)]
        found = [path for path in found if path.is_file()]
        for path in sorted(folders_of(folder)) if not found else []:
            names = [] if path.name.startswith(".") else _names(path)
            if names and min(names).lower().endswith(SHARDS):  # and not an image of a class
                found += [path / name for name in sorted(names) if name.lower().endswith(SHARDS)]
    except OSError:  # which the reading of the folder says
        return [folder]
    if len({path.suffix.lower() for path in found}) > 1:
        raise UserError(f"{setting} {folder} holds .tar and .parquet files: name one kind, as {folder}/*.tar")
    return found or [folder]


def _names(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if not name.startswith(".")]


def _expanded(pattern: str, source: str) -> list[str]:
    """What braces stand for, in order: ``{000..099}`` or ``{a,b}``."""
    whole = _BRACES.search(pattern)
    if whole is None:
        return [pattern]
    inside = whole[1]
    if ends := _RANGE.fullmatch(inside):
        first, last = int(ends[1]), int(ends[2])
        if abs(last - first) >= MOST:
            raise UserError(f"{source} stands for more than {MOST:,} files")
        width = max(map(len, ends.groups())) if any(end[0] == "0" and len(end) > 1 for end in ends.groups()) else 0
        step = 1 if last >= first else -1
        parts = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    else:
        parts = inside.split(",")
    names = [
        name for part in parts for name in _expanded(pattern[: whole.start()] + part + pattern[whole.end() :], source)
    ]
    if len(names) > MOST:
        raise UserError(f"{source} stands for more than {MOST:,} files")
    return names
