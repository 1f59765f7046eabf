import errno
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tl_lightning.core import cache_folder
from tl_lightning.core.cache_folder import cache_dir, entries, remove
from tl_lightning.core.cache_room import make_room
from tl_lightning.data.images import store as module
from tl_lightning.data.images.preparing import read_resized
from tl_lightning.data.images.store import ImageStore
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

DecodedImage = Callable[..., Path]


@pytest.fixture
def paths(tmp_path: Path, image: DecodedImage) -> list[Path]:
    sizes = [(24, 20), (30, 60), (9, 7)]
    made = [image(tmp_path / f"{i}.png", size=size, seed=i) for i, size in enumerate(sizes)]
    return [*made, image(tmp_path / "grey.png", mode="L")]


def stores() -> list[Path]:
    folder = cache_dir() / "images"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def decoding_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, preprocess: ImagePreprocess) -> None:
        raise AssertionError(f"decoded {path} again")

    monkeypatch.setattr(module, "read_resized", fail)


def test_images_come_back_as_resized_in_their_own_shapes(paths: list[Path], small: ImagePreprocess) -> None:
    store = ImageStore.open(paths, small)
    assert len(store) == 4 and store.broken == {}
    assert [tuple(store[i].shape) for i in range(4)] == [(3, 20, 24), (3, 40, 20), (3, 20, 25), (1, 20, 24)]
    for index, path in enumerate(paths):
        assert np.array_equal(store[index].permute(1, 2, 0).numpy(), read_resized(path, small))


def test_a_second_opening_decodes_nothing(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ImageStore.open(paths, small)
    decoding_is_forbidden(monkeypatch)
    again = ImageStore.open(paths, replace(small, mean=(0.1, 0.1, 0.1), std=(0.9, 0.9, 0.9)))
    assert again.folder == first.folder and torch.equal(again[2], first[2])
    with pytest.raises(AssertionError):
        ImageStore.open(paths, replace(small, interpolation="bicubic"))


def test_a_changed_file_is_decoded_anew(paths: list[Path], small: ImagePreprocess, image: DecodedImage) -> None:
    before = ImageStore.open(paths, small)[0]
    times = paths[0].stat()
    image(paths[0], size=(24, 20), seed=99)
    os.utime(paths[0], ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    after = ImageStore.open(paths, small)[0]
    assert not torch.equal(before, after) and len(stores()) == 2


def test_an_interrupted_writing_leaves_nothing(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_folder, "flush_to_disk", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ImageStore.open(paths, small)
    assert stores() == []


def test_a_full_disk_is_one_clear_line(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_folder, "flush_to_disk", fill)
    with pytest.raises(UserError) as error:
        ImageStore.open(paths, small)
    folder = cache_dir() / "images"
    assert str(error.value) == (
        f"the cache of decoded images cannot be written to {folder}: No space left on device; "
        "make room there, or set TL_CACHE_DIR to another folder"
    )
    assert stores() == []


def test_the_store_of_a_faster_process_is_used(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._write_store

    def write_twice(folder: Path, paths: list[Path], preprocess: ImagePreprocess) -> None:
        real(folder, paths, preprocess)
        (folder / "theirs").touch()
        real(folder, paths, preprocess)

    monkeypatch.setattr(module, "_write_store", write_twice)
    store = ImageStore.open(paths, small)
    assert stores() == [store.folder] and (store.folder / "theirs").exists()


def test_broken_images_are_remembered_with_their_reasons(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths[1].write_bytes(b"")
    store = ImageStore.open(paths, small)
    decoding_is_forbidden(monkeypatch)
    assert store.broken == ImageStore.open(paths, small).broken == {1: "empty file"}
    assert store[2].shape == (3, 20, 25)
    with pytest.raises(IndexError, match="image 1 is broken: empty file"):
        store[1]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT])
def test_a_failing_machine_says_nothing_about_the_image(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = io.FileIO

    def fail(path: Path) -> Any:
        if path == paths[1]:
            raise OSError(number, os.strerror(number))
        return real(path)

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(io, "FileIO", fail)
        ImageStore.open(paths, small)
    assert str(error.value) == f"{paths[1]} cannot be read now: {os.strerror(number)}; try again"
    assert stores() == [] and ImageStore.open(paths, small).broken == {}


def test_a_image_that_goes_away_meanwhile_is_not_remembered_as_missing(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_first(path: Path, preprocess: ImagePreprocess) -> Any:
        paths[1].unlink(missing_ok=True)
        return read_resized(path, preprocess)

    content = paths[1].read_bytes()
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"1.png went away while .*; try again"):
        patch.setattr(module, "read_resized", remove_first)
        ImageStore.open(paths, small)
    assert stores() == [] and ImageStore.open(paths, small).broken == {1: "no such file"}
    paths[1].write_bytes(content)
    assert ImageStore.open(paths, small).broken == {}


def test_what_changes_the_stored_pixels_makes_another_store(paths: list[Path], small: ImagePreprocess) -> None:
    settings = [small, small.with_channels(1), small.with_pixel_range([0, 127])]
    opened = [ImageStore.open(paths, preprocess) for preprocess in settings]
    assert len({store.key for store in opened}) == 3
    assert torch.equal(opened[2][3], (opened[0][3].double() * 255 / 127).round().clamp(max=255).byte())


def test_a_pickled_store_carries_no_pixels(paths: list[Path], small: ImagePreprocess) -> None:
    store = ImageStore.open(paths, small)
    pixels = store[0]
    copy = pickle.loads(pickle.dumps(store))
    assert copy._pixels is None and torch.equal(copy[0], pixels)


@pytest.mark.parametrize("name", ["index.npz", "broken.json", "pixels.bin"])
@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_a_damaged_store_is_made_anew(paths: list[Path], small: ImagePreprocess, name: str, damage: str) -> None:
    store = ImageStore.open(paths, small)
    pixels = store[3]
    file = store.folder / name
    del store
    if damage == "gone":
        file.unlink()
    elif name != "broken.json":
        file.write_bytes(file.read_bytes()[:-10])
    assert torch.equal(ImageStore.open(paths, small)[3], pixels)


def test_a_store_is_left_alone_while_it_is_open(paths: list[Path], small: ImagePreprocess) -> None:
    store = ImageStore.open(paths, small)
    assert not remove(store.folder)
    assert torch.equal(store[0], ImageStore.open(paths, small)[0])
    folder = store.folder
    del store
    assert remove(folder) and stores() == []


def test_a_store_says_what_it_holds(paths: list[Path], small: ImagePreprocess) -> None:
    paths[1].write_bytes(b"")
    store = ImageStore.open(paths, small)
    (entry,) = entries()
    assert (entry.kind, entry.key, entry.in_use) == ("images", store.key, True)
    view = "20 pixels, center, bilinear"
    assert entry.about == {"source": str(paths[0].parent), "view": view, "rows": 4, "done": 3}
    assert entry.about == json.loads((store.folder / "about.json").read_text())


def test_room_is_made_for_a_new_store_and_none_is_no_obstacle(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def note(needed: int, *, all_or_nothing: bool) -> None:
        asked.append(needed)
        make_room(needed, all_or_nothing=all_or_nothing)

    monkeypatch.setattr(module, "make_room", note)
    monkeypatch.setenv("TL_CACHE_SIZE", "0B")
    assert len(ImageStore.open(paths, small)) == len(ImageStore.open(paths, small)) == 4
    assert asked == [3 * 20 * 20 * 4]


def test_a_store_that_another_process_is_making_is_waited_for(
    paths: list[Path], small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def wait(folder: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
        on_wait()
        module._write_store(folder, paths, small)  # what the other process does
        decoding_is_forbidden(monkeypatch)
        yield

    monkeypatch.setattr(module, "building", wait)
    assert len(ImageStore.open(paths, small)) == 4
    assert capsys.readouterr().out == "waiting for another process that is decoding the same images\n"
