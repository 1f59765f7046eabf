"""The images below a folder, and what else lies there."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tl_lightning.core.run_folder import holds_runs, is_run
from tl_lightning.data.archives.files import entries, folders_of, walk
from tl_lightning.data.images.formats import SUFFIXES, is_ignored, left_out_as, suffix_of
from tl_lightning.errors import UserError, shown


@dataclass(frozen=True)
class Found:
    """What is in a folder.

    Attributes:
        images: The files that are images, in the order of their parts.
        left_out: How many files are something else, by what they are called.
    """

    images: list[Path]
    left_out: Counter[str] = field(default_factory=Counter)


def images_below(folder: Path) -> Found:
    """Finds the images at any depth; what is hidden or was left by a system is ignored.

    Args:
        folder: Where to look; links to folders within it are counted and not followed.

    Raises:
        UserError: If a folder cannot be listed.
    """
    images: list[str] = []
    left_out: Counter[str] = Counter()
    for parent, folders, names in walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not is_ignored(name, folder=True) and not is_run(Path(parent, name))]
        left_out["linked folder"] += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        for name in names:
            if is_ignored(name):
                continue
            path = os.path.join(parent, name)
            if suffix_of(name) not in SUFFIXES and (called := left_out_as(path)) is not None:
                left_out[called] += 1
            else:
                images.append(path)
    images.sort(key=lambda path: path.split(os.sep))  # as paths of pathlib's are, which take ten times as long
    return Found([Path(path) for path in images], +left_out)


def folders_in(folder: Path) -> list[Path]:
    """The folders that a person put there, sorted; links count, but for those that lead to where they lie in.

    Folders of runs, such as ours, do not count either.

    Args:
        folder: Where to look.

    Raises:
        UserError: If it cannot be listed.
    """
    inside = folder.resolve()
    try:
        found = sorted(path for path in folders_of(folder) if not is_ignored(path.name, folder=True))
    except OSError as error:
        _refuse(error)
    return [
        path
        for path in found
        if not inside.is_relative_to(path.resolve()) and not (holds_runs(path) and not images_below(path).images)
    ]


def listed(folder: Path) -> list[Path]:
    """All that a folder holds, sorted.

    Args:
        folder: Where to look.

    Raises:
        UserError: If it cannot be listed.
    """
    try:
        return sorted(entries(folder))
    except OSError as error:
        _refuse(error)


def is_named_image(path: Path) -> bool:
    """Whether a file is one that `images_below` would take for its name."""
    return suffix_of(path.name) in SUFFIXES and not is_ignored(path.name)


def in_words(left_out: Counter[str]) -> str:
    """Names what was left out, most first, such as ``3 .heic (HEIC), 1 .txt``."""
    return ", ".join(f"{count:,} {called}" for called, count in left_out.most_common())


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"the folder {shown(error.filename)} cannot be listed: {error.strerror}") from error
