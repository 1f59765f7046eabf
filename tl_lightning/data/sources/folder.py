"""A folder of images with one sub-folder per class."""

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tl_lightning.core.console import console
from tl_lightning.data.archives.files import archive_at, is_file, is_folder
from tl_lightning.data.images.formats import SUFFIXES
from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import SPLIT_WORDS, are_numbers, name_some, sort_classes, split_of
from tl_lightning.data.sources.walk import folders_in, images_below, in_words, is_named_image, listed
from tl_lightning.errors import UserError, nearest, shown

FOLDER = "folder"  # the column of its classes
LAYOUT = "one sub-folder per class is expected, such as cats/1.jpg and dogs/2.jpg"


def read_folder(
    folder: Path, *, may_be_empty: bool = False, classes: Collection[str] = (), evaluating: bool = False
) -> Listing:
    """Lists a folder with one sub-folder per class, optionally under ``train/``, ``val/`` and ``test/``.

    Images are found at any depth, by their suffix, and where that tells nothing by what they begin with; what is hidden
    or was left by a system is ignored, and what else is left out is counted.

    Args:
        folder: The folder.
        may_be_empty: Whether there may be class folders without images.
        classes: The names that classes may have, where they are known: folders of these names are no splits.
        evaluating: Whether nothing is to train, so that there may be ``test/`` without ``train/``.

    Returns:
        The images sorted by class and path, the splits after each other.

    Raises:
        UserError: If the folder is missing or is laid out in another way.
    """
    parts = _split_folders(folder, classes, evaluating=evaluating)
    paths: list[Path] = []
    labels: list[str] = []
    splits: list[str] = []
    counts: Counter[str] = Counter()
    left_out: dict[str, Counter[str]] = {}
    for part, split in parts:
        for class_folder in folders_in(part):
            name, found = class_folder.name, images_below(class_folder)
            counts[name] += len(found.images)
            left_out.setdefault(name, Counter()).update(found.left_out)
            paths += found.images
            labels += [name] * len(found.images)
            splits += [split] * len(found.images)
    if not may_be_empty:
        _check_filled(folder, counts, left_out)
    beside = [shown(path.relative_to(folder)) for path in _stray_images(folder, parts)]
    return Listing(
        source=str(folder),
        paths=paths,
        targets={FOLDER: labels},
        place=lambda index: str(paths[index]),
        known={FOLDER: sort_classes(counts)},
        ordered=frozenset({FOLDER} if are_numbers(counts) else ()),
        split=splits if parts[0][1] else None,
        notes=_notes(folder, sum(left_out.values(), Counter()), beside),
    )


def find_images(path: Path) -> list[Path]:
    """Lists the image at a path, or all images in a folder or an archive, sorted; what else lies there is said.

    Raises:
        UserError: If there is nothing there, or no image in it.
    """
    if is_file(path) and archive_at(path) is None:
        return [path]
    if not is_folder(path):
        raise UserError(f"--input {path}: there is no such image or folder")
    found = images_below(path)
    if not found.images:
        there = f": {in_words(found.left_out)}" if found.left_out else f" ({' '.join(sorted(SUFFIXES))})"
        raise UserError(f"--input {path} holds no images{there}")
    for note in _notes(path, found.left_out, []):
        console.print(note)
    return found.images


def _notes(folder: Path, left_out: Counter[str], beside: Collection[str]) -> list[str]:
    said = []
    if left_out:
        files = "1 file" if left_out.total() == 1 else f"{left_out.total():,} files"
        said.append(f"left out {'is' if left_out.total() == 1 else 'are'} {files} in {folder}: {in_words(left_out)}")
    if beside:
        images = "1 image lies" if len(beside) == 1 else f"{len(beside):,} images lie"
        said.append(f"{images} beside the class folders of {folder}, left out: {name_some([*beside], most=3)}")
    return said


def _check_filled(folder: Path, counts: Counter[str], left_out: dict[str, Counter[str]]) -> None:
    empty = sort_classes(name for name, count in counts.items() if count == 0)
    if empty:
        there = {name: f" ({in_words(left_out[name])})" if left_out[name] else "" for name in empty}
        names = name_some([f"{name!r}{there[name]}" for name in empty])
        raise UserError(f"no image in the class folder {names} of {folder}; fill it or remove it")


def _stray_images(folder: Path, parts: list[tuple[Path, str]]) -> list[Path]:
    """Images that lie where class folders are expected."""
    places = dict.fromkeys([folder, *(part for part, _ in parts)])
    found = []
    for place in places:
        folders = set(folders_in(place))
        found += [path for path in listed(place) if is_named_image(path) and path not in folders]
    return found


def _split_folders(folder: Path, classes: Collection[str], *, evaluating: bool) -> list[tuple[Path, str]]:
    """The folders that hold class folders, each with the split that it states; an empty name states none."""
    if not folder.exists() and not is_folder(folder):
        raise UserError(f"data.source {folder}: there is no such folder")
    if not is_folder(folder):
        raise UserError(
            f"data.source {folder} is no folder, zip or tar archive, nor a table that ends in .csv or .parquet"
        )
    inside = folders_in(folder)
    if not inside:
        if any(map(is_named_image, listed(folder))):
            raise UserError(f"data.source {folder} holds images but no class folders; {LAYOUT}")
        raise UserError(f"data.source {folder} is empty; {LAYOUT}")
    names = [path.name for path in inside]
    if {*names} <= {*classes}:  # who names the classes decides
        return [(folder, "")]
    stated = [split_of(name) for name in names]
    if all(stated) and ("train" in stated or evaluating):
        return [(path, split or "") for path, split in zip(inside, stated, strict=True)]
    if all(stated):
        raise UserError(f"data.source {folder} has {', '.join(names)} but no train/ folder")
    _check_classes(folder, inside)
    return [(folder, "")]


def _check_classes(folder: Path, inside: list[Path]) -> None:
    """Refuses folders that are learned as classes and look like something else."""
    names = [path.name for path in inside]
    as_classes = f"if these are the classes, say --data.classes '[{', '.join(names[:3])}{', ...' * (len(names) > 3)}]'"
    below = [{path.name for path in folders_in(one)} for one in inside]
    # "train" may also be a class, of railway images; then its images lie directly in it.
    if any(split_of(name) == "train" and deeper for name, deeper in zip(names, below, strict=True)):
        name = next(name for name in names if split_of(name) is None)
        raise UserError(
            f"folder {name!r} stands beside train/ in {folder}; expected are train/, val/ and test/"
            + nearest(name, SPLIT_WORDS)
        )
    if len({split for name in names if (split := _like_split(name))}) > 1:
        like = name_some([repr(name) for name in names if _like_split(name)], most=4)
        raise UserError(
            f"the folders {like} of {folder} read like splits: name them train/, val/ and test/, with nothing else "
            f"beside them; {as_classes}"
        )
    if len(inside) == 1 and len(below[0]) > 1:
        raise UserError(
            f"data.source {folder} holds one folder only, {names[0]!r}, and that holds {len(below[0])}: "
            f"name {folder / names[0]} as data.source"
        )
    common = sorted(set.intersection(*below))
    if len(inside) > 1 and len(common) > 1:
        raise UserError(
            f"the folders {name_some([repr(name) for name in names], most=4)} of {folder} all hold the same folders, "
            f"{name_some([repr(name) for name in common], most=4)}: if those are the classes, name the upper ones "
            f"train/, val/ and test/, or one of them as data.source; {as_classes}"
        )


def _like_split(name: str) -> str | None:
    """The split that a name reads like, such as ``train`` for ``training_set`` or ``train2017``."""
    return next((split for word in re.findall("[a-z]+", name.lower()) if (split := split_of(word))), None)
