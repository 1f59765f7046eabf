"""A sample may be a part of a file: ``clip.dcm#7`` is its frame 7, ``scan.nii.gz#axial:40`` a slice of a volume."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tl_lightning.core.frames import PLANES

_PART = re.compile(rf"(.+)#(?:({'|'.join(PLANES)}):)?(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A frame, a page or a slice.

    Attributes:
        number: From 0.
        plane: How a volume is cut; the first of `PLANES` where it is no volume.
    """

    number: int
    plane: str = PLANES[0]


def split_part(path: Path) -> tuple[Path, Part | None]:
    """The file of a sample, and which part of it the sample is; `None` for the whole.

    A file that has such a name itself is always taken for one.

    Args:
        path: Of the sample, as `with_part` names it.
    """
    if "#" not in path.name or (match := _PART.fullmatch(path.name)) is None or os.path.lexists(path):
        return path, None
    return path.with_name(match[1]), Part(int(match[3]), match[2] or PLANES[0])


def file_of(path: Path) -> Path:
    """The file that a sample is in; see `split_part`."""
    return split_part(path)[0]


def with_part(file: Path, number: int, plane: str | None = None) -> Path:
    """The name of a part of a file.

    Args:
        file: The file.
        number: Of the frame, page or slice, from 0.
        plane: How a volume is cut; `None` where it is none.
    """
    return file.with_name(f"{file.name}#{plane}:{number}" if plane else f"{file.name}#{number}")
