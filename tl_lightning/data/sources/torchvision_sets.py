"""The data sets of torchvision, by name."""

import inspect
import operator
import os
import socket
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tl_lightning.core.cache_folder import cache_dir
from tl_lightning.core.files import user_path
from tl_lightning.data.sources.columns import Table
from tl_lightning.data.sources.exports import Content, open_export
from tl_lightning.errors import UserError, nearest

PREFIX = "torchvision/"
PATIENCE = 20  # seconds that a server may be silent
SPLIT_NAMES = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}


def read_torchvision(name: str) -> Table:
    """Lists a classification set of ``torchvision.datasets``; the first time it is downloaded and exported.

    It lies in the folder ``TL_DATA_DIR``, as torchvision lays it out there, else in ``torchvision`` under the cache
    folder. Where torchvision says which file an image comes from, that file is used as it is; else the pixels are
    exported as PNG. An export is kept until it is removed with ``tl cache clear``, whatever happens to the folder.

    Args:
        name: The name of torchvision's class, such as ``CIFAR10``.

    Returns:
        Columns ``label`` and, where torchvision splits the set, ``split``. A set's ``trainval`` counts as train.

    Raises:
        UserError: If there is no such set, it needs more than a folder, it is no classification set, or it cannot be
            downloaded.
    """
    root = user_path(os.environ.get("TL_DATA_DIR") or cache_dir() / "torchvision").absolute()
    source = f"{PREFIX}{name}"
    return open_export(source, (source, str(root)), lambda: _content(name, root))


def _content(name: str, root: Path) -> Content:
    parts = _open_parts(name, root)
    columns: dict[str, list[Any]] = {"label": []}
    if "" not in parts:
        columns["split"] = [split for split, part in parts.items() for _ in range(len(part))]
    classes: dict[str, list[str]] = {}
    return Content(
        images=_images(name, parts, columns["label"], classes),
        total=sum(map(len, parts.values())),
        columns=columns,
        classes=classes,
    )


def _open_parts(name: str, root: Path) -> dict[str, Any]:
    """The set's splits by their names here; the name is empty where torchvision does not split it."""
    import torchvision

    known = {each: getattr(torchvision.datasets, each) for each in torchvision.datasets.__all__}
    if name not in known:
        alike = [each for each in known if each.lower() == name.lower()]
        close = f"; did you mean {alike[0]}?" if alike else nearest(name, known)
        raise UserError(f"data.source {PREFIX}{name}: torchvision has no data set {name!r}{close}")
    make = known[name]
    parameters = _parameters(make)
    needed = [each for each, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    if missing := [each for each in needed if each != "root"]:
        raise UserError(f"data.source {PREFIX}{name} is not supported: the set has to be told {', '.join(missing)}")
    settings: dict[str, Any] = {"root": str(root), "download": True, "loader": Path}  # a loader that loads nothing
    settings = {setting: value for setting, value in settings.items() if setting in parameters}
    with _one_line(name, root):
        if "train" in parameters:
            return {"train": make(**settings, train=True), "test": make(**settings, train=False)}
        if "split" not in parameters:
            return {"": make(**settings)}
        found = {split: _first_valid(make, settings, names) for split, names in SPLIT_NAMES.items()}
        return {split: part for split, part in found.items() if part is not None}


def _parameters(make: type) -> dict[str, inspect.Parameter]:
    """The arguments of the constructor, and of its parents as far as it passes others on."""
    parameters: dict[str, inspect.Parameter] = {}
    for parent in make.__mro__:
        if "__init__" not in vars(parent):
            continue
        own = dict(list(inspect.signature(parent.__init__).parameters.items())[1:])  # type: ignore[misc]
        parameters = {**own, **parameters}
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in own.values()):
            break
    varying = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: each for name, each in parameters.items() if each.kind not in varying}


def _first_valid(make: type, settings: dict[str, Any], names: tuple[str, ...]) -> Any:  # noqa: ANN401 - a Dataset
    for name in names:
        try:
            return make(**settings, split=name)
        except ValueError as error:
            if "Unknown value" not in str(error):  # torchvision's words for a split that a set does not have
                raise
    return None


def _images(
    name: str, parts: dict[str, Any], labels: list[str], classes: dict[str, list[str]]
) -> Iterator[bytes | Path]:
    """The images one by one, while their labels are put down."""
    numbers: list[list[int]] = []
    for part in parts.values():
        numbers.append([])
        for index in range(len(part)):
            with _one_line(name):
                image, answer = part[index]
            number = _class_number(answer)
            if number is None or not isinstance(image, Image.Image | Path):
                raise UserError(f"data.source {PREFIX}{name} is no set of images with one class each")
            numbers[-1].append(number)
            yield image if isinstance(image, Path) else _as_png(image)
    count = max((number for part in numbers for number in part), default=-1) + 1
    names = {split: _class_names(part, count) for split, part in parts.items()}
    labels += [own[number] for own, part in zip(names.values(), numbers, strict=True) for number in part]
    classes["label"] = list(dict.fromkeys(each for own in names.values() for each in own))


def _class_number(answer: Any) -> int | None:  # noqa: ANN401 - whatever a set may answer
    try:
        return None if isinstance(answer, bool) else operator.index(answer)
    except (TypeError, ValueError):
        return None


def _class_names(part: Any, count: int) -> list[str]:  # noqa: ANN401 - a Dataset
    """The names by number: the set's own, else the numbers; where two are alike they are told apart by number."""
    own = getattr(part, "classes", None) or getattr(part, "class_to_idx", None) or []
    if isinstance(own, dict):
        own = sorted(own, key=own.__getitem__)
    names = [each if isinstance(each, str) else ", ".join(each) for each in own]
    if len(names) < count:
        names = [str(number) for number in range(count)]
    return [f"{each} ({number})" if names.count(each) > 1 else each for number, each in enumerate(names)]


def _as_png(image: Image.Image) -> bytes:
    if image.mode not in ("1", "L", "LA", "I;16", "I", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    file = BytesIO()
    image.save(file, "png")
    return file.getvalue()


@contextmanager
def _one_line(name: str, root: Path | None = None) -> Iterator[None]:
    """Says whatever torchvision and the network raise as a user's error; nobody waits for a silent server for long."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    except Exception as error:
        hint = f"; without a network, put its files into {root} as torchvision lays them out there" if root else ""
        reason = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise UserError(f"data.source {PREFIX}{name} cannot be read: {reason}{hint}") from error
    finally:
        socket.setdefaulttimeout(before)
