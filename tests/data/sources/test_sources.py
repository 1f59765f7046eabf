import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tl_lightning.data.sources import elpv
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import find_files, read_source
from tl_lightning.data.splits import split_samples
from tl_lightning.errors import UserError

DecodedImage = Callable[..., Path]


def table(folder: Path, *rows: str, header: str = "image,label") -> str:
    path = folder / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def refuse(source: str, **settings: object) -> str:
    with pytest.raises(UserError) as error:
        split_samples(read_source(source, **settings), "auto", seed=0)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folder_is_listed_sorted_at_any_depth_without_hidden_files(tmp_path: Path, image: DecodedImage) -> None:
    for name in ("b/2.png", "b/deep/1.PNG", "a/2.png", "a/1.png", ".hidden/1.png", "a/.1.png"):
        image(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    samples = read_source(str(tmp_path))
    assert [str(path.relative_to(tmp_path)) for path in samples.paths] == [
        "a/1.png",
        "a/2.png",
        "b/2.png",
        "b/deep/1.PNG",
    ]
    assert samples.classes == ["a", "b"]
    assert samples.labels.tolist() == samples.strata.tolist() == [0, 0, 1, 1]
    assert samples.split is None and samples.domains is None


def test_folder_with_splits_states_them(tmp_path: Path, image: DecodedImage) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "valid/a/3.png", "test/b/4.png"):
        image(tmp_path / name)
    samples = read_source(str(tmp_path))
    found = {path.name: split for path, split in zip(samples.paths, samples.split, strict=True)}
    assert found == {"1.png": "train", "2.png": "train", "3.png": "val", "4.png": "test"}


def test_a_class_may_be_called_train(tmp_path: Path, image: DecodedImage) -> None:
    for name in ("train/1.png", "train/2.png", "plane/1.png", "plane/2.png"):
        image(tmp_path / name)
    assert read_source(str(tmp_path)).classes == ["plane", "train"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [("Training Testing", "train test"), ("train VALID test", "train val test"), ("TRAIN dev", "train val")],
)
def test_names_alone_say_that_folders_are_splits(tmp_path: Path, image: DecodedImage, names: str, splits: str) -> None:
    first = names.split()[0]
    for name in names.split():
        for label in ("a", "b"):
            image(tmp_path / name / label / "1.png")
    image(tmp_path / first / "stray.png")
    samples = read_source(str(tmp_path))
    assert samples.classes == ["a", "b"] and samples.split is not None
    assert {*samples.split} == {*splits.split()}
    assert samples.notes == [f"1 image lies beside the class folders of {tmp_path}, left out: {first}/stray.png"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("training_set/a/1 training_set/b/1 test_set/a/1 test_set/b/1", "read like splits: name them train/, val/ and"),
        ("train/1 test/1 plane/1", "the folders 'test', 'train' of {} read like splits"),
        ("train/a/1 train/b/1 train/2 extra/1", "folder 'extra' stands beside train/"),
        ("x/a/1 x/b/1 y/a/1 y/b/1", "'x', 'y' of {} all hold the same folders, 'a', 'b': if those are the classes"),
        (
            "archive/a/1 archive/b/1",
            "holds one folder only, 'archive', and that holds 2: name {}/archive as data.source",
        ),
    ],
)
def test_folders_that_look_like_something_else_are_refused(
    tmp_path: Path, image: DecodedImage, files: str, message: str
) -> None:
    for file in files.split():
        image(tmp_path / f"{file}.png")
    assert message.format(tmp_path) in refuse(str(tmp_path))


def test_who_names_the_classes_decides_what_folders_are(tmp_path: Path, image: DecodedImage) -> None:
    for file in ("x/a/1", "x/b/1", "y/a/1", "y/b/1", "x/2"):
        image(tmp_path / f"{file}.png")
    assert read_source(str(tmp_path), classes=["y", "x"]).labels.tolist() == [1, 1, 1, 0, 0]


def test_split_words_are_those_of_folders(folder: Path) -> None:
    rows = ["cat/00.png,a,Train", "dog/08.png,b,training", "cat/01.png,a,Valid", "dog/09.png,b,TEST"]
    samples = read_source(table(folder, *rows, header="image,label,split"))
    assert samples.split is not None and samples.split.tolist() == ["train", "train", "val", "test"]


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("Cat", "cat"), "the classes 'Cat' and 'cat' differ only in how they are written"),
        (("caf\u00e9", "cafe\u0301"), r"the classes 'cafe\u0301' and 'caf\xe9' differ only"),
        (("cat", "cat "), "the classes 'cat' and 'cat ' differ only"),
        (("cat", "ca\u200bt"), r"the classes 'cat' and 'ca\u200bt' differ only"),
        (("cat", "nan"), "'nan' is learned as a class: if it stands for a missing label, leave the cell blank"),
        (("A", "A-"), None),
        (("1", "-1"), None),
    ],
)
def test_doubtful_names_of_classes_are_noted(
    tmp_path: Path, image: DecodedImage, names: tuple[str, str], note: str | None
) -> None:
    for name in names:
        image(tmp_path / name / "1.png"), image(tmp_path / name / "2.png")
    notes = read_source(str(tmp_path)).notes
    assert [line for line in notes if note and note in line] if note else not notes


def test_the_same_text_in_another_form_is_the_class_that_is_asked_for(tmp_path: Path, image: DecodedImage) -> None:
    for name in ("cafe\u0301", "tea"):
        image(tmp_path / name / "1.png"), image(tmp_path / name / "2.png")
    assert read_source(str(tmp_path), classes=["caf\u00e9", "tea"]).labels.tolist() == [0, 0, 1, 1]
    assert refuse(str(tmp_path), classes=["caf\u00e9", "Tea"]).endswith(
        "; it differs from 'Tea' only in how it is written"
    )


def test_too_few_groups_are_named(folder: Path) -> None:
    rows = [f"cat/0{k}.png,a,p{k % 2}" for k in range(8)] + [f"dog/{8 + k:02}.png,b,p{k % 2}" for k in range(8)]
    message = refuse(table(folder, *rows, header="image,label,group"))
    assert "the group column has 2 values only ('p0', 'p1'), and none may be in two splits" in message


def test_files_are_found_without_labels(folder: Path, tmp_path: Path) -> None:
    source = table(folder, "cat/01.png,?", "dog/08.png,?", header="image,split")
    assert find_files(source) == [folder / "cat/01.png", folder / "dog/08.png"]
    other = table(folder, "cat/01.png", header="file")
    with pytest.raises(UserError, match="no column 'image' with the paths of the images; its columns are file"):
        find_files(other)
    assert find_files(other, Columns(image="file")) == [folder / "cat/01.png"]
    assert find_files(str(folder / "cat"))[0] == folder / "cat/00.png"


def test_whole_numbers_are_sorted_by_value(tmp_path: Path, image: DecodedImage) -> None:
    for name in ("2", "10", "9"):
        image(tmp_path / name / "1.png"), image(tmp_path / name / "2.png")
    assert read_source(str(tmp_path)).classes == ["2", "9", "10"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty; one sub-folder per class"),
        (["1.png"], "holds images but no class folders"),
        (["a/1.png", "a/2.png"], "has one class only, 'a'"),
        (["a/1.png", "a/2.png", "b/notes.txt"], "no image in the class folder 'b'"),
        (["a/1.png", "a/2.png", "b/1.png"], "class 'b' of {} has one image only"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/2.png", "test/c/1.png"],
            "label 'c' is in the test split of the source's own split, but training has",
        ),
        (["train/a/1.png", "train/b/1.png", "valdi/a/1.png"], "folder 'valdi' stands beside train/"),
        (["val/a/1.png", "test/a/1.png"], "has test, val but no train/ folder"),
    ],
)
def test_unusable_folder_is_named(tmp_path: Path, image: DecodedImage, files: list[str], message: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for file in files:
        if file.endswith(".txt"):
            (root / file).parent.mkdir()
            (root / file).touch()
        else:
            image(root / file)
    assert message.format(root) in refuse(str(root))


def test_missing_folder_or_table_is_named(tmp_path: Path) -> None:
    assert refuse(f"{tmp_path}/none") == f"data.source {tmp_path}/none: there is no such folder"
    assert refuse(f"{tmp_path}/none.csv") == f"data.source {tmp_path}/none.csv: there is no such table"
    (tmp_path / "file.txt").touch()
    assert "is no folder, zip or tar archive, nor a table" in refuse(f"{tmp_path}/file.txt")


def test_given_classes_set_the_order_and_may_be_empty(folder: Path) -> None:
    samples = read_source(str(folder), classes=["dog", "bird", "cat"])
    assert samples.classes == ["dog", "bird", "cat"]
    assert samples.labels.tolist() == [2] * 8 + [0] * 8
    assert "label 'cat' (" + str(folder / "cat" / "00.png") in refuse(str(folder), classes=["dog", "bird"])
    assert "names a class twice" in refuse(str(folder), classes=["dog", "cat", "dog"])


def test_table_is_read_with_its_splits(folder: Path) -> None:
    absolute = folder / "dog" / "08.png"
    rows = ["cat/00.png,10,train", f"{absolute},9,train", "cat/01.png,10,val", '"dog/09.png",9,test']
    samples = read_source(table(folder, *rows, header="\ufeffimage,label,split"))
    assert samples.paths == [folder / "cat/00.png", absolute, folder / "cat/01.png", folder / "dog/09.png"]
    assert samples.classes == ["9", "10"] and samples.labels.tolist() == [1, 0, 1, 0]
    assert samples.split is not None and samples.split.tolist() == ["train", "train", "val", "test"]


def test_table_columns_can_be_chosen(folder: Path) -> None:
    source = table(
        folder, *(f"c,cat/0{i}.png" for i in range(2)), *(f"d,dog/0{i}.png" for i in (8, 9)), header="kind,file"
    )
    assert read_source(source, columns=Columns(image="file", label="kind")).classes == ["c", "d"]
    message = refuse(source, columns=Columns(image="file", label="kin"))
    assert message.endswith("no column 'kin' (data.label_column); its columns are kind, file; did you mean kind?")


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "image,label", "is empty; a header and one row per image are expected"),
        (["cat/00.png,a", "cat/01.png,"], "image,label", "row 3 of {}: the column 'label' is empty"),
        (["cat/00.png,a", "cat/01.png"], "image,label", "row 3 of {} has fewer cells than the header"),
        (
            ["cat/00.png,a,trian"],
            "image,label,split",
            "row 2 of {}: split is 'trian'; it must be train, val or test; did",
        ),
        (
            ["cat/00.png,a,train", "cat/02.png,a,val", "cat/01.png,b,test"],
            "image,label,split",
            "label 'b' is in the test split of the source's own split",
        ),
        (["cat/00.png,a,test"] * 2 + ["dog/08.png,b,val"], "image,label,split", "has nothing in 'train'"),
        (["cat/00.png,a", "cat/01.png,a"], "image,label", "has one class only, 'a'"),
        (["cat/00.png,a", "cat/01.png,a", "cat/02.png,b"], "image,label", "class 'b' of {} has one image only"),
    ],
)
def test_unusable_table_is_named(folder: Path, rows: list[str], header: str, message: str) -> None:
    source = table(folder, *rows, header=header)
    assert message.format(source) in refuse(source)


def test_missing_images_of_a_table_are_counted_and_ten_named(folder: Path) -> None:
    source = table(folder, "cat/00.png,a", *(f"gone{i:02}.png,b" for i in range(12)))
    message = refuse(source)
    assert message.startswith("12 of the 13 images in")
    assert message.endswith("gone09.png and 2 more") and "gone10" not in message


def test_elpv_counts_and_domains() -> None:
    defect, level, kind = (read_source("elpv", target=target) for target in (None, "level", "type"))
    assert len(defect) == 2624 and all(path.is_file() for path in defect.paths)
    assert defect.classes == ["functional", "defective"] and np.bincount(defect.labels).tolist() == [1803, 821]
    assert level.classes == ["0%", "33%", "67%", "100%"] and np.bincount(level.labels).tolist() == [1508, 295, 106, 715]
    assert kind.classes == ["mono", "poly"] and np.bincount(kind.labels).tolist() == [1074, 1550]
    assert defect.domains is not None and (defect.domains == "mono").sum() == 1074
    assert sorted(np.bincount(defect.strata).tolist()) == sorted([588, 117, 56, 313, 920, 178, 50, 402])


def test_targets_are_for_elpv_and_near_ones_are_named(folder: Path) -> None:
    assert refuse("elpv", target="levels").endswith("it has defect, level, type, probability; did you mean level?")
    assert "only for the source elpv" in refuse(str(folder), target="level")


def test_missing_elpv_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert importlib.util.find_spec("elpv_dataset") is not None
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    assert refuse("elpv").endswith("pip install 'tl_lightning[demo]'")


def test_a_stated_split_that_cannot_be_used_may_be_replaced(folder: Path) -> None:
    rows = [f"cat/0{k}.png,a,train" for k in range(8)] + [f"dog/{8 + k:02}.png,b,test" for k in range(8)]
    source = table(folder, *rows, header="image,label,split")
    assert "label 'b' is in the test split of the source's own split" in refuse(source)
    splits = split_samples(read_source(source), "stratified", seed=0)
    assert {name: len(found) for name, found in splits.items()} == {"train": 10, "val": 2, "test": 4}


@pytest.mark.parametrize("role", ["split", "group", "weight", "time"])
def test_columns_are_for_tables(folder: Path, role: str) -> None:
    columns = Columns(**{role: "patient"})
    for source in (str(folder), "elpv"):
        assert refuse(source, columns=columns).startswith(
            f"data.{role}_column is for tables, and {source} has no columns"
        )
