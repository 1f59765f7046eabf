"""What a table says becomes classes, levels, labels or numbers, exactly, or one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import ProblemType, Samples
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import read_source
from tl_lightning.data.targets import make_samples
from tl_lightning.errors import UserError


@pytest.fixture
def table(folder: Path) -> Callable[..., str]:
    """Writes a table of the folder's images; each row is what stands behind the image's path."""

    def write(*rows: str, header: str = "label") -> str:
        paths = sorted(folder.rglob("*.png"))[: len(rows)]
        path = folder / "table.csv"
        lines = [f"{image},{row}" for image, row in zip(paths, rows, strict=True)]
        path.write_text("\n".join([f"image,{header}", *lines]) + "\n", encoding="utf-8")
        return str(path)

    return write


def refused(source: str, **settings: object) -> str:
    with pytest.raises(UserError) as error:
        read_source(source, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_labels_are_separated_in_one_cell_and_may_be_none(table: Callable[..., str]) -> None:
    samples = read_source(table("b | a", "", "a", "c|a||a", "b"), problem_type="multilabel")
    assert samples.classes == ["a", "b", "c"]
    assert samples.labels.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert samples.labels.dtype == np.float32
    assert samples.counts(np.arange(5)).tolist() == [3, 2, 1]
    assert samples.strata.tolist() == [1, 3, 0, 2, 1]  # the rarest label of each; 3 for none


def test_labels_may_be_marked_in_a_column_each(table: Callable[..., str]) -> None:
    columns = Columns(label=["wet", "cold"])
    source = table("1,0", "0.0,TRUE", "yes,no", header="wet,cold")
    assert read_source(source, problem_type="multilabel", columns=columns).labels.tolist() == [[1, 0], [0, 1], [1, 0]]
    asked = read_source(source, problem_type="multilabel", columns=columns, classes=["cold", "wet"])
    assert (asked.classes, asked.labels.tolist()) == (["cold", "wet"], [[0, 1], [1, 0], [0, 1]])
    message = refused(table("1,0", "2,0", header="wet,cold"), problem_type="multilabel", columns=columns)
    assert message.endswith("column 'wet' is '2'; it must say 1 or 0, true or false, yes or no")
    assert "row 3 of " in message


def test_numbers_are_read_as_they_are(table: Callable[..., str]) -> None:
    samples = read_source(table("1.5", "-2e3", " 7 "), problem_type="regression")
    assert (samples.classes, samples.labels.tolist()) == (["label"], [[1.5], [-2000.0], [7.0]])
    several = read_source(
        table("1,4", "2,5", "3,6", header="x,y"), problem_type="regression", columns=Columns(label=["y", "x"])
    )
    assert (several.classes, several.labels.tolist()) == (["y", "x"], [[4, 1], [5, 2], [6, 3]])
    new = read_source(
        table("1", "2", header="other"), problem_type="regression", columns=Columns(label="other"), classes=["x"]
    )
    assert (new.classes, new.labels.tolist()) == (["x"], [[1.0], [2.0]])


@pytest.mark.parametrize("cell", ["1,5", "abc", "nan", "inf", "1e400", "1e39"])
def test_what_is_no_number_is_named_with_its_row(table: Callable[..., str], cell: str) -> None:
    message = refused(table("1", f'"{cell}"', "3"), problem_type="regression")
    assert message.startswith("row 3 of ")
    assert message.endswith(f"column 'label' is {cell!r}; a finite number is wanted")


def test_levels_need_an_order(table: Callable[..., str]) -> None:
    source = table("mild", "none", "severe", "none", "mild", "severe")
    assert "list them from the lowest to the highest as data.classes" in refused(source, problem_type="ordinal")
    samples = read_source(source, problem_type="ordinal", classes=["none", "mild", "severe"])
    assert samples.labels.tolist() == [1, 0, 2, 0, 1, 2]
    numbers = read_source(table("10", "2.5", "10", "2.5"), problem_type="ordinal")
    assert (numbers.classes, numbers.labels.tolist()) == (["2.5", "10"], [1, 0, 1, 0])


def test_whole_numbers_are_places_among_the_classes_asked_for(table: Callable[..., str]) -> None:
    source = table("0", "1", "1", "0")
    assert read_source(source, classes=["cat", "dog"]).labels.tolist() == [0, 1, 1, 0]
    assert "label '0' (row 2 of" in refused(table("0", "2"), classes=["cat", "dog"])
    # Where the classes are themselves called 1 and 0, their names count.
    source = table("0", "1", "1", "0")
    assert read_source(source, classes=["1", "0"]).labels.tolist() == [1, 0, 0, 1]


def test_classes_that_are_numbers_are_found_by_their_value(table: Callable[..., str]) -> None:
    trained = ["1.0", "2.0", "3.0"]  # as pandas writes a column of whole numbers with a gap in it
    source = table("1", "2", "2", "1")
    for kind in ("multiclass", "ordinal"):
        samples = read_source(source, classes=trained, problem_type=kind)
        assert (samples.classes, samples.labels.tolist()) == (trained, [0, 1, 1, 0])
    assert read_source(table("1|3", "2.00"), classes=trained, problem_type="multilabel").labels.tolist() == [
        [1, 0, 1],
        [0, 1, 0],
    ]
    assert "label '0' (row 2 of" in refused(table("0", "1"), classes=trained)  # no place, though one would be there
    assert read_source(table("1", "1", "2", "2.0"), classes=[2, 1.0]).labels.tolist() == [1, 1, 0, 0]  # of YAML


def test_columns_that_are_called_by_numbers_are_found_by_their_value(table: Callable[..., str]) -> None:
    source, columns = table("0,1", "1,1", header="1,2"), Columns(label=["2", "1"])
    samples = read_source(source, classes=["1.0", "2.0"], problem_type="multilabel", columns=columns)
    assert samples.labels.tolist() == [[0, 1], [1, 1]]
    message = refused(source, classes=["1", "2", "3"], problem_type="multilabel", columns=columns)
    assert message == "data.label_column names 2, 1, but the labels asked for are 1, 2, 3"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_type": "regression"}, "a folder says one class of each image, not a number"),
        ({"problem_type": "multilabel"}, "a folder says one class of each image, not several labels"),
        ({"problem_type": "ordinal"}, "does not say in which order its levels are (cat, dog)"),
    ],
)
def test_a_folder_holds_classes(folder: Path, settings: dict[str, object], message: str) -> None:
    assert message in refused(str(folder), **settings)


@pytest.mark.parametrize(
    ("rows", "problem_type", "message"),
    [
        (["5", "5", "5"], "regression", "'label' is the same for all images; there is nothing to learn"),
        (["", "", ""], "multilabel", "has a label"),
        (["a", "a", "a"], "ordinal", "does not say in which order"),
    ],
)
def test_nothing_to_learn_is_said(table: Callable[..., str], rows: list[str], problem_type: str, message: str) -> None:
    assert message in refused(table(*rows), problem_type=problem_type)


def test_a_target_without_any_value_is_said(table: Callable[..., str]) -> None:
    source = table("a,", "b,", header="kind,size")
    message = refused(source, problem_type={"size": "regression", "kind": "multiclass"})
    assert "no image has a value of 'size'; there is nothing to learn" in message


def test_elpv_has_a_probability_and_ordered_levels() -> None:
    samples = read_source("elpv", problem_type="regression", target="probability")
    assert sorted(set(np.round(samples.labels[:, 0].astype(float), 4).tolist())) == [0.0, 0.3333, 0.6667, 1.0]
    assert read_source("elpv", problem_type="ordinal", target="level").classes == ["0%", "33%", "67%", "100%"]


def weighted(table: Callable[..., str], *cells: str) -> Samples:
    return read_source(table(*(f"{'ab'[k % 2]},{cell}" for k, cell in enumerate(cells)), header="label,weight"))


def test_weights_and_groups_are_used_where_there_are_columns_of_that_name(table: Callable[..., str]) -> None:
    samples = weighted(table, "1", "2.5", "1", "0.5")
    assert samples.weights is not None and samples.weights.tolist() == [1, 2.5, 1, 0.5]
    for bad in ("0", "-1", "inf", "heavy", "nan"):
        with pytest.raises(UserError, match=rf"row 3 of .*: weight is '{bad}'; it must be a number above 0"):
            weighted(table, "1", bad, "1", "1")
    # A column that is to be learned is no weight.
    learned = read_source(table("1", "2", header="weight"), problem_type="regression", columns=Columns(label="weight"))
    assert learned.weights is None


def test_levels_that_are_numbers_are_in_their_order_whatever_the_source_says() -> None:
    paths = [Path(f"{k}.png") for k in range(8)]
    cells = ["1", "10", "2", "3"] * 2
    listing = Listing(
        source="s", paths=paths, targets={"label": cells}, place=str, known={"label": ["1", "10", "2", "3"]}
    )
    samples = make_samples(listing, problem_type="ordinal")
    assert samples.classes == ["1", "2", "3", "10"]
    assert samples.labels.tolist() == [0, 3, 1, 2] * 2


def test_several_targets_are_read_each_in_its_own_way_and_may_be_lacking(table: Callable[..., str]) -> None:
    kinds: dict[str, ProblemType] = {
        "kind": "multiclass",
        "grade": "ordinal",
        "marks": "multilabel",
        "size": "regression",
    }
    source = table("b,2,x|y,1.5", "a,,,", ",10,x,", "b,2,y,3", "a,10,,2", header="kind,grade,marks,size")
    samples = read_source(source, problem_type=kinds)
    targets = samples.targets
    assert {name: target.problem_type for name, target in targets.items()} == kinds
    assert [targets[name].classes for name in kinds] == [["a", "b"], ["2", "10"], ["x", "y"], ["size"]]
    assert targets["kind"].labels.tolist() == [1, 0, -1, 1, 0] and targets["kind"].labels.dtype == np.int64
    assert targets["grade"].labels.tolist() == [0, -1, 1, 0, 1]
    assert targets["marks"].labels.tolist() == [[1, 1], [0, 0], [1, 0], [0, 1], [0, 0]]
    np.testing.assert_array_equal(targets["size"].labels[:, 0], np.float32([1.5, np.nan, np.nan, 3, 2]))
    assert targets["size"].present.tolist() == [True, False, False, True, True]
    assert targets["kind"].counts(np.arange(5)).tolist() == [2, 2] and targets["size"].counts(np.arange(5)).size == 0
    assert samples.single.tolist() == [1, 0, -1, 1, 0]  # the first named decides
    assert samples.targets_in_words()[1][samples.targets_in_words()[0][0]] == "b, 2, x|y, 1.5"
    for name in ("labels", "classes", "problem_type"):
        with pytest.raises(UserError, match=r"^this works with one target, and here are several: kind, grade, marks,"):
            getattr(samples, name)


def test_a_sample_without_any_target_is_unlabelled(table: Callable[..., str]) -> None:
    source = table("b,2", ",", "a,", "b,1", "a,2", ",1", header="kind,size")
    kinds: dict[str, ProblemType] = {"kind": "multiclass", "size": "regression"}
    message = r"^row 3 of .*: no target; --data.unlabelled keep keeps such rows$"
    with pytest.raises(UserError, match=message):
        read_source(source, problem_type=kinds)
    kept = read_source(source, problem_type=kinds, unlabelled="keep")
    assert kept.labelled.tolist() == [True, False, True, True, True, True]
    one = table("b", "", "a", "b", "a")
    assert refused(one).endswith("row 3 of " + one + ": the column 'label' is empty")
    assert read_source(one, unlabelled="keep").labels.tolist() == [1, -1, 0, 1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["a", "b"]}, "data.classes must give a list for each of the targets kind, size, by its name"),
        ({"classes": {"other": ["a", "b"]}}, "data.classes must give a list for each of the targets kind, size"),
        ({"classes": {"kind": ["a", "a"]}}, "data.classes names a class twice: a, a"),
        ({"target": "kind"}, "data.target 'kind' has no effect where several are learned: kind, size"),
        (
            {"problem_type": {"kind": "multiclass", "length": "regression"}},
            "has no column 'length' (data.label",
        ),
    ],
)
def test_what_several_targets_are_asked_for_wrongly(
    table: Callable[..., str], settings: dict[str, object], message: str
) -> None:
    source = table("b,2", "a,1", "b,1", "a,2", header="kind,size")
    assert message in refused(source, **{"problem_type": {"kind": "multiclass", "size": "regression"}, **settings})


def test_the_order_of_classes_is_kept_for_each_target(table: Callable[..., str]) -> None:
    source = table("b,2", "a,1", "b,1", "a,2", header="kind,grade")
    kinds: dict[str, ProblemType] = {"kind": "multiclass", "grade": "ordinal"}
    targets = read_source(source, problem_type=kinds, classes={"kind": ["b", "a"], "grade": ["2", "1"]}).targets
    assert targets["kind"].labels.tolist() == [0, 1, 0, 1] and targets["grade"].labels.tolist() == [0, 1, 1, 0]


def test_a_folder_has_one_target(folder: Path) -> None:
    message = "a folder says one class of each image, not several targets"
    assert message in refused(str(folder), problem_type={"kind": "multiclass"})


def test_elpv_has_several_targets_at_once() -> None:
    both = read_source("elpv", problem_type={"defect": "multiclass", "type": "multiclass"})
    for name, target in both.targets.items():
        alone = read_source("elpv", target=name)
        assert np.array_equal(target.labels, alone.labels) and target.classes == alone.classes
        assert np.array_equal(both.strata, alone.strata)
