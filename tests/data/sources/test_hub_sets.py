import sys
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from tl_lightning.core.cache_folder import cache_dir, remove
from tl_lightning.data.samples import ProblemType
from tl_lightning.data.sources import hub_sets
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import read_source
from tl_lightning.errors import UserError

DecodedImage = Callable[..., Path]
NAMES = ["cat", "dog", "bird"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def encoded(seed: int = 0, kind: str = "png") -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def a_set(labels: list[int], *, kinds: str = "png", **columns: list[object]) -> datasets.Dataset:
    cells = [{"bytes": encoded(seed, kinds), "path": None} for seed in range(len(labels))]
    made = datasets.Dataset.from_dict({"image": cells, "label": labels, **columns})
    return made.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=NAMES))


def saved(made: datasets.Dataset | datasets.DatasetDict, folder: Path) -> str:
    made.save_to_disk(str(folder))
    return f"datasets/{folder}"


def refuse(source: str, **settings: object) -> str:
    with pytest.raises(UserError) as error:
        read_source(source, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def exported() -> list[Path]:
    folder = cache_dir() / "images"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


@pytest.mark.parametrize(("kind", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("tiff", "tif")])
def test_encoded_images_are_exported_as_they_are(tmp_path: Path, kind: str, suffix: str) -> None:
    samples = read_source(saved(a_set([2, 0, 0, 2], kinds=kind), tmp_path / "set"))
    (folder,) = exported()
    assert samples.paths == [folder / "00000" / f"{index:08}.{suffix}" for index in range(4)]
    assert [path.read_bytes() for path in samples.paths] == [encoded(seed, kind) for seed in range(4)]
    assert samples.classes == NAMES and samples.labels.tolist() == [2, 0, 0, 2]
    assert samples.split is None and samples.groups is None and samples.weights is None


def test_a_thousand_images_share_a_folder(tmp_path: Path) -> None:
    cells = [{"bytes": b"BM%d" % index, "path": None} for index in range(1002)]
    made = datasets.Dataset.from_dict({"image": cells, "label": [index % 2 for index in range(1002)]})
    samples = read_source(saved(made.cast_column("image", datasets.Image()), tmp_path / "set"))
    assert [str(samples.paths[index].relative_to(exported()[0])) for index in (0, 999, 1000)] == [
        "00000/00000000.bmp", "00000/00000999.bmp", "00001/00001000.bmp"
    ]  # fmt: skip
    assert samples.classes == ["0", "1"]


def test_splits_are_stated_and_others_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"train": a_set([0, 1, 1]), "validation": a_set([1]), "test": a_set([0]), "extra": a_set([2])}
    source = saved(datasets.DatasetDict(parts), tmp_path / "set")
    samples = read_source(source)
    assert samples.split is not None and samples.split.tolist() == ["train"] * 3 + ["val", "test"]
    assert samples.labels.tolist() == [0, 1, 1, 1, 0]
    assert "its splits extra are left out" in capsys.readouterr().out


def test_splits_that_mean_the_same_are_put_together(tmp_path: Path) -> None:
    parts = {"train": a_set([0, 1, 2]), "validation": a_set([1]), "dev": a_set([2, 0])}
    samples = read_source(saved(datasets.DatasetDict(parts), tmp_path / "set"))
    assert samples.split is not None and samples.split.tolist() == ["train"] * 3 + ["val"] * 3
    assert samples.labels.tolist() == [0, 1, 2, 1, 2, 0]


def test_splits_that_cannot_be_put_together_are_one_line(tmp_path: Path) -> None:
    other = a_set([1]).cast_column("label", datasets.Value("string"))
    parts = {"train": a_set([0]), "validation": a_set([1]), "dev": other}
    source = saved(datasets.DatasetDict(parts), tmp_path / "set")
    assert f"data.source {source} cannot be loaded: " in refuse(source)


def test_a_link_that_leads_nowhere_is_no_reason_to_stop(tmp_path: Path) -> None:
    source = saved(a_set([0, 1, 0, 1]), tmp_path / "set")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "nowhere")
    assert len(read_source(source)) == 4


def test_splits_of_other_names_only_are_refused(tmp_path: Path) -> None:
    source = saved(datasets.DatasetDict({"one": a_set([0]), "two": a_set([1])}), tmp_path / "set")
    assert refuse(source) == f"data.source {source} has the splits one, two; train is expected among them"


def test_a_single_split_is_none(tmp_path: Path) -> None:
    assert read_source(saved(datasets.DatasetDict({"train": a_set([0, 1, 0, 1])}), tmp_path / "set")).split is None


def test_a_split_without_answers_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"train": a_set([0, 1, 1]), "test": a_set([-1, -1])}
    samples = read_source(saved(datasets.DatasetDict(parts), tmp_path / "set"))
    assert len(samples) == 3 and samples.split is not None and samples.split.tolist() == ["train"] * 3
    assert "no image of test has an answer" in capsys.readouterr().out


def test_a_image_without_an_answer_is_named(tmp_path: Path) -> None:
    source = saved(a_set([0, 1, -1, 1]), tmp_path / "set")
    assert refuse(source) == f"image 2 of {source}: the column 'label' is empty"


def test_usual_columns_and_chosen_ones_are_read(tmp_path: Path) -> None:
    taken = [datetime(2024, 5, day) for day in (3, 1, 2, 4)]
    made = a_set([0, 1, 0, 1], group=["a", "b", "a", "b"], weight=[1.0, 2.0, 0.5, 3.0], taken=taken, age=[5, 6, 7, 8])
    source = saved(made, tmp_path / "set")
    samples = read_source(source, columns=Columns(time="taken"))
    assert samples.groups is not None and samples.groups.tolist() == ["a", "b", "a", "b"]
    assert samples.weights is not None and samples.weights.tolist() == [1.0, 2.0, 0.5, 3.0]
    assert samples.times is not None and np.argsort(samples.times).tolist() == [1, 2, 0, 3]
    numbers = read_source(source, problem_type="regression", columns=Columns(label="age"))
    assert numbers.labels.tolist() == [[5], [6], [7], [8]] and numbers.classes == ["age"]
    assert len(exported()) == 1  # another answer needs no other files


def test_several_labels_are_lists_of_classes(tmp_path: Path) -> None:
    made = a_set([0, 0, 0, 0], tags=[[0, 2], [], [1], [2]])
    made = made.remove_columns("label").cast_column("tags", datasets.Sequence(datasets.ClassLabel(names=NAMES)))
    source = saved(made, tmp_path / "set")
    samples = read_source(source, problem_type="multilabel")  # the only column with classes is the answer
    assert samples.classes == NAMES
    assert samples.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert "contains 'a'; choose another data.label_separator" in refuse(
        source, problem_type="multilabel", separator="a"
    )


def test_a_column_of_text_is_an_answer(tmp_path: Path) -> None:
    made = a_set([0] * 4, kind=["b", "a", "a", "b"])
    samples = read_source(saved(made, tmp_path / "set"), columns=Columns(label="kind"))
    assert samples.classes == ["a", "b"] and samples.labels.tolist() == [1, 0, 0, 1]


def test_the_only_column_with_classes_is_the_answer(tmp_path: Path) -> None:
    made = a_set([0, 1, 1, 0]).rename_column("label", "animal")
    assert read_source(saved(made, tmp_path / "one")).labels.tolist() == [0, 1, 1, 0]
    second = made.add_column("other", [0, 1, 1, 0]).cast_column("other", datasets.ClassLabel(names=["x", "y"]))
    message = refuse(saved(second, tmp_path / "two"))
    assert message.endswith("has no column 'label' (data.label_column); its columns are animal, other")


def test_one_of_several_columns_of_images_is_chosen(tmp_path: Path) -> None:
    cells = [{"bytes": encoded(9 + seed), "path": None} for seed in range(4)]
    made = a_set([0, 1, 1, 0], mask=cells).cast_column("mask", datasets.Image())
    source = saved(made, tmp_path / "set")
    assert read_source(source).paths[0].read_bytes() == encoded(0)
    assert read_source(source, columns=Columns(image="mask")).paths[0].read_bytes() == encoded(9)
    assert (
        "several columns of images (image, mask); choose one as data.image_column, which is 'msk'; did you"
        in refuse(source, columns=Columns(image="msk"))
    )
    only = made.remove_columns("mask").rename_column("image", "photo")
    assert read_source(saved(only, tmp_path / "only")).paths[0].read_bytes() == encoded(0)
    assert "has no column of images; its columns are label" in refuse(
        saved(made.remove_columns(["image", "mask"]), tmp_path / "none")
    )


def test_images_in_files_are_used_there_and_missing_ones_are_broken(tmp_path: Path, image: DecodedImage) -> None:
    files = [image(tmp_path / f"{number}.png", seed=number) for number in range(3)]
    cells: list[object] = [*map(str, files), str(tmp_path / "gone.png")]
    made = datasets.Dataset.from_dict({"image": cells, "label": ["a", "b", "a", "b"]})
    content = hub_sets._images("datasets/x", [made.cast_column("image", datasets.Image())], "image")
    assert list(content) == [*files, b""]


def test_a_blank_image_is_an_empty_file(tmp_path: Path) -> None:
    made = datasets.Dataset.from_dict({"image": [{"bytes": encoded(), "path": None}, None], "label": ["a", "a"]})
    samples = read_source(saved(made.cast_column("image", datasets.Image()), tmp_path / "set"), classes=["a", "b"])
    assert [path.stat().st_size > 0 for path in samples.paths] == [True, False]
    assert samples.paths[1].name == "00000001.bin"


def test_a_second_reading_does_not_import_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(a_set([0, 1, 1, 0]), tmp_path / "set")
    first = read_source(source)
    monkeypatch.setitem(sys.modules, "datasets", None)
    again = read_source(source)
    assert again.paths == first.paths and again.labels.tolist() == first.labels.tolist()
    folder = exported()[0]
    del first, again
    assert remove(folder)
    assert refuse(source).endswith("needs a package that is missing: pip install 'tl_lightning[datasets]'")


def test_a_folder_that_changed_is_exported_anew(tmp_path: Path) -> None:
    source = saved(a_set([0, 1, 1, 0]), tmp_path / "set")
    assert len(read_source(source)) == 4
    saved(a_set([0, 1, 1, 0, 1]), tmp_path / "set")
    assert len(read_source(source)) == 5


def test_a_name_and_its_configuration_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str, config: str | None) -> datasets.DatasetDict:
        asked.append((path, config))
        return datasets.DatasetDict({"train": a_set([0, 1, 1, 0])})

    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(datasets, "load_dataset", load)
    for source in ("datasets/me/pets", "datasets/me/pets:small", "datasets/me/pets", "datasets/me/pets:small"):
        assert read_source(source).classes == NAMES
    assert asked == [("me/pets", None), ("me/pets", "small")] and len(exported()) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach 'pets'\non the Hub"),
            "Couldn't reach 'pets' on the Hub; nor is there a folder datasets/pets or pets",
        ),
        (
            ValueError("Config name is missing.\nPick one"),
            "Config name is missing. Pick one; name one as datasets/pets:CONFIG",
        ),
        (RuntimeError("no " * 500), "[...]; nor is there a folder datasets/pets or pets"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def load(path: str, config: str | None) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    said = refuse("datasets/pets")
    assert said.startswith("data.source datasets/pets cannot be loaded: ") and said.endswith(message)
    assert len(said) < 450 and exported() == []


def test_a_folder_named_like_a_set_is_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    folder.rename(tmp_path / "datasets" / "pets")
    monkeypatch.chdir(tmp_path)
    assert read_source("datasets/pets").classes == ["cat", "dog"]
    assert refuse("datasets/pets.csv") == "data.source datasets/pets.csv: there is no such table"


def test_a_set_needs_a_name() -> None:
    assert refuse("datasets/") == (
        "data.source datasets/ names no data set; datasets/NAME or datasets/FOLDER is expected"
    )


def test_a_folder_of_other_files_is_loaded_as_the_library_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    a_set([0, 1, 1, 0]).to_parquet(tmp_path / "set" / "train-00000.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    samples = read_source(f"datasets/{tmp_path}/set")
    assert samples.classes == NAMES and samples.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("problem_type", ["multiclass", "multilabel"])
def test_other_columns_do_not_hinder(tmp_path: Path, problem_type: ProblemType) -> None:
    made = a_set([0, 1, 1, 0], raw=[b"\0"] * 4, boxes=[[[1, 2]]] * 4, info=[{"a": 1}] * 4)
    assert len(read_source(saved(made, tmp_path / "set"), problem_type=problem_type, classes=NAMES)) == 4
