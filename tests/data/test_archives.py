"""Images within zip and tar archives are read as those on the disk are; what cannot be trusted is refused."""

import multiprocessing
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from packed import png, tree, write_tar, write_zip

from tl_lightning.data.archives import members
from tl_lightning.data.archives.files import archive_at, entries, is_file, is_folder, open_file, state_of
from tl_lightning.data.images.image_files import read_image
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.sources.read import find_files, list_source, read_source
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

PACKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "x.zip": write_zip,
    "stored.zip": lambda path, files: write_zip(path, files, packing=zipfile.ZIP_STORED),
    "x.tar": write_tar,
    "x.tar.gz": lambda path, files: write_tar(path, files, mode="w:gz"),
    "x.tbz": lambda path, files: write_tar(path, files, mode="w:bz2"),
    "x.txz": lambda path, files: write_tar(path, files, mode="w:xz"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse(source: Path | str, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        read_source(str(source), **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def unpack(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_is_the_folder_that_was_packed(name: str, tmp_path: Path, small: ImagePreprocess) -> None:
    packed = PACKERS[name](tmp_path / name, tree())
    folder = unpack(tmp_path / "folder", tree())
    one, other = (ImageDataModule(str(source), small.to_dict(), num_workers=0) for source in (packed, folder))
    assert [str(path.relative_to(packed)) for path in one.samples.paths] == [
        str(path.relative_to(folder)) for path in other.samples.paths
    ]
    assert one.classes == other.classes == ["cat", "dog"]
    assert {split: rows.tolist() for split, rows in one.splits.items()} == {
        split: rows.tolist() for split, rows in other.splits.items()
    }
    one.prepare_data(), one.setup("fit"), other.setup("fit")
    assert all(torch.equal(one.store.sample(i)["image"], other.store.sample(i)["image"]) for i in range(16))
    assert [path.name for path in find_files(str(packed))] == [path.name for path in find_files(str(folder))]


def test_a_path_goes_on_behind_the_archive(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "x.zip", tree())
    image = packed / "cat" / "3.png"
    with open_file(image) as file:
        assert file.read() == png(3, mean=60)
    assert state_of(image).size == len(png(3, mean=60)) and state_of(image).time == packed.stat().st_mtime_ns
    assert is_file(image) and is_folder(packed) and is_folder(image.parent) and not is_folder(image)
    assert sorted(entries(packed)) == [packed / "cat", packed / "dog"]
    for missing in (packed / "cat" / "99.png", image / "x", tmp_path / "y.zip" / "a"):
        assert not is_file(missing) and not is_folder(missing)
        with pytest.raises(FileNotFoundError):
            open_file(missing)


def _sizes(paths: list[Path]) -> list[int]:
    return [len(open_file(path).read()) for path in paths]


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_processes_and_threads_read_at_once(name: str, tmp_path: Path) -> None:
    paths = find_files(str(PACKERS[name](tmp_path / name, tree(24))))
    sizes = _sizes(paths)  # the archive is open here
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(_sizes, [paths] * 8)) == [sizes] * 8
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, context) as processes:
        assert list(processes.map(_sizes, [paths] * 4)) == [sizes] * 4


def test_a_changed_archive_is_read_anew(tmp_path: Path, small: ImagePreprocess) -> None:
    packed = write_zip(tmp_path / "x.zip", tree())
    before = ImageDataModule(str(packed), small.to_dict()).open_store().key
    assert ImageDataModule(str(packed), small.to_dict()).open_store().key == before
    write_zip(packed, {**tree(), "cat/0.png": png(77)})
    os.utime(packed, ns=(1, 1))
    changed = ImageDataModule(str(packed), small.to_dict())
    with open_file(changed.samples.paths[0]) as file:
        assert file.read() == png(77)
    assert changed.open_store().key != before


def test_broken_images_in_an_archive_are_named(tmp_path: Path, small: ImagePreprocess) -> None:
    packed = write_zip(tmp_path / "x.zip", {**tree(), "cat/0.png": b"", "dog/1.png": png()[:200]})
    with pytest.raises(UserError, match=r"x\.zip/cat/0\.png \(empty file\)"):
        ImageDataModule(str(packed), small.to_dict()).setup("fit")
    data = ImageDataModule(str(packed), small.to_dict(), on_error="skip")
    data.setup("fit")
    assert data.skipped == 2


def test_a_member_whose_bytes_changed_is_damaged(tmp_path: Path, small: ImagePreprocess) -> None:
    packed = write_zip(tmp_path / "x.zip", tree(), packing=zipfile.ZIP_STORED)
    content = bytearray(packed.read_bytes())
    content[content.index(png(3, mean=60)) + 200] ^= 255
    packed.write_bytes(content)
    with pytest.raises(BrokenImage, match="damaged: Bad CRC-32"):
        read_image(packed / "cat" / "3.png", small)


def test_a_damaged_table_in_an_archive_is_one_line(tmp_path: Path) -> None:
    packed = write_zip(
        tmp_path / "x.zip", {**tree(1), "t.csv": b"image,label\ncat/0.png,cat\n"}, packing=zipfile.ZIP_STORED
    )
    packed.write_bytes(packed.read_bytes().replace(b"image,label", b"imago,label"))
    assert "t.csv cannot be read as a UTF-8 CSV table: Bad CRC-32" in refuse(packed)


def test_the_same_image_twice_in_an_archive_is_found(tmp_path: Path, small: ImagePreprocess) -> None:
    packed = write_tar(tmp_path / "x.tar", {**tree(), "cat/copy.png": png(3, mean=60)})
    data = ImageDataModule(str(packed), small.to_dict())
    found = data.duplicates(data.open_store())
    assert [each.kind for each in found] == ["file"]
    assert {data.samples.paths[i].name for i in (found[0].first, found[0].second)} == {"3.png", "copy.png"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_one_folder_at_the_top_and_what_a_mac_adds(name: str, tmp_path: Path) -> None:
    added = {"__MACOSX/pets/cat/._0.png": b"x", "pets/.DS_Store": b"x", "pets/cat/._1.png": b"x"}
    samples = read_source(str(PACKERS[name](tmp_path / name, {**tree(top="./pets/"), **added})))
    assert samples.classes == ["cat", "dog"] and len(samples) == 16


def test_a_name_that_tells_nothing_and_what_is_left_out(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "x.zip", {**tree(2), "cat/IMG_7": png(7), "cat/notes.txt": b"x", "dog/plan": b"x"})
    listing = list_source(str(packed))
    assert len(listing.paths) == 5 and packed / "cat" / "IMG_7" in listing.paths
    assert listing.notes == [f"left out are 2 files in {packed}: 1 .txt, 1 without a suffix"]


def test_splits_in_an_archive(tmp_path: Path) -> None:
    files = {f"pets/{split}/{name}": content for split in ("train", "valid") for name, content in tree(2).items()}
    samples = read_source(str(write_zip(tmp_path / "x.zip", files)))
    assert samples.classes == ["cat", "dog"] and samples.split is not None
    assert samples.split.tolist() == ["train"] * 4 + ["val"] * 4


def test_a_zip_beside_class_folders_is_no_class(tmp_path: Path) -> None:
    unpack(tmp_path / "pets", tree(2))
    write_zip(tmp_path / "pets" / "old.zip", tree(2))
    assert read_source(str(tmp_path / "pets")).classes == ["cat", "dog"]


def test_a_table_names_images_in_archives(tmp_path: Path) -> None:
    write_zip(tmp_path / "x.zip", tree(1))
    write_tar(tmp_path / "x.tar", tree(1))
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(
        f"{name}/{kind}/0.png,{kind}\n" for name in ("x.zip", "x.tar") for kind in ("cat", "dog")
    ))  # fmt: skip
    assert len(read_source(str(tmp_path / "t.csv"))) == 4


def test_a_table_in_an_archive(tmp_path: Path) -> None:
    text = "image,label\n" + "".join(f"{name},{name[:3]}\n" for name in tree(2))
    packed = write_zip(
        tmp_path / "x.zip", {f"pets/{name}": body for name, body in {**tree(2), "t.csv": text.encode()}.items()}
    )
    samples = read_source(str(packed))
    assert samples.classes == ["cat", "dog"] and samples.paths[0] == packed / "pets" / "cat" / "0.png"


def test_an_archive_in_an_archive_is_refused(tmp_path: Path) -> None:
    inner = write_tar(tmp_path / "0.tar", tree(2)).read_bytes()
    assert "x.zip/0.tar is an archive in an archive" in refuse(write_zip(tmp_path / "x.zip", {"0.tar": inner}))


def test_links_in_a_tar_are_followed_within_it(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", tree(2))
    with tarfile.open(path, "a") as archive:
        for name, kind, target in [
            ("cat/hard.png", tarfile.LNKTYPE, "cat/1.png"),
            ("cat/soft.png", tarfile.SYMTYPE, "../dog/1.png"),
            ("cat/out.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("cat/self.png", tarfile.SYMTYPE, "self.png"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    names = [each.name for each in find_files(str(path)) if each.parent.name == "cat"]
    assert names == ["0.png", "1.png", "hard.png", "soft.png"]
    assert open_file(path / "cat" / "soft.png").read() == png(101, mean=180)


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "cat/../../evil.png"])
@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
def test_names_that_lead_out_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    said = refuse(PACKERS[kind](tmp_path / kind, {**tree(2), name: png()}))
    assert "names a file outside of itself" in said and "evil.png" in said


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize("left", [0.3, 0.7, 0.79])
def test_an_archive_that_was_cut_off_is_refused(name: str, left: float, tmp_path: Path) -> None:
    packed = PACKERS[name](tmp_path / name, tree())
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * left)])
    assert f"{packed} is a damaged or cut off" in refuse(packed)


def test_a_tar_that_was_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    packed = write_tar(tmp_path / "x.tar", tree())
    with tarfile.open(packed) as archive:
        end = archive.getmembers()[-2].offset
    packed.write_bytes(packed.read_bytes()[:end])
    assert "does not end as tar archives do" in refuse(packed)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "x.zip", tree(2))
    content = packed.read_bytes()
    at = content.index(b"PK\1\2") + 8  # the flags of the first entry of the directory
    packed.write_bytes(content[:at] + bytes([content[at] | 1]) + content[at + 1 :])
    assert "is encrypted (cat/0.png)" in refuse(packed)


def test_absurd_compression_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = bytes(1 << 23)
    plain = write_zip(tmp_path / "plain.zip", {**tree(2), "cat/white.png": bomb})
    assert len(read_source(str(plain))) == 5  # a large plain image may be packed as tightly
    monkeypatch.setattr(members, "SMALL", 1 << 20)
    packed = write_zip(tmp_path / "x.zip", {**tree(2), "cat/big.png": bomb})
    assert "cat/big.png, whose" in refuse(packed) and "do not trust it" in refuse(packed)
    packed = write_tar(tmp_path / "x.tar.bz2", {**tree(2), "cat/big.png": bomb}, mode="w:bz2")
    assert "do not trust it" in refuse(packed)
    assert not list((tmp_path / "cache").glob("images/*/plain.tar"))


def test_names_in_utf8_that_do_not_say_so(tmp_path: Path) -> None:
    written = {name.replace("cat", "grXXYYe"): body for name, body in tree(2).items()}
    packed = write_zip(tmp_path / "x.zip", written)
    packed.write_bytes(packed.read_bytes().replace(b"grXXYYe", "größe".encode()))  # as Macs do, without the flag
    assert read_source(str(packed)).classes == ["dog", "größe"]


def test_windows_separators(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name in tree(2):
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.create_system = name.replace("/", "\\"), 0
            archive.writestr(info, png())
    assert read_source(str(tmp_path / "w.zip")).classes == ["cat", "dog"]


def test_a_link_in_a_zip_and_an_empty_zip(tmp_path: Path) -> None:
    write_zip(tmp_path / "empty.zip", {})
    assert refuse(tmp_path / "empty.zip") == (
        f"data.source {tmp_path}/empty.zip is empty; one sub-folder per class is expected, such as cats/1.jpg and "
        "dogs/2.jpg"
    )
    with zipfile.ZipFile(write_zip(tmp_path / "x.zip", tree(2)), "a") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "0.png")
    assert len(read_source(str(tmp_path / "x.zip"))) == 4


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"<!DOCTYPE html><title>404</title>")
    assert "is no folder, zip or tar archive" in refuse(tmp_path / "x.zip")
    assert archive_at(tmp_path / "x.zip") is None
