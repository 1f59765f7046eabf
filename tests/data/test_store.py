import errno
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tl_lightning.data import store as module
from tl_lightning.data.pictures import read_picture, resize
from tl_lightning.data.store import PictureStore, default_cache_dir
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess

Picture = Callable[..., Path]


@pytest.fixture
def paths(tmp_path: Path, picture: Picture) -> list[Path]:
    sizes = [(24, 20), (30, 60), (9, 7)]
    made = [picture(tmp_path / f"{i}.png", size=size, seed=i) for i, size in enumerate(sizes)]
    return [*made, picture(tmp_path / "grey.png", mode="L")]


def stores() -> list[Path]:
    folder = default_cache_dir() / "pictures"
    return sorted(folder.iterdir()) if folder.exists() else []


def decoding_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise AssertionError(f"decoded {path} again")

    monkeypatch.setattr(module, "read_picture", fail)


def test_pictures_come_back_as_resized_in_their_own_shapes(paths: list[Path], small: Preprocess) -> None:
    store = PictureStore.open(paths, small)
    assert len(store) == 4 and store.broken == {}
    assert [tuple(store[i].shape) for i in range(4)] == [(3, 20, 24), (3, 40, 20), (3, 20, 25), (1, 20, 24)]
    for index, path in enumerate(paths):
        assert np.array_equal(store[index].permute(1, 2, 0).numpy(), resize(read_picture(path), small))


def test_a_second_opening_decodes_nothing(
    paths: list[Path], small: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PictureStore.open(paths, small)
    decoding_is_forbidden(monkeypatch)
    again = PictureStore.open(paths, replace(small, mean=(0.1, 0.1, 0.1), std=(0.9, 0.9, 0.9)))
    assert again.folder == first.folder and torch.equal(again[2], first[2])
    with pytest.raises(AssertionError):
        PictureStore.open(paths, replace(small, interpolation="bicubic"))


def test_a_changed_file_is_decoded_anew(paths: list[Path], small: Preprocess, picture: Picture) -> None:
    before = PictureStore.open(paths, small)[0]
    times = paths[0].stat()
    picture(paths[0], size=(24, 20), seed=99)
    os.utime(paths[0], ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    after = PictureStore.open(paths, small)[0]
    assert not torch.equal(before, after) and len(stores()) == 2


def test_an_interrupted_writing_leaves_nothing(
    paths: list[Path], small: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_flush_to_disk", interrupt)
    with pytest.raises(KeyboardInterrupt):
        PictureStore.open(paths, small)
    assert stores() == []


def test_a_full_disk_is_one_clear_line(paths: list[Path], small: Preprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(module, "_flush_to_disk", fill)
    with pytest.raises(UserError) as error:
        PictureStore.open(paths, small)
    folder = default_cache_dir() / "pictures"
    assert str(error.value) == (
        f"the cache of decoded pictures cannot be written to {folder}: No space left on device; "
        "make room there, or set TL_CACHE_DIR to another folder"
    )
    assert stores() == []


def test_the_store_of_a_faster_process_is_used(
    paths: list[Path], small: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._write_store

    def write_twice(folder: Path, paths: list[Path], preprocess: Preprocess) -> None:
        real(folder, paths, preprocess)
        (folder / "theirs").touch()
        real(folder, paths, preprocess)

    monkeypatch.setattr(module, "_write_store", write_twice)
    store = PictureStore.open(paths, small)
    assert stores() == [store.folder] and (store.folder / "theirs").exists()


def test_broken_pictures_are_remembered_with_their_reasons(
    paths: list[Path], small: Preprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths[1].write_bytes(b"")
    store = PictureStore.open(paths, small)
    decoding_is_forbidden(monkeypatch)
    assert store.broken == PictureStore.open(paths, small).broken == {1: "empty file"}
    assert store[2].shape == (3, 20, 25)
    with pytest.raises(IndexError, match="picture 1 is broken: empty file"):
        store[1]


def test_a_pickled_store_carries_no_pixels(paths: list[Path], small: Preprocess) -> None:
    store = PictureStore.open(paths, small)
    pixels = store[0]
    copy = pickle.loads(pickle.dumps(store))
    assert copy._pixels is None and torch.equal(copy[0], pixels)


def test_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "tl_lightning"
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
