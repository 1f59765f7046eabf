"""A folder of images with one sub-folder per class."""

import os
from pathlib import Path

from tl_lightning.core.run_folder import holds_runs, is_run
from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import are_numbers, name_some, sort_classes
from tl_lightning.errors import UserError, nearest

SUFFIXES = frozenset(".jpg .jpeg .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .jp2".split())
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
FOLDER = "folder"  # the column of its classes
LAYOUT = "one sub-folder per class is expected, such as cats/1.jpg and dogs/2.jpg"


def read_folder(folder: Path, *, may_be_empty: bool = False) -> Listing:
    """Lists a folder with one sub-folder per class, optionally under ``train/``, ``val/`` and ``test/``.

    Images are found at any depth, by their suffix; what is hidden is ignored.

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
    found: dict[str, int] = {}
    for part, split in parts:
        for class_folder in sorted(_visible_folders(part)):
            images = _images_below(class_folder)
            found[class_folder.name] = found.get(class_folder.name, 0) + len(images)
            paths += images
            labels += [class_folder.name] * len(images)
            splits += [split] * len(images)
    empty = sort_classes(name for name, count in found.items() if count == 0)
    if empty and not may_be_empty:
        names = name_some([repr(name) for name in empty])
        raise UserError(f"no image in the class folder {names} of {folder}; fill it or remove it")
    return Listing(
        source=str(folder),
        paths=paths,
        targets={FOLDER: labels},
        place=lambda index: str(paths[index]),
        known={FOLDER: sort_classes(found)},
        ordered=frozenset({FOLDER} if are_numbers(found) else ()),
        split=splits if parts[0][1] else None,
    )


def find_images(path: Path) -> list[Path]:
    """Lists the image at a path, or all images below a folder, sorted.

    Raises:
        UserError: If there is nothing there, or no image in it.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"--input {path}: there is no such image or folder")
    images = _images_below(path)
    if not images:
        raise UserError(f"--input {path} holds no images ({' '.join(sorted(SUFFIXES))})")
    return images


def _split_folders(folder: Path) -> list[tuple[Path, str]]:
    """The folders that hold class folders, each with the split that it states; an empty name states none."""
    if not folder.exists():
        raise UserError(f"data.source {folder}: there is no such folder")
    if not folder.is_dir():
        raise UserError(f"data.source {folder} is neither a folder nor a table that ends in .csv or .parquet")
    inside = sorted(_visible_folders(folder))
    if not inside:
        if any(_is_image(path.name) for path in folder.iterdir()):
            raise UserError(f"data.source {folder} holds images but no class folders; {LAYOUT}")
        raise UserError(f"data.source {folder} is empty; {LAYOUT}")
    names = {path.name: SPLIT_FOLDERS.get(path.name.lower()) for path in inside}
    train = [path for path in inside if names[path.name] == "train"]
    # "train" may also be a class, of railway images; then its images lie directly in it.
    if train and not any(_is_image(path.name) for path in train[0].iterdir()):
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


def _visible_folders(folder: Path) -> list[Path]:
    """Links count as well, but for those that lead to where they lie in; folders of runs, such as ours, do not."""
    inside = folder.resolve()
    return [
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and not inside.is_relative_to(path.resolve())
        if not (holds_runs(path) and not _images_below(path))
    ]


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _images_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not is_run(Path(parent, name))]
        found += [Path(parent, name) for name in names if _is_image(name)]
    return sorted(found)
