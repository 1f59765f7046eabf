"""Files that hold several images, or say whose they are: each image becomes a sample, and samples of one in a group."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from tl_lightning.core.console import track
from tl_lightning.core.frames import Frames
from tl_lightning.data.archives.files import is_file, open_file
from tl_lightning.data.images import dicom, nifti, tiff
from tl_lightning.data.images.dicom import Whose
from tl_lightning.data.images.formats import HEAD, SEVERAL, SUFFIXES, suffix_of
from tl_lightning.data.images.image_files import quiet_decoders
from tl_lightning.data.parts import file_of, split_part, with_part
from tl_lightning.data.samples import Samples
from tl_lightning.data.workers import usable_cores
from tl_lightning.errors import UserError, shown
from tl_lightning.preprocess.image import ImagePreprocess


@dataclass(frozen=True)
class Contents:
    """What is in a file.

    Attributes:
        parts: The images in it that count, as samples are named.
        whose: A code of the patient or the study, alike for all files of one; empty where the file does not say.
        scaled: Whether the file says itself what is black and white.
    """

    parts: list[Path]
    whose: bytes = b""
    scaled: bool = False


def open_parts(samples: Samples, preprocess: ImagePreprocess, group_by: Whose, source: str) -> Samples:
    """Makes every frame, page or slice a sample of its own, with the target of its file.

    Args:
        samples: One for each file; those that name a part themselves stay as they are.
        preprocess: Says which of them.
        group_by: What becomes a group, where the source states no groups.
        source: Name of the source, for messages.

    Returns:
        The samples in the same order. Groups are the patients, or what was asked for, and the files of several images;
        there are none where each would be of one sample. Their names lead to a file, and nowhere else.

    Raises:
        UserError: If a file has none of the frames, a package is missing, or a single patient is all that there is.
    """
    if group_by not in get_args(Whose):
        raise UserError(f"data.group_by is {group_by!r}; it must be {', '.join(get_args(Whose))}")
    found = look_into(samples.paths, preprocess.frames, group_by)
    rows = np.repeat(np.arange(len(samples)), [len(each.parts) for each in found])
    notes = [*samples.notes, *_notes(found, preprocess)]
    opened = replace(samples.at(rows), paths=[part for each in found for part in each.parts], notes=notes)
    if samples.groups is not None or not any(each.whose or split_part(each.parts[0])[1] for each in found):
        return opened
    return replace(
        opened, groups=_groups(samples.paths, found, rows, group_by, source, stated=samples.split is not None)
    )


def _notes(found: Sequence[Contents], preprocess: ImagePreprocess) -> Iterator[str]:
    several = [len(each.parts) for each in found if len(each.parts) > 1]
    if several:
        files = "1 file holds" if len(several) == 1 else f"{len(several):,} files hold"
        yield (
            f"{files} {sum(several):,} images, each of which is a sample; those of a file stay in one split "
            f"(data.frames {preprocess.frames})"
        )
    if any(each.scaled for each in found) and preprocess.pixel_range is None:
        yield (
            "black and white are each file's own: its window, or its smallest and its largest number; "
            "--data.pixel_range makes them the same for all"
        )


def _groups(
    paths: Sequence[Path],
    found: Sequence[Contents],
    rows: NDArray[np.int64],
    group_by: Whose,
    source: str,
    *,
    stated: bool,
) -> NDArray[np.str_] | None:
    names: dict[bytes | Path, str] = {}
    for path, each in zip(paths, found, strict=True):
        file = file_of(path)
        kind = group_by if each.whose else "file"
        names.setdefault(each.whose or file, f"{kind} {len(names) + 1} ({shown(file.parent.name)}/{shown(file.name)})")
    if len(names) == 1 and not stated:
        others = [name for name in get_args(Whose)[get_args(Whose).index(group_by) + 1 :] if len(paths) > 1]
        raise UserError(
            f"all images of {source} are of one {next(iter(names.values())).split()[0]}, so there is none to test on"
            + (f"; if they are not, say --data.group_by {' or '.join(others)}" if others else "")
        )
    own = [names[each.whose or file_of(path)] for path, each in zip(paths, found, strict=True)]
    groups = np.array(own, dtype=np.str_)[rows]
    return groups if len(np.unique(groups)) < len(groups) else None


def look_into(paths: Sequence[Path], frames: str, group_by: Whose = "file") -> list[Contents]:
    """Says of each file which images are in it; what cannot be read now counts as one image, to be reported later.

    Args:
        paths: Files, or parts of files, which stay as they are.
        frames: Which of the frames, pages or slices count, as `Frames.parse` reads it.
        group_by: What `Contents.whose` is to stand for.

    Raises:
        UserError: If a file has none of the frames, or a package is missing.
    """
    chosen = Frames.parse(frames)
    asked = {path: None for path in paths if suffix_of(path.name) not in SUFFIXES - SEVERAL}  # else at its word
    known: dict[Path, Contents] = {}
    if asked:
        with quiet_decoders(), ThreadPoolExecutor(usable_cores()) as pool:
            contents = pool.map(lambda path: _look_into(path, chosen, group_by), asked)
            known = dict(zip(asked, track(contents, "looking into files", total=len(asked)), strict=True))
    for path, contents_of_it in known.items():
        if not contents_of_it.parts:
            raise UserError(f"data.frames {frames} takes none of the images in {shown(path)}")
    return [known.get(path) or Contents([path]) for path in paths]


def _look_into(path: Path, frames: Frames, group_by: Whose) -> Contents:
    file, part = split_part(path)
    try:
        if not is_file(file):  # a pipe would be waited for
            return Contents([path])
        with io.BufferedReader(open_file(file)) as opened:
            head = opened.read(HEAD)
            whose, plane, scaled = b"", None, True
            if nifti.is_nifti(head, file.name):
                plane = frames.plane
                numbers = list(range(nifti.count_slices(opened, plane)))
            elif dicom.is_dicom(head, file.name):
                header = dicom.read_header(opened, group_by)
                numbers, whose = list(range(header.frames)), header.whose
            elif head[:4] in tiff.MAGIC:
                numbers, scaled = tiff.full_pages(opened), False
            else:
                return Contents([path])
    except UserError:
        raise
    except Exception:  # whatever a damaged file leads to; who decodes it says so
        return Contents([path])
    if part is not None or (len(numbers) < 2 and plane is None):
        return Contents([path], whose, scaled)
    parts = [with_part(file, numbers[place], plane) for place in frames.among(len(numbers))]
    return Contents(parts, whose, scaled)
