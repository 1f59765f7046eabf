"""What CVAT exports of tags: its own XML, Datumaro's JSON, and the text files named after ImageNet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

from tl_lightning.data.archives.files import open_file
from tl_lightning.data.samples import split_of
from tl_lightning.data.sources.annotations.locating import locate
from tl_lightning.data.sources.columns import Table
from tl_lightning.errors import UserError, shown


class _Tags:
    """Collects the tags of the images of a file of CVAT's, as the parser goes through it."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.images: list[str] = []
        self.subsets: list[str] = []
        self.tags: list[list[str]] = []
        self.shapes: set[str] = set()
        self._open: list[str] = []
        self._text = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._open.append(name)
        self._text = ""
        if name == "image":
            self.images.append(attributes.get("name", ""))
            self.subsets.append(attributes.get("subset", ""))
            self.tags.append([])
        elif name == "tag" and self.tags:
            self.tags[-1].append(attributes.get("label", ""))
        elif name in ("box", "polygon", "polyline", "points", "mask", "track", "ellipse", "cuboid", "skeleton"):
            self.shapes.add(name)

    def text(self, text: str) -> None:
        self._text += text

    def end(self, name: str) -> None:
        self._open.pop()
        if name == "name" and self._open[-1:] == ["label"] and self._text.strip():
            self.labels.append(self._text.strip())


def read_xml(path: Path, source: str) -> Table:
    """Makes a table of an export "CVAT for images".

    Args:
        path: The file, also within an archive; what it names lies beside it, or in ``images/``.
        source: What messages call it.

    Raises:
        UserError: If it is no such file, holds no tags, or an image is missing. Declarations, by which a small file
            may become a large one or read others, are refused.
    """
    found, parser = _Tags(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise UserError(f"data.source {source}: {path.name} declares entities or a type, which no export does: refused")

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = found.start, found.end
    parser.CharacterDataHandler = found.text
    try:
        with open_file(path) as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise UserError(f"data.source {source}: {path.name} is damaged XML: {error}") from error
    if not any(found.tags):
        what = f"{', '.join(sorted(found.shapes))}, no tags" if found.shapes else "no images with tags"
        raise UserError(f"data.source {source}: {path.name} holds {what}; only tags for a whole image are read")
    paths = locate(found.images, path.parent, source, parts=found.subsets)
    return _table(source, paths, found.tags, found.labels, found.subsets)


def read_datumaro(contents: Mapping[str, Mapping[str, Any]], root: Path, source: str) -> Table:
    """Makes a table of Datumaro's JSON.

    Args:
        contents: What each file holds, by its sub-set.
        root: The folder with ``images/``.
        source: What messages call it.

    Raises:
        UserError: If an image is missing, or none has a label of its own.
    """
    stated, subsets, cells = [], [], []
    names: list[str] = []
    for subset, content in contents.items():
        labels = [label["name"] for label in content["categories"].get("label", {}).get("labels", [])]
        names += [name for name in labels if name not in names]
        for item in content["items"]:
            media = item.get("image") or item.get("media") or {}
            stated.append(media.get("path") or item["id"])
            subsets.append(subset)
            of_image = [each for each in item.get("annotations", []) if each.get("type") == "label"]
            cells.append([labels[each["label_id"]] for each in of_image])
    if not any(cells):
        raise UserError(f"data.source {source}: no image has a label of its own, and regions are not learned here")
    return _table(source, locate(stated, root, source, parts=subsets), cells, names, subsets)


def read_imagenet(root: Path, lists: Sequence[Path], source: str) -> Table:
    """Makes a table of ``synsets.txt`` and lists of names with the numbers of their classes.

    Args:
        root: The folder.
        lists: The other files, each of which is called as its sub-set is.
        source: What messages call it.

    Raises:
        UserError: If a line is none of these, or an image is missing.
    """
    names = _lines(root / "synsets.txt", source)
    stated, subsets, cells = [], [], []
    for path in lists:
        for number, line in enumerate(_lines(path, source), 1):
            words = line.split()
            count = next((k for k, word in enumerate(reversed(words)) if not word.isdecimal()), len(words))
            classes = [int(word) for word in words[len(words) - count :]]
            if count == len(words) and count:  # a name that is a number
                classes, count = classes[1:], count - 1
            if not classes or max(classes) >= len(names):
                raise UserError(f"data.source {source}: line {number} of {path.name} is {shown(line)!r}; a name and "
                                f"numbers of the {len(names)} classes are expected")  # fmt: skip
            stated.append(line.rsplit(maxsplit=count)[0].strip('"'))
            subsets.append(path.stem)
            cells.append([names[each] for each in classes])
    return _table(source, locate(stated, root, source, parts=subsets), cells, names, subsets)


def _lines(path: Path, source: str) -> list[str]:
    with open_file(path) as file:
        try:
            return [line.strip() for line in file.read().decode("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"data.source {source}: {path.name} is no UTF-8 text: {error}") from error


def _table(source: str, paths: list[Path], cells: list[list[str]], names: list[str], subsets: list[str]) -> Table:
    columns: dict[str, Sequence[Any]] = {"label": cells}
    splits = [split_of(subset) or "" for subset in subsets]
    if all(splits) and len(set(splits)) > 1:
        columns["split"] = splits
    used = {name for cell in cells for name in cell}
    return Table(
        name=source,
        columns=columns,
        place=lambda index: f"the image {paths[index].name} of {source}",
        paths=paths,
        classes={"label": [name for name in names if name in used] + sorted(used - set(names))},
    )
