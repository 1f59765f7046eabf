"""Tells whether a source is an export of an annotation tool, and of which."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tl_lightning.data.archives.files import folders_of, is_file, is_folder, open_file
from tl_lightning.data.samples import split_of
from tl_lightning.data.sources.annotations import cvat, label_studio, roboflow
from tl_lightning.data.sources.columns import Columns, Table
from tl_lightning.data.sources.table import read_csv
from tl_lightning.data.sources.walk import listed
from tl_lightning.errors import UserError

DETECTION = {
    "_annotations.coco.json": "COCO",
    "_annotations.createml.json": "CreateML",
    "_annotations.csv": "TensorFlow CSV",
    "_annotations.txt": "YOLO",
    "_darknet.labels": "YOLO Darknet",
    "instances_default.json": "COCO",
}


def read_export(path: Path, source: str, columns: Columns) -> tuple[Table, Columns] | None:
    """Reads an export of a classification.

    Args:
        path: The file of an export, or the folder or archive that holds it beside its images.
        source: What messages call it.
        columns: Which column holds what; where nobody chose the target, it is the only one that was asked for.

    Returns:
        The table and the columns to read; `None` for what is no export.

    Raises:
        UserError: If it cannot be read, or is one of boxes, which are not learned here.
    """
    try:
        table = _of_folder(path, source, columns) if is_folder(path) else _of_file(path, source, columns)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__} {error}"
        raise UserError(
            f"data.source {source} looks like an export of annotations, but is not as the tool writes it ({what}): "
            "export it again"
        ) from error
    if table is None:
        return None
    if columns.label == "label" and "label" not in table.columns and len(table.classes) == 1:
        columns = replace(columns, label=next(iter(table.classes)))
    return table, columns


def _of_file(path: Path, source: str, columns: Columns) -> Table | None:
    kind = path.suffix.lower()
    if not is_file(path):
        return None
    if kind == ".xml":
        return cvat.read_xml(path, source)
    if kind == ".json":
        table = _of_json(path, source, columns)
        if table is None:
            raise UserError(
                f"data.source {source} is no JSON of Label Studio or Datumaro; give a table, or a folder of classes"
            )
        return table
    if kind == ".csv":
        with open_file(path) as file:
            names = {name.strip(' "\r\n\ufeff') for name in file.readline().decode(errors="replace").split(",")}
        if label_studio.is_rows(names):
            table = read_csv(path)
            rows = [dict(zip(table.columns, cells, strict=True)) for cells in zip(*table.columns.values(), strict=True)]
            return label_studio.read_rows(rows, path.parent, source, columns.image)
    return None


def _of_folder(folder: Path, source: str, columns: Columns) -> Table | None:
    inner = set(folders_of(folder))
    folders = {path.name.lower(): path for path in sorted(inner)}
    files = {path.name.lower(): path for path in listed(folder) if path not in inner}
    splits = [path for name, path in folders.items() if split_of(name)]
    tables = [path for place in (folder, *splits) if is_file(path := place / roboflow.CLASSES)]
    if tables:
        return roboflow.read_classes(tables, source)
    for place in (folder, *splits, *(path for name, path in folders.items() if name == "annotations")):
        for name, kind in DETECTION.items():
            if is_file(place / name):
                raise _boxes(f"{source} ({name})", kind)
        if place in splits and (odd := next((path for path in listed(place) if path.suffix.lower() == ".xml"), None)):
            raise _boxes(f"{source} ({odd.name})", "Pascal VOC")
    if "data.yaml" in files and any(is_folder(place / "labels") for place in (folder, *splits)):
        raise _boxes(f"{source} (data.yaml)", "YOLO")
    if "annotations.xml" in files:
        return cvat.read_xml(files["annotations.xml"], source)
    if "synsets.txt" in files:
        lists = [path for name, path in files.items() if name.endswith(".txt") and name != "synsets.txt"]
        if lists:
            return cvat.read_imagenet(folder, lists, source)
    if "annotations" in folders:
        contents = {path.stem: _json(path, source) for path in listed(folders["annotations"]) if path.suffix == ".json"}
        if contents and all(map(_is_datumaro, contents.values())):
            return cvat.read_datumaro(contents, folder, source)
    jsons = [path for name, path in files.items() if name.endswith(".json")]
    return _of_json(jsons[0], source, columns) if len(jsons) == 1 else None


def _of_json(path: Path, source: str, columns: Columns) -> Table | None:
    content = _json(path, source)
    if label_studio.is_tasks(content):
        return label_studio.read_tasks(content, path.parent, source, columns.image)
    if label_studio.is_rows(content):
        return label_studio.read_rows(content, path.parent, source, columns.image)
    if _is_datumaro(content):
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        return cvat.read_datumaro({path.stem: content}, root, source)
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        raise _boxes(source, "COCO")
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if {"image", "annotations"} <= content[0].keys():
            raise _boxes(source, "CreateML")
    return None


def _is_datumaro(content: Any) -> bool:  # noqa: ANN401 - of JSON
    return isinstance(content, dict) and {"items", "categories"} <= content.keys()


def _json(path: Path, source: str) -> Any:  # noqa: ANN401 - of JSON
    try:
        with open_file(path) as file:
            return json.loads(file.read())
    except ValueError as error:
        raise UserError(f"data.source {source}: {path.name} is no JSON: {error}") from error


def _boxes(source: str, kind: str) -> UserError:
    return UserError(
        f"data.source {source} is an export of boxes ({kind}), which are not learned here: export it for "
        "classification, as folders of classes or, with several labels, as _classes.csv"
    )
