"""Classification exports of Label Studio, CVAT and Roboflow, as folders and as the zip that was downloaded."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from packed import png, write_zip

from tl_lightning.choosing.init import guess
from tl_lightning.data.samples import Samples
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import list_source, read_source
from tl_lightning.errors import UserError


def put(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def packed(folder: Path) -> Path:
    """The same as a zip."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return write_zip(folder.with_suffix(".zip"), files)


def refuse(source: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        read_source(str(source), **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def labels(samples: Samples) -> list[Any]:
    if samples.labels.ndim == 1:
        return [samples.classes[label] for label in samples.labels.astype(int)]
    return [[name for name, has in zip(samples.classes, row, strict=True) if has] for row in samples.labels]


def images(*names: str) -> dict[str, str | bytes]:
    return {name: png(number) for number, name in enumerate(names)}


# Label Studio.


def task(image: str, *choices: list[str] | None, truth: int | None = None, **data: str) -> dict[str, Any]:
    """A task with an annotation for each of the choices; `None` is one that was skipped."""
    return {
        "data": {"image": image, **data},
        "annotations": [
            {
                "was_cancelled": chosen is None,
                "ground_truth": number == truth,
                "result": [{"type": "choices", "from_name": "choice", "value": {"choices": chosen}}] if chosen else [],
            }
            for number, chosen in enumerate(choices)
        ],
    }


NAMES = ["/data/upload/1/0a1b2c3d-a.png", "/data/local-files/?d=pets/b.png", "c.png", "d%20e.png"]


def studio(folder: Path, tasks: list[dict[str, Any]]) -> Path:
    files = images("upload/1/0a1b2c3d-a.png", "images/b.png", "c.png", "d e.png")
    return put(folder, {"project.json": json.dumps(tasks), **files})


def test_label_studio_json(tmp_path: Path) -> None:
    tasks = [task(name, [("Cat", "Dog")[number % 2]], group=str(number)) for number, name in enumerate(NAMES)]
    folder = studio(tmp_path / "export", tasks)
    for source in (folder / "project.json", folder, packed(folder)):
        samples = read_source(str(source))
        assert labels(samples) == ["Cat", "Dog"] * 2
        assert [path.name for path in samples.paths] == ["0a1b2c3d-a.png", "b.png", "c.png", "d e.png"]
        assert samples.groups is not None and samples.groups.tolist() == ["0", "1", "2", "3"]


def test_several_annotations_of_one_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [
        task(NAMES[0], ["Cat"], ["Dog"], ["Cat"], None),  # the majority of those that were not skipped
        task(NAMES[1], ["Cat"], ["Cat"], ["Dog"], truth=2),  # what was marked as the truth
        task(NAMES[2], ["Cat"], ["Dog"]),
        task(NAMES[3], None),
    ]
    assert list_source(str(studio(tmp_path, tasks))).targets == {"choice": ["Cat", "Dog"]}
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 4 tasks were skipped or not annotated: left out" in said
    assert "the annotators of 1 of 4 tasks do not agree: left out" in said


def test_label_studio_choices_of_several_labels(tmp_path: Path) -> None:
    tasks = [task(NAMES[0], ["Cat", "Wet"]), task(NAMES[1], ["Cat"]), task(NAMES[2], ["Wet"]), task(NAMES[3], ["Cat"])]
    folder = studio(tmp_path, tasks)
    assert labels(read_source(str(folder), problem_type="multilabel")) == [["Cat", "Wet"], ["Cat"], ["Wet"], ["Cat"]]
    assert "label 'Cat|Wet' (the image /data/upload/1/0a1b2c3d-a.png of" in refuse(folder)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_label_studio_json_min_and_csv(kind: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": name, "id": number // 2, "choice": choice, "annotator": 1, "annotation_id": number, "lead_time": 1.5}
        for number, (name, choice) in enumerate(
            [(NAMES[0], "Cat"), (NAMES[0], "Cat"), (NAMES[1], "Dog"), (NAMES[2], "Cat"), (NAMES[3], "Dog")]
        )
    ]
    rows[2]["id"] = 7
    rows.append({**rows[2], "choice": "", "annotation_id": 9})  # skipped
    folder = put(tmp_path / "x", images("0a1b2c3d-a.png", "b.png", "c.png", "d e.png"))
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader(), writer.writerows(rows)
        put(folder, {"x.csv": text.getvalue()})
    else:
        put(folder, {"x.json": json.dumps(rows)})
    assert labels(read_source(str(folder / f"x.{kind}"))) == ["Cat", "Dog", "Cat", "Dog"]
    choices = {"choices": ["Cat", "Dog"]}
    more = [{**row, "choice": json.dumps(choices) if kind == "csv" else choices} for row in rows[:2]] + rows[2:]
    if kind == "json":
        put(folder, {"x.json": json.dumps(more)})
        assert labels(read_source(str(folder / "x.json"), problem_type="multilabel"))[0] == ["Cat", "Dog"]


def test_label_studio_images_that_are_not_there(tmp_path: Path) -> None:
    folder = studio(tmp_path, [task("s3://bucket/a.png", ["Cat"]), task("c.png", ["Dog"])])
    said = refuse(folder)
    assert "1 of its 2 images are not beside it: s3://bucket/a.png" in said and "download them into" in said
    studio(tmp_path, [task("x/c.png", ["Cat"]), task("y/c.png", ["Dog"])])
    assert "both x/c.png and y/c.png lead to" in refuse(folder)


def test_label_studio_regions_are_refused(tmp_path: Path) -> None:
    boxes = task(NAMES[0], ["Cat"])
    boxes["annotations"][0]["result"] = [{"type": "rectanglelabels", "from_name": "box", "value": {}}]
    assert "holds rectanglelabels, which are regions" in refuse(studio(tmp_path, [boxes]))


# CVAT.

XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>pets</name><labels>
<label><name>dog</name><color>#fff</color><attributes><attribute><name>age</name></attribute></attributes></label>
<label><name>cat</name></label><label><name>bird</name></label></labels></task></meta>
<image id="0" name="a.png" subset="Train" width="24" height="20"><tag label="cat" source="manual"></tag></image>
<image id="1" name="in/b.png" subset="Train" width="24" height="20"><tag label="dog"/></image>
<image id="2" name="c.png" subset="Validation" width="24" height="20"><tag label="cat"/></image>
<image id="3" name="d.png" subset="Validation" width="24" height="20"><tag label="dog"/></image>
</annotations>"""


def test_cvat_for_images(tmp_path: Path) -> None:
    folder = put(tmp_path / "task", {"annotations.xml": XML, **images(
        "images/Train/a.png", "images/Train/in/b.png", "images/c.png", "images/d.png"
    )})  # fmt: skip
    for source in (folder, folder / "annotations.xml", packed(folder)):
        samples = read_source(str(source))
        assert labels(samples) == ["cat", "dog", "cat", "dog"] and samples.classes == ["dog", "cat"]
        assert samples.split is not None and samples.split.tolist() == ["train", "train", "val", "val"]


def test_cvat_images_with_no_tag_or_several(tmp_path: Path) -> None:
    text = XML.replace('<tag label="cat" source="manual"></tag>', "").replace(
        '<tag label="dog"/></image>\n<image id="2"', '<tag label="dog"/><tag label="bird"/></image>\n<image id="2"'
    )
    folder = put(tmp_path, {"annotations.xml": text, **images("a.png", "in/b.png", "c.png", "d.png")})
    assert "the image a.png of" in refuse(folder)
    assert labels(read_source(str(folder), problem_type="multilabel")) == [[], ["dog", "bird"], ["cat"], ["dog"]]


def test_cvat_xml_that_is_not_to_be_trusted(tmp_path: Path) -> None:
    lol = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><annotations>&y;</annotations>'
    assert "declares entities" in refuse(put(tmp_path, {"annotations.xml": lol}))
    assert "is damaged XML" in refuse(put(tmp_path, {"annotations.xml": XML[:500]}))
    boxes = '<annotations><image id="0" name="a.png"><box label="cat" xtl="1"/></image></annotations>'
    assert "holds box, no tags" in refuse(put(tmp_path, {"annotations.xml": boxes}))


def test_datumaro_json(tmp_path: Path) -> None:
    def subset(*answers: tuple[str, list[int]]) -> str:
        return json.dumps({
            "info": {},
            "categories": {"label": {"labels": [{"name": "dog"}, {"name": "cat"}]}},
            "items": [
                {"id": name, "image": {"path": f"{name}.png"},
                 "annotations": [{"type": "label", "label_id": number} for number in numbers]}
                for name, numbers in answers
            ],
        })  # fmt: skip

    folder = put(tmp_path / "task", {
        "annotations/train.json": subset(("a", [0]), ("b", [1])),
        "annotations/test.json": subset(("c", [1]), ("d", [0])),
        **images("images/train/a.png", "images/train/b.png", "images/test/c.png", "images/test/d.png"),
    })  # fmt: skip
    for source in (folder, packed(folder)):
        samples = read_source(str(source))
        assert labels(samples) == ["cat", "dog", "dog", "cat"] and samples.split is not None
        assert samples.split.tolist() == ["test", "test", "train", "train"]


def test_imagenet_text_files(tmp_path: Path) -> None:
    folder = put(tmp_path / "task", {
        "synsets.txt": "dog\ncat\n", "train.txt": "a 0\nb.png 1\n7 1\n", "val.txt": "c d 0\n",
        **images("images/a.png", "images/b.png", "images/7.png", "images/c d.png"),
    })  # fmt: skip
    for source in (folder, packed(folder)):
        samples = read_source(str(source))
        assert labels(samples) == ["dog", "cat", "cat", "dog"] and samples.split is not None
    put(folder, {"train.txt": "a 2\n"})
    assert "line 1 of train.txt is 'a 2'; a name and numbers of the 2 classes" in refuse(folder)


# Roboflow.


def test_roboflow_folders(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"README.dataset.txt": "x", "README.roboflow.txt": "x"}
    for split in ("train", "valid", "test"):
        files |= images(*(f"{split}/{name}/{n}_png.rf.0a1b.png" for name in ("cat", "dog") for n in range(2)))
    folder = put(tmp_path / "pets.v1.folder", files)
    for source in (folder, packed(folder)):
        samples = read_source(str(source))
        assert samples.classes == ["cat", "dog"] and len(samples) == 12 and samples.split is not None
        assert set(samples.split.tolist()) == {"train", "val", "test"}


def test_roboflow_labels(tmp_path: Path) -> None:
    folder = put(tmp_path / "pets", {
        "README.roboflow.txt": "x",
        "train/_classes.csv": "filename, cat, wet\na.png, 1, 1\nb.png, 0, 1\nc.png, 0, 0\n",
        "valid/_classes.csv": "filename, cat, wet\nd.png, 1, 0\n",
        **images("train/a.png", "train/b.png", "train/c.png", "valid/d.png"),
    })  # fmt: skip
    for source in (folder, packed(folder)):
        assert guess(list_source(str(source))) == "multilabel"
        samples = read_source(str(source), problem_type="multilabel")
        assert labels(samples) == [["cat", "wet"], ["wet"], [], ["cat"]] and samples.split is not None
        assert samples.split.tolist() == ["train"] * 3 + ["val"]
    put(folder, {"valid/_classes.csv": "filename, cat, wet\nd.png, 1, 2\n"})
    assert "column 'wet' is '2'; it must be 0 or 1" in refuse(folder, problem_type="multilabel")
    assert "data.label_column" in refuse(folder.with_suffix(".zip"), columns=Columns(label="lable"))


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"train/_annotations.coco.json": "{}"}, "COCO"),
        ({"train/_annotations.createml.json": "[]"}, "CreateML"),
        ({"train/_annotations.csv": ""}, "TensorFlow CSV"),
        ({"data.yaml": "", "train/labels/a.txt": "", "train/images/a.png": png()}, "YOLO"),
        ({"train/a.xml": "<annotation/>", "train/a.png": png()}, "Pascal VOC"),
        ({"annotations/instances_default.json": "{}", "images/a.png": png()}, "COCO"),
        ({"x.json": json.dumps({"images": [], "annotations": [], "categories": []})}, "COCO"),
        ({"x.json": json.dumps([{"image": "a.png", "annotations": []}])}, "CreateML"),
    ],
)
def test_exports_of_boxes_are_named(files: dict[str, str | bytes], kind: str, tmp_path: Path) -> None:
    folder = put(tmp_path / "pets", files)
    for source in (folder, packed(folder)):
        said = refuse(source)
        assert f"({kind}), which are not learned here: export it for classification" in said and str(source) in said


@pytest.mark.parametrize(
    "content",
    [
        [{"data": {"image": "a.png"}, "annotations": [{"result": [{"type": "choices"}]}]}],
        [{"data": {"image": "a.png"}, "annotations": [None]}],
        [{"data": {"image": "a.png"}, "annotations": []}, 3],
        {"categories": {"label": {}}, "items": [{"id": "a", "annotations": [{"type": "label", "label_id": 3}]}]},
        {"categories": [], "items": [{}]},
    ],
)  # fmt: skip
def test_an_export_that_its_tool_would_not_write_is_one_line(content: Any, tmp_path: Path) -> None:
    folder = put(tmp_path, {"x.json": json.dumps(content), "a.png": png()})
    assert "is not as the tool writes it" in refuse(folder / "x.json")


def test_other_files_beside_class_folders_make_no_export(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"data.yaml": "", "notes.json": "[1]", "classes.txt": "cat"}
    assert len(read_source(str(put(tmp_path, files | images("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"))))) == 4
    assert "is no JSON of Label Studio or Datumaro" in refuse(tmp_path / "notes.json")
