"""What a folder of a person's holds beside images: nothing of it is learned, and nothing is left out in silence."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.sources import walk
from tl_lightning.data.sources.folder import find_images, read_folder
from tl_lightning.data.sources.read import list_source, read_source
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess


def test_a_folder_is_listed_without_asking_for_each_file(tmp_path, monkeypatch):
    for label in ("cats", "dogs"):
        (tmp_path / label).mkdir()
        for number in range(200):
            (tmp_path / label / f"{number}.jpg").touch()
    asked = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(path) or real(path, **options))
    assert len(list_source(str(tmp_path)).paths) == 400
    assert len(asked) < 100


def write(path: Path, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.new("RGB", (4, 4), (len(path.name), 3, 5)).save(file, kind)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A class as people have it, and a tidy one."""
    folder = tmp_path / "data"
    for name, kind in {"1.jpg": "JPEG", "2.JPE": "JPEG", "3.pnm": "PPM", "4": "PNG", "5.photo": "WEBP"}.items():
        write(folder / "cats" / name, kind)
    for name in ("6.JXL", "7.jxl", "8.nef", "notes.txt"):
        (folder / "cats" / name).write_bytes(b"II*\0" if name == "8.nef" else b"?")
    for number in range(3):
        write(folder / "dogs" / f"{number}.png")
    return folder


def test_what_can_be_read_is_used_and_the_rest_counted_and_named(mixed: Path, small: ImagePreprocess) -> None:
    data = ImageDataModule(str(mixed), small.to_dict(), num_workers=0)
    assert [path.name for path in data.samples.paths[:5]] == ["1.jpg", "2.JPE", "3.pnm", "4", "5.photo"]
    assert (
        f"left out are 4 files in {mixed}: 2 .jxl (JPEG XL), 1 .nef (camera raw), 1 .txt" in data.notes()
        or f"left out are 4 files in {mixed}: 2 .jxl (JPEG XL), 1 .txt, 1 .nef (camera raw)" in data.notes()
    )
    data.setup("fit")
    assert not data.skipped


def test_a_tidy_folder_has_nothing_said_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_source(str(folder)).notes == () or read_source(str(folder)).notes == []
    assert find_images(folder) and capsys.readouterr().out == ""


def test_what_is_predicted_says_what_it_leaves_out(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(find_images(mixed)) == 8
    assert "2 .jxl (JPEG XL)" in capsys.readouterr().out
    for path in (mixed / "cats").iterdir():
        if path.suffix not in (".JXL", ".jxl"):
            path.unlink()
    with pytest.raises(UserError, match=r"cats holds no images: 2 \.jxl \(JPEG XL\)$"):
        find_images(mixed / "cats")
    with pytest.raises(UserError, match=r"no image in the class folder 'cats' \(2 \.jxl \(JPEG XL\)\)"):
        read_folder(mixed)


def test_what_systems_leave_is_neither_a_class_nor_an_image(mixed: Path) -> None:
    for place in ("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cats/._1.jpg", ".ipynb_checkpoints/1.jpg"):
        write(mixed / place)
        write(mixed / "cats" / place)
    write(mixed / "lost+found" / "1.jpg"), write(mixed / "$RECYCLE.BIN" / "1.jpg")
    for name in ("._1.jpg", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (mixed / "cats" / name).write_bytes(b"\xff\xd8\xff\xe0")
    listing = read_folder(mixed)
    assert listing.known == {"folder": ["cats", "dogs"]} and len(listing.paths) == 8
    assert listing.notes[0].startswith("left out are 4 files")


def test_images_beside_the_class_folders_are_named(mixed: Path) -> None:
    write(mixed / "stray.jpg"), write(mixed / "._stray.jpg")
    assert f"1 image lies beside the class folders of {mixed}, left out: stray.jpg" in read_folder(mixed).notes


def test_links_to_folders_are_counted_not_followed(mixed: Path) -> None:
    (mixed / "dogs" / "more").symlink_to(mixed / "cats")
    assert "1 linked folder" in read_folder(mixed).notes[0]


def test_a_folder_that_cannot_be_listed_is_named(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever runs the tests may be allowed to list everything.
    def walks(folder: Path, onerror: object) -> object:
        onerror(PermissionError(13, "Permission denied", f"{folder}/deep"))  # type: ignore[operator]
        return iter(())

    monkeypatch.setattr(walk.os, "walk", walks)
    with pytest.raises(UserError, match="cats/deep cannot be listed: Permission denied"):
        read_folder(mixed)


def test_only_files_whose_name_tells_nothing_are_opened(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tl_lightning.data.images import formats

    opened: list[str] = []
    real = formats.first_bytes
    monkeypatch.setattr(formats, "first_bytes", lambda path: (opened.append(Path(path).name), real(path))[1])
    read_folder(mixed)
    assert sorted(opened) == ["4", "5.photo", "6.JXL", "7.jxl"]
