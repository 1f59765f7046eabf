"""Tables as they come out of spreadsheets, pandas and hands: each is read exactly, or refused in one line."""

import os
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tl_lightning.data.samples import Samples
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import read_source
from tl_lightning.data.sources.table import read_table
from tl_lightning.data.targets import make_samples
from tl_lightning.errors import UserError

NAMES = ("1.png", "2.png", "3.png", "4.png", "a b, c.png", "Zelle_ä.png")
TAKEN = Columns(time="taken")
NUMBER: dict[str, Any] = {"problem_type": "regression"}
LABELS: dict[str, Any] = {"problem_type": "multilabel"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files that stand for images, which no table reads."""
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


def csv_of(folder: Path, content: str | bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet_of(folder: Path, **columns: object) -> Path:
    names = list(NAMES[: len(next(iter(columns.values())))])  # type: ignore[arg-type]
    parquet.write_table(pa.table({"image": names, **columns}), folder / "t.parquet")
    return folder / "t.parquet"


def read(path: Path, **settings: Any) -> Samples:
    return read_source(str(path), **settings)


def refuse(path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        read_source(str(path), **settings)
    assert "\n" not in str(error.value) and "\0" not in str(error.value)
    return str(error.value)


def lines(header: str, *rows: str) -> str:
    return "\n".join([header, *rows]) + "\n"


def four(column: str, *cells: str) -> str:
    """Two classes of two images, and one more column."""
    rows = (f"{number}.png,{'aabb'[number - 1]},{cell}" for number, cell in enumerate(cells, 1))
    return lines(f"image,label,{column}", *rows)


SAME = [
    ("byte order mark", "\ufeffimage,label\n1.png,a\n2.png,b\n3.png,a\n4.png,b\n"),
    ("carriage returns", "image,label\r\n1.png,a\r\n2.png,b\r\n3.png,a\r\n4.png,b\r\n"),
    ("old carriage returns", "image,label\r1.png,a\r2.png,b\r3.png,a\r4.png,b\r"),
    ("no last line end", "image,label\n1.png,a\n2.png,b\n3.png,a\n4.png,b"),
    ("blank lines", "image,label\n\n1.png,a\n2.png,b\n\n3.png,a\n4.png,b\n\n\n"),
    ("spaces around", " image , label\n 1.png, a\n2.png ,b \n3.png,\ta\n4.png,b\n"),
    ("quotes", '"image","label"\n"1.png","a"\n2.png,"b"\n"3.png",a\n"4.png","b"\n'),
    ("other order, more columns", "note,label,image\nx,a,1.png\n,b,2.png\n,a,3.png\n,b,4.png\n"),
    ("quoted commas and lines", 'image,note,label\n1.png,"x, ""y""\nz",a\n2.png,,b\n3.png,"\n",a\n4.png,",",b\n'),
    ("detours", "image,label\n./1.png,a\n../{name}/2.png,b\n3.png,a\n4.png,b\n"),
]


@pytest.mark.parametrize("content", [case[1] for case in SAME], ids=[case[0] for case in SAME])
def test_the_same_table_is_read_however_it_is_written(files: Path, content: str) -> None:
    samples = read(csv_of(files, content.replace("{name}", files.name)))
    assert [os.path.normpath(path) for path in samples.paths] == [str(files / f"{n}.png") for n in (1, 2, 3, 4)]
    assert samples.classes == ["a", "b"] and samples.labels.tolist() == [0, 1, 0, 1]


REFUSED = [
    ("empty file", b"", "is empty; a header and one row per image are expected"),
    ("header only", "image,label\n", "is empty; a header and one row per image are expected"),
    ("semicolons", "image;label\n1.png;a\n", "is separated by semicolons; commas are expected"),
    ("tabs", "image\tlabel\n1.png\ta\n", "is separated by tabs; commas are expected"),
    ("duplicate header", "image,label,label\n1.png,a,b\n", "has two columns 'label'; rename one"),
    ("trailing commas", "image,label,,\n1.png,a,,\n", "has two columns ''; rename one"),
    ("missing image column", "img,label\n1.png,a\n", "no column 'image' (data.image_column); its columns are img"),
    ("missing label column", "image,Label\n1.png,a\n", "no column 'label' (data.label_column); its columns are"),
    ("too many cells", "image,label\n1.png,a\na b, c.png,b\n", "row 3 of {} has more cells than the header has"),
    ("too few cells", "image,label\n1.png,a\n2.png\n", "row 3 of {} has fewer cells than the header"),
    ("line of a later cell", 'image,label\n"1.png\n",a\n2.png\n', "row 4 of {} has fewer cells than the header"),
    ("open quote", 'image,label\n1.png,"a\n2.png,b\n', "cannot be read as a UTF-8 CSV table: unexpected end of data"),
    ("stray quote", 'image,label\n1.png,"a"x\n2.png,b\n', "cannot be read as a UTF-8 CSV table: ',' expected after"),
    ("Latin-1", "image,label\n1.png,Schäden\n".encode("latin-1"), "can't decode byte 0xe4"),
    ("UTF-16", "image,label\n1.png,a\n".encode("utf-16"), "save it as UTF-8"),
    ("NUL", b"image,label\n1.png,a\0\n2.png,b\n", "row 2 of {} holds NUL bytes, which are no text; save the table as"),
    ("enormous cell", "image,label\n1.png," + "a" * 200_000 + "\n", "field larger than field limit"),
    ("an image instead", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "cannot be read as a UTF-8 CSV table"),
    ("blank label", "image,label\n1.png,a\n2.png, \n", "row 3 of {}: the column 'label' is empty"),
    ("blank path", "image,label\n1.png,a\n,b\n", "row 3 of {}: the column 'image' is empty"),
    ("missing images", "image,label\n1.png,a\n7.png,b\n", "1 of the 2 images in {} do not exist: "),
    ("a folder for an image", "image,label\n1.png,a\n.,b\n", "1 of the 2 images in {} do not exist: "),
    ("a web address", "image,label\n1.png,a\nhttp://x/2.png,b\n", "1 of the 2 images in {} do not exist: "),
    ("split misspelt", four("split", "train", "train", "tset", "val"), "row 4 of {}: split is 'tset'; it must be"),
    ("split blank", four("split", "train", "", "test", "val"), "row 3 of {}: the column 'split' is empty"),
    ("split not known", four("split", "Trained", "train", "test", "val"), "split is 'Trained'; it must be train,"),
    ("group blank", four("group", "x", "", "y", "z"), "row 3 of {}: the column 'group' is empty"),
    ("equal numbers", "image,label\n1.png,1\n2.png,1.0\n3.png,2\n4.png,2\n", "same number written in several ways"),
    *[
        (f"weight {cell}", four("weight", "1", cell, "1", "1"), f"row 3 of {{}}: weight is '{cell}'; it must be a num")
        for cell in ("0", "-1", "much", "inf", "nan", "1e400", "1e-50", "1e39")
    ],
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_hostile_table_is_refused_in_one_line(files: Path, content: str | bytes, message: str) -> None:
    path = csv_of(files, content)
    assert message.format(path) in refuse(path)


def test_a_folder_called_like_a_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    assert refuse(tmp_path / "x.csv") == f"data.source {tmp_path}/x.csv is a folder, not a table"


def test_paths_may_be_anywhere_and_hold_anything(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(files))
    (files / "sub").mkdir()
    rows = (f"{files}/1.png,a", "~/2.png,a", '"../a b, c.png",b', "../Zelle_ä.png,b")
    samples = read(csv_of(files / "sub", lines("image,label", *rows)))
    assert [path.resolve() for path in samples.paths] == [
        files / "1.png", files / "2.png", files / "a b, c.png", files / "Zelle_ä.png"
    ]  # fmt: skip


def test_a_relative_table_is_found_from_the_working_folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_of(files, "image,label\n1.png,a\n2.png,a\n3.png,b\n4.png,b\n")
    monkeypatch.chdir(files)
    assert read(Path("t.csv")).paths[0] == Path("1.png")


@pytest.mark.parametrize("second", ["a", "b"])
def test_a_image_may_be_in_several_rows(files: Path, second: str) -> None:
    samples = read(csv_of(files, lines("image,label", "1.png,a", f"1.png,{second}", "2.png,a", "3.png,b", "4.png,b")))
    assert samples.paths[0] == samples.paths[1] and samples.labels.tolist()[:2] == [0, "ab".index(second)]


def test_weights_are_numbers_in_any_notation(files: Path) -> None:
    samples = read(csv_of(files, four("weight", "1", "0.5", "1e3", " 2 ")))
    assert samples.weights is not None and samples.weights.tolist() == [1.0, 0.5, 1000.0, 2.0]


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (("1", "-2.5", "1e3", "0"), [1.0, -2.5, 1000.0, 0.0]),
        (("1970-01-02", "1970-01-01", "1970-01-01T00:00:10", "1970-01-01 00:01"), [86400.0, 0.0, 10.0, 60.0]),
        (("1970-01-01T01:00+01:00", "1970-01-01T00:00Z", "1969-12-31T19:00-05:00", "1970-01-01T00:00:00.5"),
         [0.0, 0.0, 0.0, 0.5]),
        (("20240531", "20240601", "20231231", "20240101"), [20240531.0, 20240601.0, 20231231.0, 20240101.0]),
    ],
)  # fmt: skip
def test_times_are_numbers_or_dates(files: Path, cells: tuple[str, ...], seconds: list[float]) -> None:
    samples = read(csv_of(files, four("taken", *cells)), columns=TAKEN)
    assert samples.times is not None and samples.times.tolist() == seconds


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        (("1", "2", "inf", "3"), 4),
        (("1", "nan", "2", "3"), 3),
        (("2024-05-31", "31.5.2024", "2024-06-01", "2024-06-01"), 3),
        (("05/31/2024", "1", "2", "3"), 2),
        (("2024-02-30", "2024-02-01", "2024-02-01", "2024-02-01"), 2),
        (("2023", "2024-05-31", "2022", "2021"), 3),
        (("2024-05-31", "2024-05-31", "2024-05-31", "2024"), 5),
    ],
)
def test_times_that_cannot_be_put_in_order_are_named(files: Path, cells: tuple[str, ...], row: int) -> None:
    path = csv_of(files, four("taken", *cells))
    assert refuse(path, columns=TAKEN) == (
        f"row {row} of {path}: taken is {cells[row - 2]!r}; "
        "all must be numbers, or all dates such as 2024-05-31 or 2024-05-31T12:00"
    )


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (("a||b", " a | b ", "|", "c|"), [[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]),
        (("a|a|a", "b", "", "c|b|a"), [[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]]),
    ],
)
def test_labels_are_separated_whatever_stands_between(
    files: Path, cells: tuple[str, ...], labels: list[list[int]]
) -> None:
    path = csv_of(files, lines("image,label", *(f"{number}.png,{cell}" for number, cell in enumerate(cells, 1))))
    samples = read(path, **LABELS)
    assert samples.classes == ["a", "b", "c"] and samples.labels.tolist() == labels


def test_a_separator_must_be_something(files: Path) -> None:
    path = csv_of(files, "image,label\n1.png,a\n2.png,b\n")
    assert refuse(path, **LABELS, separator="") == (
        "data.label_separator is empty; it must be what stands between the labels of a cell, such as |"
    )


def test_marks_are_words_for_yes_and_no(files: Path) -> None:
    path = csv_of(files, lines("image,p,q", "1.png,1,0", "2.png,TRUE,no", "3.png,0.0,Yes", "4.png,false,1.0"))
    samples = read(path, **LABELS, columns=Columns(label=["p", "q"]))
    assert samples.classes == ["p", "q"] and samples.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize("cell", ["2", "x", "", "0.5", "-1"])
def test_other_marks_are_refused(files: Path, cell: str) -> None:
    path = csv_of(files, lines("image,p,q", "1.png,1,0", f"2.png,{cell},1"))
    message = f"row 3 of {path}: column 'p' is {cell!r}; it must say 1 or 0, true or false, yes or no"
    assert refuse(path, **LABELS, columns=Columns(label=["p", "q"])) == message


def test_numbers_are_read_in_any_notation(files: Path) -> None:
    path = csv_of(files, lines("image,label", "1.png,1.5", "2.png,-2e-3", "3.png, 7 ", "4.png,1e-60"))
    assert read(path, **NUMBER).labels.tolist() == [[1.5], [np.float32(-2e-3)], [7.0], [0.0]]


@pytest.mark.parametrize("cell", ["1,5", "nan", "inf", "-inf", "1e400", "1e39", "much", "1.5 mm"])
def test_other_numbers_are_refused(files: Path, cell: str) -> None:
    path = csv_of(files, lines("image,label", "1.png,1", f'2.png,"{cell}"'))
    assert refuse(path, **NUMBER) == f"row 3 of {path}: column 'label' is {cell!r}; a finite number is wanted"


def test_a_blank_number_is_named(files: Path) -> None:
    path = csv_of(files, lines("image,label", "1.png,1", "2.png,"))
    assert refuse(path, **NUMBER) == f"row 3 of {path}: the column 'label' is empty"


@pytest.mark.parametrize("label", [[], ["label", "label"]])
def test_columns_of_answers_are_named_once(files: Path, label: list[str]) -> None:
    path = csv_of(files, "image,label\n1.png,1\n2.png,2\n")
    message = f"data.label_column is {label}; it must name a column, or several that differ"
    assert refuse(path, **NUMBER, columns=Columns(label=label)) == message


def test_whole_numbers_are_places_in_the_classes_asked_for(files: Path) -> None:
    path = csv_of(files, lines("image,label", "1.png,0", "2.png,2", "3.png,2", "4.png,0"))
    samples = read(path, classes=["cat", "dog", "bird"])
    assert samples.classes == ["cat", "dog", "bird"] and samples.labels.tolist() == [0, 2, 2, 0]
    assert f"label '0' (row 2 of {path}) is not one of the classes asked for: cat, dog" in refuse(
        path, classes=["cat", "dog"]
    )


@pytest.mark.parametrize(
    ("column", "classes", "labels"),
    [
        (["b", "a", "a", "b"], ["a", "b"], [1, 0, 0, 1]),
        (pa.array(["b", "a", "a", "b"]).dictionary_encode(), ["a", "b"], [1, 0, 0, 1]),
        ([10, 9, 9, 10], ["9", "10"], [1, 0, 0, 1]),
        (pa.array([1, 0, 0, 1], pa.int8()), ["0", "1"], [1, 0, 0, 1]),
        ([0.5, 1.0, 1.0, 0.5], ["0.5", "1.0"], [0, 1, 1, 0]),
        ([True, False, False, True], ["False", "True"], [1, 0, 0, 1]),
    ],
)
def test_parquet_cells_of_every_kind_are_classes(files: Path, column: Any, classes: list[str], labels: Any) -> None:
    samples = read(parquet_of(files, label=column))
    assert samples.classes == classes and samples.labels.tolist() == labels


def test_parquet_lists_are_labels(files: Path) -> None:
    samples = read(parquet_of(files, label=[["a", "b"], [], None, ["c"]]), **LABELS)
    assert samples.classes == ["a", "b", "c"]
    assert samples.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    samples = read(parquet_of(files, label=[[10], [9, 10], [], [9]]), **LABELS)
    assert samples.classes == ["9", "10"] and samples.labels.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0]]


def test_parquet_numbers_and_decimals_are_numbers(files: Path) -> None:
    path = parquet_of(files, label=pa.array([1, 2, 3, 4], pa.uint16()), weight=pa.array([0.1, 0.2, 1, 2], pa.float32()))
    samples = read(path, **NUMBER)
    assert samples.labels.tolist() == [[1], [2], [3], [4]]
    assert samples.weights is not None and samples.weights.tolist() == np.float32([0.1, 0.2, 1, 2]).tolist()
    decimals = parquet_of(files, label=[Decimal("1.5"), Decimal("2.25")])
    assert read(decimals, **NUMBER).labels.tolist() == [[1.5], [2.25]]


DAY = datetime(2024, 5, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([DAY, DAY + timedelta(seconds=1)], pa.timestamp("us", "UTC")),
        pa.array([DAY.replace(tzinfo=None), DAY.replace(tzinfo=None) + timedelta(seconds=1)], pa.timestamp("s")),
        # pandas' own kind; no datetime holds these nanoseconds
        pa.array([int(DAY.timestamp()) * 10**9 + 5, int(DAY.timestamp() + 1) * 10**9 + 7], pa.timestamp("ns")),
    ],
)  # fmt: skip
def test_parquet_times_are_times(files: Path, column: object) -> None:
    samples = read(parquet_of(files, label=["1", "2"], taken=column), **NUMBER, columns=TAKEN)
    assert samples.times is not None
    assert samples.times.tolist() == pytest.approx([DAY.timestamp(), DAY.timestamp() + 1], abs=1e-5)


def test_parquet_dates_are_times(files: Path) -> None:
    path = parquet_of(files, label=[1, 2], taken=[date(1970, 1, 2), date(1970, 1, 1)])
    samples = read(path, **NUMBER, columns=TAKEN)
    assert samples.times is not None and samples.times.tolist() == [86400.0, 0.0]


@pytest.mark.parametrize(
    ("column", "settings", "message"),
    [
        (["a", None], {}, "row 2 of {}: the column 'label' is empty"),
        ([1.0, float("nan")], {}, "row 2 of {}: the column 'label' is empty"),
        ([b"a", b"b"], {}, "row 1 of {}: column 'label' holds bytes, not text or a number"),
        ([{"x": 1}, {"x": 2}], {}, "row 1 of {}: column 'label' holds dict, not text or a number"),
        ([["a|b"], ["c"]], LABELS, "row 1 of {}: 'a|b' in column 'label' contains '|'; choose another data.label_sep"),
        ([["a"], ["b", None]], LABELS, "row 2 of {}: column 'label' holds list, not text or a number"),
        ([[1.0], [float("nan")]], LABELS, "row 2 of {}: column 'label' holds list, not text or a number"),
        ([["1", "2"], ["3"]], NUMBER, "row 1 of {}: column 'label' is '1|2'; a finite number is wanted"),
    ],
)
def test_parquet_cells_that_say_nothing_are_named(files: Path, column: object, settings: Any, message: str) -> None:
    path = parquet_of(files, label=column)
    assert message.format(path) in refuse(path, **settings)


def test_parquet_without_rows_is_empty(files: Path) -> None:
    parquet.write_table(
        pa.table({"image": pa.array([], pa.string()), "label": pa.array([], pa.string())}), files / "t.parquet"
    )
    assert refuse(files / "t.parquet").endswith("is empty; a header and one row per image are expected")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"image,label\n1.png,a\n", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_broken_parquet_table_is_one_line(files: Path, content: bytes) -> None:
    (files / "t.parquet").write_bytes(content)
    assert f"data.source {files}/t.parquet cannot be read as a Parquet table: " in refuse(files / "t.parquet")


def test_parquet_columns_of_the_same_name_are_refused(files: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["1.png"]), pa.array(["a"]), pa.array(["b"])], ["image", "label", "label"])
    parquet.write_table(table, files / "t.parquet")
    assert refuse(files / "t.parquet").endswith("has two columns 'label'; rename one")


def test_without_pyarrow_a_line_says_what_to_install(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet_of(files, label=["a", "b"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refuse(path).endswith("is a Parquet table, which needs a package: pip install 'tl_lightning[tables]'")


def test_a_long_table_asks_for_each_file_once(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(os.path, "isfile", lambda name: asked.append(name) or True)
    path = csv_of(files, lines("image,label", *(f"{number}.png,{number % 2}" for number in range(5000))))
    samples = make_samples(read_table(path, columns=Columns()))
    assert asked == [path, *map(str, samples.paths)] and len(asked) == 5001


def far_away() -> pa.Array:
    """Dates after the year 9999, which Python has not."""
    return pa.array([2**55, 2**56, 2**57, 2**58], pa.timestamp("us"))


def test_a_column_that_is_not_used_may_hold_anything(files: Path) -> None:
    assert read(parquet_of(files, label=["a", "b", "a", "b"], expires=far_away())).classes == ["a", "b"]


def test_dates_that_python_has_not_are_one_line(files: Path) -> None:
    path = parquet_of(files, label=["a", "b", "a", "b"], taken=far_away())
    assert f"data.source {path} cannot be read as a Parquet table: " in refuse(path, columns=TAKEN)
