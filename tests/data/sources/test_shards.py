"""WebDataset shards and Parquet files with images in them: several files are one source, and each image has a path."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from packed import png, shard, write_tar
from pyarrow import parquet

from tl_lightning.data.archives.files import open_file
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.samples import Samples
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import find_files, read_source
from tl_lightning.data.sources.several import files_of
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess


def refuse(source: Path | str, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        read_source(str(source), **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def labels(samples: Samples) -> list[str]:
    return [samples.classes[label] for label in samples.labels.astype(int)]


def content(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def hub(columns: dict[str, Any], **features: Any) -> pa.Table:
    """A table as the Hugging Face library writes it."""
    noted = json.dumps({"info": {"features": {"image": {"_type": "Image"}, **features}}})
    return pa.table(columns).replace_schema_metadata({"huggingface": noted})


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": png(number), "path": f"{number}.png"} for number in range(first, first + count)]


CLASSES = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


# Several files.


def test_patterns_stand_for_files_in_order(tmp_path: Path) -> None:
    names = ["a-008.tar", "a-009.tar", "a-010.tar", "b-0.tar"]
    for name in names:
        (tmp_path / name).touch()

    def found(pattern: str) -> list[str]:
        return [path.name for path in files_of(f"{tmp_path}/{pattern}")]

    assert found("a-{008..010}.tar") == names[:3] == found("a-*.tar")
    assert sorted(found("{a-{009..010},b-0}.tar")) == names[1:] and found("b-{0..0}.tar") == names[3:]
    assert found("a-{010..008}.tar") == names[2::-1]
    (tmp_path / "x{1..2}.tar").touch()
    assert found("x{1..2}.tar") == ["x{1..2}.tar"]  # what exists is taken for itself
    for pattern, words in {
        "a-{008..011}.tar": "there is no",
        "c-*.tar": "there is no",
        "{a-{008..010}.tar,b.csv}": "there is no",
        "a-{0..9999999}.tar": "stands for more than 100,000 files",
    }.items():
        with pytest.raises(UserError, match=words):
            files_of(f"{tmp_path}/{pattern}")
    (tmp_path / "b.csv").touch()
    with pytest.raises(UserError, match=r"end in \.csv, \.tar; several must be all \.tar, or all \.parquet"):
        files_of(f"{tmp_path}/*[0b].*")


def test_splits_from_the_names_of_shards(tmp_path: Path) -> None:
    for number, name in enumerate(("pets-train-000", "pets-train-001", "pets-val-000", "pets-test-000")):
        write_tar(tmp_path / f"{name}.tar", shard(4 * number, 4))
    samples = read_source(str(tmp_path))
    assert samples.split is not None
    assert samples.split.tolist() == ["test"] * 4 + ["train"] * 8 + ["val"] * 4
    assert read_source(f"{tmp_path}/pets-train-{{000..001}}.tar").split is None
    write_tar(tmp_path / "rest.tar", shard(90, 4))
    assert "the names of 1 of 5 files do not say which split they are" in refuse(tmp_path)


# WebDataset.


def test_a_number_or_a_name_beside_each_image(tmp_path: Path) -> None:
    samples = read_source(str(write_tar(tmp_path / "a.tar", shard(0, 6))))
    assert labels(samples) == ["0", "1"] * 3 and samples.paths[2] == tmp_path / "a.tar" / "000002.png"
    assert content(samples.paths[2]) == png(2, mean=60)
    samples = read_source(str(write_tar(tmp_path / "b.tar", shard(0, 6, ending="txt"))))
    assert labels(samples) == ["0", "1"] * 3


def test_json_beside_each_image_has_columns(tmp_path: Path) -> None:
    files = shard(0, 8, ending="json", split="train", group="a", tags=["x"])
    files["000007.json"] = json.dumps({"label": "dog", "split": "test", "group": "b", "tags": ["x", "y"]}).encode()
    path = str(write_tar(tmp_path / "a.tar", files))
    samples = read_source(path)
    assert labels(samples) == ["cat", "dog"] * 4 and samples.split is not None and samples.groups is not None
    assert samples.split.tolist() == ["train"] * 7 + ["test"] and samples.groups.tolist() == ["a"] * 7 + ["b"]
    tags = read_source(path, problem_type="multilabel", columns=Columns(label="tags"))
    assert tags.classes == ["x", "y"] and tags.labels[7].tolist() == [1, 1]


def test_a_name_ends_at_its_first_dot(tmp_path: Path) -> None:
    files = {f"v1.0/{number}.{end}": body for number in range(4) for end, body in (
        ("left.png", png(number)), ("right.png", png(number + 50)), ("cls", str(number % 2).encode())
    )}  # fmt: skip
    path = write_tar(tmp_path / "a.tar", files)
    assert "sample 'v1.0/0' has several images (left.png, right.png)" in refuse(path)
    samples = read_source(str(path), columns=Columns(image="right.png"))
    assert content(samples.paths[3]) == png(53)
    dotted = {f"photo.{n}.{end}": b"" for n in range(3) for end in ("png", "cls")}
    assert "a sample's name ends at its first dot" in refuse(write_tar(tmp_path / "b.tar", dotted))


def test_members_of_a_sample_need_not_lie_together(tmp_path: Path) -> None:
    files = shard(0, 6)
    by_kind = dict(sorted(files.items(), key=lambda item: item[0][-3:]))
    assert labels(read_source(str(write_tar(tmp_path / "a.tar", by_kind)))) == ["0", "1"] * 3


def test_samples_without_an_image_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = shard(0, 6)
    del files["000004.png"]
    samples = read_source(str(write_tar(tmp_path / "a.tar", {**files, "__info__.json": b"{}", "README": b""})))
    assert labels(samples) == ["0", "1", "0", "1", "1"]
    assert "1 of 6 samples have no image and are left out" in " ".join(capsys.readouterr().out.split())


def test_what_is_wrong_with_a_shard_is_said_in_one_line(tmp_path: Path) -> None:
    files = shard(0, 6)
    del files["000003.cls"]
    assert "a.tar/000003.png: the column 'cls' is empty" in refuse(write_tar(tmp_path / "a.tar", files))
    files = shard(0, 4, ending="json") | {"000002.json": b"{"}
    assert "a.tar/000002.json is no JSON" in refuse(write_tar(tmp_path / "a.tar", files))
    write_tar(tmp_path / "a.tar", shard(0, 4))
    twice = (tmp_path / "a.tar").read_bytes()[: -20 * 512].rstrip(b"\0")
    (tmp_path / "c.tar").write_bytes(twice[: len(twice) // 2])
    assert "is a damaged or cut off tar archive" in refuse(tmp_path / "c.tar")
    write_tar(tmp_path / "s" / "0.tar", {"0.png": png()})
    write_tar(tmp_path / "s" / "1.tar", {"1.png": png()})
    assert "no column 'label'" in refuse(tmp_path / "s")


def test_the_same_name_twice_in_a_shard_is_refused_but_not_in_two(tmp_path: Path) -> None:
    import tarfile

    write_tar(tmp_path / "s" / "0.tar", shard(0, 4))
    write_tar(tmp_path / "s" / "1.tar", shard(0, 4))
    assert len(read_source(str(tmp_path / "s"))) == 8
    with tarfile.open(tmp_path / "s" / "1.tar", "a") as archive:
        info = tarfile.TarInfo("000002.cls")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
    assert "holds two files '000002.cls'" in refuse(tmp_path / "s")


# Parquet.


def test_images_in_a_column_as_the_hugging_face_library_writes_them(tmp_path: Path) -> None:
    table = hub({"image": rows(7), "label": [0, 1, 1, 0, 1, 0, 1], "group": list("aabbccd")}, **CLASSES)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    samples = read_source(str(tmp_path / "a.parquet"))
    assert labels(samples) == ["cat", "dog", "dog", "cat", "dog", "cat", "dog"] and samples.groups is not None
    assert [content(path) for path in samples.paths] == [png(number) for number in range(7)]
    assert samples.paths[5] == tmp_path / "a.parquet" / "5.image" == find_files(str(tmp_path / "a.parquet"))[5]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_images_as_plain_bytes(kind: pa.DataType, tmp_path: Path) -> None:
    table = pa.table({"jpg": pa.array([png(number) for number in range(6)], kind), "label": ["x", "y"] * 3})
    parquet.write_table(table, tmp_path / "a.parquet")
    samples = read_source(str(tmp_path / "a.parquet"))
    assert labels(samples) == ["x", "y"] * 3 and content(samples.paths[4]) == png(4)


def test_the_only_column_with_classes_is_learned(tmp_path: Path) -> None:
    table = hub({"img": rows(4), "species": [1, 0, 1, 0]}, species=CLASSES["label"])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert labels(read_source(str(tmp_path / "a.parquet"))) == ["dog", "cat", "dog", "cat"]
    assert "the column 'species' is empty" in refuse_first(hub({"img": rows(2), "species": [1, -1]}, **{
        "species": CLASSES["label"]
    }), tmp_path)  # fmt: skip


def refuse_first(table: pa.Table, folder: Path) -> str:
    parquet.write_table(table, folder / "b.parquet")
    return refuse(folder / "b.parquet")


def test_several_columns_of_images_are_chosen_among(tmp_path: Path) -> None:
    said = refuse_first(pa.table({"left": rows(4), "right": rows(4, 50), "label": ["x", "y"] * 2}), tmp_path)
    assert "has several columns of images (left, right)" in said
    samples = read_source(str(tmp_path / "b.parquet"), columns=Columns(image="right"))
    assert content(samples.paths[1]) == png(51)


def test_files_of_a_folder_are_one_set_with_its_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")):
        table = hub({"image": rows(4, 4 * number), "label": [0, 1] * 2}, **CLASSES)
        (tmp_path / "pets" / "data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, tmp_path / "pets" / "data" / f"{name}.parquet")
    (tmp_path / "pets" / "README.md").touch()
    samples = read_source(str(tmp_path / "pets"))
    assert samples.split is not None and samples.split.tolist() == ["train"] * 8 + ["val"] * 4
    assert content(samples.paths[9]) == png(9) and len(find_files(str(tmp_path / "pets"))) == 12
    other = pa.table({"image": rows(4), "kind": ["a"] * 4})
    parquet.write_table(other, tmp_path / "pets" / "data" / "train-00003.parquet")
    assert "has no column 'label', which" in refuse(tmp_path / "pets")


def test_broken_rows_are_broken_images(tmp_path: Path, small: ImagePreprocess) -> None:
    cells = [*rows(8), {"bytes": None, "path": "gone.png"}, {"bytes": b"GIF8", "path": None}]
    parquet.write_table(hub({"image": cells, "label": [0, 1] * 5}, **CLASSES), tmp_path / "a.parquet")
    data = ImageDataModule(str(tmp_path / "a.parquet"), small.to_dict(), on_error="skip", num_workers=0)
    data.setup("fit")
    assert data.skipped == 2 and data.store.broken[8] == "empty file"
