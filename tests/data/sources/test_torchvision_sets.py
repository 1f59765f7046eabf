import hashlib
import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tl_lightning.cli import main
from tl_lightning.core.cache_folder import cache_dir, entries, remove
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.sources import exports, torchvision_sets
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import read_source
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

CLASSES = ["plane", "car", "bird"]
TRAIN, TEST = [0, 1, 2, 2, 1, 0], [2, 0, 1, 1]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TL_DATA_DIR", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """CIFAR10 with ten images, in its own files; gives the pixels (n, 32, 32, 3) of both parts."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    pixels = {}

    def write(name: str, content: object) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    for part, labels in (("train", TRAIN), ("test", TEST)):
        rows = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        pixels[part] = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        listed = [[part, write(part, {"data": rows, "labels": labels})]]
        monkeypatch.setattr(torchvision.datasets.CIFAR10, f"{part}_list", listed)
    meta = {"filename": "meta", "key": "label_names", "md5": write("meta", {"label_names": CLASSES})}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", meta)
    return pixels


def put(monkeypatch: pytest.MonkeyPatch, name: str, make: object) -> None:
    monkeypatch.setattr(torchvision.datasets, name, make)


def exported() -> list[Path]:
    folder = cache_dir() / "images"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def refuse(source: str, **settings: object) -> str:
    with pytest.raises(UserError) as error:
        read_source(source, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pixels_labels_and_splits_are_those_of_torchvision(cifar: dict[str, np.ndarray]) -> None:
    samples = read_source("torchvision/CIFAR10")
    (folder,) = exported()
    assert samples.paths == [folder / "00000" / f"{index:08}.png" for index in range(10)]
    assert samples.classes == CLASSES and samples.labels.tolist() == TRAIN + TEST
    assert samples.split is not None and samples.split.tolist() == ["train"] * 6 + ["test"] * 4
    for path, pixels in zip(samples.paths, np.concatenate([cifar["train"], cifar["test"]]), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), pixels)


def test_a_second_reading_exports_nothing(cifar: object, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_source("torchvision/CIFAR10")
    monkeypatch.setattr(torchvision_sets, "_content", lambda *args: pytest.fail("exported again"))
    again = read_source("torchvision/CIFAR10")
    assert again.paths == first.paths and again.labels.tolist() == first.labels.tolist()
    assert again.classes == first.classes and again.split.tolist() == first.split.tolist()
    first.paths[3].unlink()
    with pytest.raises(pytest.fail.Exception):
        read_source("torchvision/CIFAR10")


def test_a_second_reading_needs_no_torchvision(cifar: object) -> None:
    read_source("torchvision/CIFAR10")
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from tl_lightning.data.sources.read import read_source\n"
        "print(len(read_source('torchvision/CIFAR10')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "10\n", ran.stderr


def test_an_export_is_the_same_to_the_store_when_it_is_made_again(cifar: object, small: ImagePreprocess) -> None:
    paths = read_source("torchvision/CIFAR10").paths
    key = ImageStore.open(paths, small).key
    folder, times = paths[0].parents[1], [path.stat().st_mtime_ns for path in paths]
    assert len(set(times)) == len(times) and max(times) < 2**31 * 10**9
    del paths
    assert remove(folder)
    paths = read_source("torchvision/CIFAR10").paths
    assert [path.stat().st_mtime_ns for path in paths] == times and ImageStore.open(paths, small).key == key


def test_an_export_in_use_is_kept(cifar: object) -> None:
    samples = read_source("torchvision/CIFAR10")
    assert not remove(exported()[0])
    paths = samples.paths
    del samples
    assert not remove(exported()[0])
    del paths
    assert remove(exported()[0]) and exported() == []


def test_a_copy_of_the_paths_in_a_worker_holds_nothing(cifar: object) -> None:
    paths = read_source("torchvision/CIFAR10").paths
    copy = pickle.loads(pickle.dumps(paths))
    assert copy == paths and isinstance(copy, exports.HeldPaths)
    del paths
    assert remove(exported()[0])


@pytest.mark.parametrize("error", [RuntimeError("no decoder"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_nothing(
    cifar: object, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(image: object) -> bytes:
        if len(list(cache_dir().rglob("*.png"))) == 3:
            raise error
        return as_png(image)

    as_png = torchvision_sets._as_png
    monkeypatch.setattr(torchvision_sets, "_as_png", interrupted)
    with pytest.raises(type(error)):
        read_source("torchvision/CIFAR10")
    assert exported() == [] and list((cache_dir() / "images").rglob("*unfinished*")) == []
    monkeypatch.undo()


def test_of_two_processes_one_exports(cifar: object, monkeypatch: pytest.MonkeyPatch) -> None:
    content = torchvision_sets._content

    def with_another(name: str, root: Path) -> exports.Content:
        # While this one has the lock another comes; it must wait, and find what was written.
        code = "from tl_lightning.data.sources.read import read_source; print(len(read_source('torchvision/CIFAR10')))"
        others.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert others[0].stdout is not None
        assert "waiting for another process that exports torchvision/CIFAR10" in others[0].stdout.readline()
        return content(name, root)

    others: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(torchvision_sets, "_content", with_another)
    samples = read_source("torchvision/CIFAR10")
    printed, _ = others[0].communicate(timeout=60)
    assert printed.strip() == str(len(samples)) == "10"  # the other has files of another checksum: it read ours


def test_the_cache_list_names_the_set(cifar: object, capsys: pytest.CaptureFixture[str]) -> None:
    samples = read_source("torchvision/CIFAR10")
    assert main(["cache", "list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "CIFAR10" in line]
    kind, key, done, _, rows, *_ = line.split()
    assert (kind, key, done, rows) == ("images", samples.paths[0].parents[1].name, "10", "10")
    assert line.endswith("in use  exported files, torchvision/CIFAR10")


def test_files_of_a_set_are_used_where_they_are(root: Path, image: Callable[..., Path]) -> None:
    names = {"train": {"soup": [0, 1], "cake": [2, 3]}, "test": {"soup": [4], "cake": [5]}}
    (root / "food-101" / "meta").mkdir(parents=True)
    for split, classes in names.items():
        listed = {kind: [f"{kind}/{number}" for number in numbers] for kind, numbers in classes.items()}
        (root / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for name in (name for files in listed.values() for name in files):
            image(root / "food-101" / "images" / f"{name}.jpg")
    samples = read_source("torchvision/Food101")
    shown = [str(path.relative_to(root / "food-101" / "images")) for path in samples.paths]
    assert shown == ["soup/0.jpg", "soup/1.jpg", "cake/2.jpg", "cake/3.jpg", "soup/4.jpg", "cake/5.jpg"]
    assert samples.classes == ["cake", "soup"] and samples.labels.tolist() == [1, 1, 0, 0, 1, 0]
    assert samples.split is not None and samples.split.tolist() == ["train"] * 4 + ["test"] * 2
    assert sorted(path.name for path in exported()[0].iterdir()) == ["about.json", "listing.json"]


class Small(torchvision.datasets.FakeData):
    """Six images without names of classes and without splits, as other sets have them."""

    def __init__(self, size: int = 6, transform: None = None) -> None:
        super().__init__(size, (3, 8, 8), 2)


def test_a_set_without_splits_or_names_has_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, "FakeData", Small)
    samples = read_source("torchvision/FakeData")
    expected = [Small()[index] for index in range(6)]
    assert samples.split is None and samples.classes == ["0", "1"]
    assert samples.labels.tolist() == [number for _, number in expected]
    for path, (image, _) in zip(samples.paths, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(image))


class Listed:
    """A set of given answers; as those of torchvision it knows its splits and refuses others in their words."""

    images = Image.new("CMYK", (4, 4), (10, 20, 30, 0))
    parts: ClassVar[dict[str, list[object]]] = {}
    classes: object = None

    def __init__(self, root: str, split: str = "train") -> None:
        if split not in self.parts:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {set(self.parts)}.")
        self.numbers = self.parts[split]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[object, object]:
        return self.images, self.numbers[index]


def listed(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    put(monkeypatch, "SVHN", type("SVHN", (Listed,), attributes))


def test_other_names_of_splits_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, parts={"trainval": [0, 1], "valid": [1], "extra": [0]}, classes=["a", "b"])
    samples = read_source("torchvision/SVHN")
    assert samples.split is not None and samples.split.tolist() == ["train", "train", "val"]
    assert samples.labels.tolist() == [0, 1, 1]
    with Image.open(samples.paths[0]) as image:
        assert image.mode == "RGB"


def test_names_of_classes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [("crane", "bird"), ("drake",), ("drake",)]
    listed(monkeypatch, parts={"train": [0, 1, 2], "test": [2]}, classes=names)
    assert read_source("torchvision/SVHN").classes == ["crane, bird", "drake (1)", "drake (2)"]


def test_numbers_of_a_dictionary_are_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, parts={"train": [0, 1], "test": [0]}, class_to_idx={"b": 0, "a": 1})
    samples = read_source("torchvision/SVHN")
    assert samples.classes == ["b", "a"] and samples.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "answer", [None, True, 0.5, [1, 2], np.array([1, 2]), torch.tensor([1, 0]), {"box": 1}, Image.new("L", (2, 2))]
)
def test_other_sets_are_refused(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    listed(monkeypatch, parts={"train": [0, answer]})
    assert refuse("torchvision/SVHN") == "data.source torchvision/SVHN is no set of images with one class each"
    assert exported() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "torchvision has no data set 'cifar10'; did you mean CIFAR10?"),
        ("Flowers", "torchvision has no data set 'Flowers'; did you mean Flowers102?"),
        ("EMNIST", "torchvision/EMNIST is not supported: the set has to be told split"),
    ],
)
def test_a_set_that_cannot_be_had_is_named(name: str, message: str) -> None:
    assert message in refuse(f"torchvision/{name}")


def test_without_a_network_one_line_names_the_set_and_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **settings: object) -> None:
        raise URLError("Name or service\nnot known")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    assert refuse("torchvision/CIFAR10") == (
        "data.source torchvision/CIFAR10 cannot be read: <urlopen error Name or service not known>; "
        f"without a network, put its files into {root} as torchvision lays them out there"
    )
    assert not any(entry.finished for entry in entries())


def test_a_damaged_split_is_no_missing_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(self: Listed, root: str, split: str = "train") -> None:
        raise ValueError("bad zip")

    listed(monkeypatch, parts={"train": [0]}, __init__=damaged)
    assert "torchvision/SVHN cannot be read: bad zip" in refuse("torchvision/SVHN")


def test_the_patience_with_servers_ends_with_the_reading(cifar: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: object) -> None:
        seen.append(socket.getdefaulttimeout())

    seen: list[float | None] = []
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", download)
    read_source("torchvision/CIFAR10")
    assert seen == [torchvision_sets.PATIENCE] * 2 and socket.getdefaulttimeout() is None


def test_a_full_disk_is_one_line(cifar: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    message = refuse("torchvision/CIFAR10")
    assert message.startswith("the images of torchvision/CIFAR10 cannot be written to") and "No space left" in message


def test_a_folder_of_that_name_is_taken_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    folder.rename(tmp_path / "torchvision" / "CIFAR10")
    monkeypatch.chdir(tmp_path)
    assert read_source("torchvision/CIFAR10").classes == ["cat", "dog"]


def test_a_set_has_one_answer(cifar: object) -> None:
    message = refuse("torchvision/CIFAR10", columns=Columns(label="kind"))
    assert message.endswith("has no column 'kind' (data.label_column); its columns are label, split")
