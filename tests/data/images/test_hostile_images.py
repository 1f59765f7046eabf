import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hostile import RGB, WIDE, Case, cases, encoded, png, tiff, write
from PIL import Image

from tl_lightning.data.images.decoding import DecodedImage
from tl_lightning.data.images.formats import SUFFIXES, suffix_of
from tl_lightning.data.images.image_files import quiet_decoders, read_image
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.images.preparing import prepare, resize
from tl_lightning.data.images.store import ImageStore
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

CASES = cases()


def preprocess_for(case: Case, small: ImagePreprocess) -> ImagePreprocess:
    return small.with_channels(case.channels).with_pixel_range(case.pixel_range)


def in_time(function: Any, *arguments: Any) -> Any:
    """What a function returns or raises; fails where it hangs."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function(*arguments))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert outcome, f"{function.__name__} hangs on {arguments[0]}"
    return outcome[0]


def test_there_are_many_and_each_has_one_outcome() -> None:
    assert len(CASES) == len({case.name for case in CASES}) > 100
    assert all((case.pixels is None) != (case.reason is None) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name))
def test_each_is_read_as_it_should_or_broken_with_its_reason(
    case: Case, tmp_path: Path, small: ImagePreprocess
) -> None:
    needed = [each for each in CASES if each.name == "good.png"] * (case.name != "good.png")
    path = write(tmp_path / "files", [*needed, case])[-1]
    with quiet_decoders():
        found = in_time(read_image, path, preprocess_for(case, small))
    if case.pixels is None:
        assert isinstance(found, BrokenImage), found
        assert str(found).startswith(case.reason or "") and "\n" not in str(found) and len(str(found)) < 200
    else:
        assert isinstance(found, DecodedImage), found
        assert found.pixels.dtype == np.uint8 and found.pixels.shape == case.pixels.shape
        assert np.abs(found.pixels.astype(int) - case.pixels).max() <= case.off
        assert found.size == case.pixels.shape[1::-1]


@pytest.mark.parametrize("settings", sorted({(case.channels, case.pixel_range) for case in CASES}, key=str))
def test_a_store_holds_them_or_remembers_why_not(settings: Any, tmp_path: Path, small: ImagePreprocess) -> None:
    paths = write(tmp_path / "files", CASES)
    chosen = [i for i, case in enumerate(CASES) if (case.channels, case.pixel_range) == settings]
    preprocess = preprocess_for(CASES[chosen[0]], small)
    store = in_time(ImageStore.open, [paths[i] for i in chosen], preprocess)
    assert isinstance(store, ImageStore), store
    assert set(store.broken) == {place for place, i in enumerate(chosen) if CASES[i].pixels is None}
    for place, i in enumerate(chosen):
        pixels = CASES[i].pixels
        if pixels is None:
            assert store.broken[place].startswith(CASES[i].reason or "")
            continue
        size = pixels.shape[1::-1]
        expected = resize(DecodedImage(pixels, size, (0, 0, *size)), preprocess).astype(int)
        assert np.abs(store[place].permute(1, 2, 0).numpy() - expected).max() <= CASES[i].off


@pytest.fixture
def data_set(tmp_path: Path) -> tuple[Path, list[Case]]:
    """All that a folder is searched for, as one of two classes."""
    some = [case for case in CASES if (case.channels, case.pixel_range) == (3, None)]
    paths = write(tmp_path / "data" / "odd", some)
    (tmp_path / "data" / "circle").symlink_to("..", target_is_directory=True)
    (tmp_path / "data" / "odd" / "circle").symlink_to("..", target_is_directory=True)
    write(
        tmp_path / "data" / "even", [Case(f"{i}.png", lambda path: path.write_bytes(png(RGB, 8, 2))) for i in range(9)]
    )
    listed = [
        case for case, path in zip(some, paths, strict=True) if not path.is_dir() and suffix_of(path.name) in SUFFIXES
    ]
    return tmp_path / "data", listed


def test_a_folder_of_them_stops_with_one_line_that_names_ten(data_set: Any, small: ImagePreprocess) -> None:
    folder, listed = data_set
    data = ImageDataModule(str(folder), small.to_dict(), num_workers=0)
    pages = {"five pages.tif": 4}  # beside the first
    images = len(listed) + 9 + sum(pages.get(case.name, 0) for case in listed)
    assert len(data.samples) == images and data.classes == ["even", "odd"]
    with pytest.raises(UserError) as error:
        data.setup("fit")
    broken = sum(case.pixels is None for case in listed)
    line = str(error.value)
    assert line.startswith(f"{broken} of {images} images of {folder} cannot be read: ")
    assert line.count(f"{folder}/odd/") == 10 and f" and {broken - 10} more; mend them, or leave them out" in line
    assert line.isprintable()


def test_a_folder_of_them_trains_without_the_broken_ones(data_set: Any, small: ImagePreprocess) -> None:
    folder, listed = data_set
    data = ImageDataModule(str(folder), small.to_dict(), num_workers=0, batch_size=4, on_error="skip")
    data.setup("fit")
    broken = {case.name for case in listed if case.pixels is None}
    assert data.skipped == data.summary()["skipped"] == len(broken)
    read: list[str] = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert batch["image"].shape[1:] == (3, 16, 16)
            read += [data.samples.paths[i].name for i in batch["index"].tolist()]
    assert not broken & set(read) and len(read) == len(set(read)) > 80


FORMATS: dict[str, Callable[[], bytes]] = {
    "a.jpg": lambda: encoded(RGB, "JPEG"),
    "a.png": lambda: encoded(RGB, "PNG"),
    "a.gif": lambda: encoded(RGB, "GIF"),
    "a.webp": lambda: encoded(RGB, "WEBP"),
    "pil.tif": lambda: tiff(RGB, photometric="rgb"),
    "libtiff.tif": lambda: encoded(RGB, "TIFF", compression="tiff_lzw"),
    "tifffile.tif": lambda: tiff(WIDE, photometric="rgb"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_error_of_the_disk_is_never_taken_for_damage(
    name: str, tmp_path: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(FORMATS[name]())
    calls = failing = 0

    class Failing(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().readinto(memoryview(buffer)[:50])

        def readall(self) -> bytes:
            content, part = b"", bytearray(50)
            while size := self.readinto(part):
                content += part[:size]
            return content

    monkeypatch.setattr(io, "FileIO", Failing)
    with quiet_decoders():
        read_image(tmp_path / name, small)
        assert calls > 3
        for number in range(1, calls + 1):
            calls, failing = 0, number
            with pytest.raises(UserError, match=f"{name} cannot be read now: Input/output error; try again"):
                read_image(tmp_path / name, small)


def test_large_images_are_read_until_they_are_unsafe(
    tmp_path: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "tifffile.tif"):
        path = tmp_path / name
        path.write_bytes(FORMATS[name]())
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9 * 12 - 1)
        with quiet_decoders():
            assert read_image(path, small).pixels.shape == (9, 12, 3)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9 * 12 // 2 - 1)
        with pytest.raises(BrokenImage, match="too many pixels to be safe"):
            read_image(path, small)


def test_not_enough_memory_says_nothing_about_the_image(
    tmp_path: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    (tmp_path / "a.png").write_bytes(FORMATS["a.png"]())
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"a\.png cannot be read now: not enough memory"):
        read_image(tmp_path / "a.png", small)


def test_a_forbidden_file_says_so(tmp_path: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(path: Path) -> None:  # root, as whom tests may run, may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "a.png").write_bytes(FORMATS["a.png"]())
    monkeypatch.setattr(io, "FileIO", forbid)
    with pytest.raises(BrokenImage, match=r"^no permission to read it$"):
        read_image(tmp_path / "a.png", small)


@pytest.mark.parametrize("package", ["tifffile", "imagecodecs"])
def test_a_missing_package_is_named_and_nothing_is_remembered(
    package: str, tmp_path: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(WIDE, photometric="rgb", compression="lzw"))

    def refuse(page: Any) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        if package == "tifffile":
            patch.setitem(sys.modules, "tifffile", None)
        else:
            patch.setattr(tifffile.TiffPage, "asarray", refuse)
        ImageStore.open([path], small)
    needs = f"{path} is a TIFF file that needs the package {package}: pip install 'tl_lightning[tiff]'"
    assert str(error.value) == needs
    assert ImageStore.open([path], small).broken == {}


def test_prediction_sees_the_pixels_of_training(tmp_path: Path, small: ImagePreprocess) -> None:
    preprocess = small.with_pixel_range((0, 4095))
    path = tmp_path / "a.png"
    path.write_bytes(png(WIDE // 16, 16, 2))
    stored = ImageStore.open([path], preprocess)[0]
    again = ImagePreprocess.from_dict(preprocess.to_dict())
    assert np.array_equal(prepare(path, again).numpy(), stored[:, 2:18, 5:21].numpy())
