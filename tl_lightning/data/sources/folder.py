"""A folder of images with one sub-folder per class."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tl_lightning.core.console import console
from tl_lightning.data.images.formats import SUFFIXES
from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import are_numbers, name_some, sort_classes
from tl_lightning.data.sources.walk import folders_in, images_below, in_words, is_named_image, listed
from tl_lightning.errors import UserError, nearest, shown

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
FOLDER = "folder"  # the column of its classes
LAYOUT = "one sub-folder per class is expected, such as cats/1.jpg and dogs/2.jpg"


def read_folder(folder: Path, *, may_be_empty: bool = False) -> Listing:
    """Lists a folder with one sub-folder per class, optionally under ``train/``, ``val/`` and ``test/``.

    Images are found at any depth, by their suffix, and where that tells nothing by what they begin with; what is hidden
    or was left by a system is ignored, and what else is left out is counted.

    Args:
        folder: The folder.
        may_be_empty: Whether there may be class folders without images.

    Returns:
        The images sorted by class and path, the splits after each other.

    Raises:
        UserError: If the folder is missing or is laid out in another way.
    """
    parts = _split_folders(folder)
    paths: list[Path] = []
    labels: list[str] = []
    splits: list[str] = []
    classes: Counter[str] = Counter()
    left_out: dict[str, Counter[str]] = {}
    for part, split in parts:
        for class_folder in folders_in(part):
            name, found = class_folder.name, images_below(class_folder)
            classes[name] += len(found.images)
            left_out.setdefault(name, Counter()).update(found.left_out)
            paths += found.images
            labels += [name] * len(found.images)
            splits += [split] * len(found.images)
    if not may_be_empty:
        _check_filled(folder, classes, left_out)
    beside = [shown(path.relative_to(folder)) for path in _stray_images(folder, parts)]
    return Listing(
        source=str(folder),
        paths=paths,
        targets={FOLDER: labels},
        place=lambda index: str(paths[index]),
        known={FOLDER: sort_classes(classes)},
        ordered=frozenset({FOLDER} if are_numbers(classes) else ()),
        split=splits if parts[0][1] else None,
        notes=_notes(folder, sum(left_out.values(), Counter()), beside),
    )


def find_images(path: Path) -> list[Path]:
    """Lists the image at a path, or all images below a folder, sorted; what else lies there is said.

    Raises:
        UserError: If there is nothing there, or no image in it.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
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


def _check_filled(folder: Path, classes: Counter[str], left_out: dict[str, Counter[str]]) -> None:
    empty = sort_classes(name for name, count in classes.items() if count == 0)
    if empty:
        there = {name: f" ({in_words(left_out[name])})" if left_out[name] else "" for name in empty}
        names = name_some([f"{name!r}{there[name]}" for name in empty])
        raise UserError(f"no image in the class folder {names} of {folder}; fill it or remove it")


def _stray_images(folder: Path, parts: list[tuple[Path, str]]) -> list[Path]:
    """Images that lie where class folders are expected."""
    places = dict.fromkeys([folder, *(part for part, _ in parts)])
    return [path for place in places for path in listed(place) if is_named_image(path) and not path.is_dir()]


def _split_folders(folder: Path) -> list[tuple[Path, str]]:
    """The folders that hold class folders, each with the split that it states; an empty name states none."""
    if not folder.exists():
        raise UserError(f"data.source {folder}: there is no such folder")
    if not folder.is_dir():
        raise UserError(f"data.source {folder} is neither a folder nor a table that ends in .csv or .parquet")
    inside = folders_in(folder)
    if not inside:
        if any(map(is_named_image, listed(folder))):
            raise UserError(f"data.source {folder} holds images but no class folders; {LAYOUT}")
        raise UserError(f"data.source {folder} is empty; {LAYOUT}")
    names = {path.name: SPLIT_FOLDERS.get(path.name.lower()) for path in inside}
    train = [path for path in inside if names[path.name] == "train"]
    # "train" may also be a class, of railway images; then its images lie directly in it.
    if train and not any(map(is_named_image, listed(train[0]))):
        for name, split in names.items():
            if split is None:
                raise UserError(
                    f"folder {name!r} stands beside train/ in {folder}; expected are train/, val/ and test/"
                    + nearest(name, SPLIT_FOLDERS)
                )
        return [(path, names[path.name] or "") for path in inside]
    if not train and all(names.values()):
        raise UserError(f"data.source {folder} has {', '.join(names)} but no train/ folder")
    return [(folder, "")]
