import os
from pathlib import Path

import numpy as np
import pytest
from data.hostile import RGB, encoded, tiff
from PIL import Image

from tl_lightning.data.images.decoding import FORMATS
from tl_lightning.data.images.formats import HEAD, READ, SUFFIXES, format_of, left_out_as
from tl_lightning.data.images.image_files import read_image
from tl_lightning.preprocess.image import ImagePreprocess

KINDS = {"JPEG": "JPEG", "PNG": "PNG", "GIF": "GIF", "TIFF": "TIFF", "WEBP": "WebP", "BMP": "BMP", "PPM": "PNM"}
KINDS |= {"JPEG2000": "JPEG 2000", "AVIF": "AVIF"}
WITH_PACKAGES = {"HEIC", "DICOM", "NIfTI"}


def test_every_format_that_is_read_is_known_by_its_beginning(small: ImagePreprocess, tmp_path: Path) -> None:
    assert {*KINDS.values()} | WITH_PACKAGES == {*READ} and {*KINDS} | {"DIB"} == {*FORMATS}
    for kind in KINDS:
        content = encoded(RGB, kind)
        assert format_of(content[:HEAD]) == KINDS[kind], kind
        (tmp_path / kind).write_bytes(content)
        assert left_out_as(str(tmp_path / kind)) is None
        assert read_image(tmp_path / kind, small).pixels.shape[2] == 3
    assert format_of(tiff(RGB, bigtiff=True)[:HEAD]) == "TIFF"
    for grey in (Image.fromarray(RGB[:, :, 0]), Image.fromarray(RGB[:, :, 0] > 99)):
        assert format_of(encoded(grey, "PPM")[:HEAD]) == "PNM"


def test_every_suffix_of_what_is_read_is_in_the_one_table() -> None:
    Image.init()
    of_pil = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    video = {".j2c", ".jpc", ".jpf", ".icb"}  # nobody's photographs
    assert of_pil - video - {".pfm"} <= SUFFIXES


@pytest.mark.parametrize(
    ("name", "content", "called"),
    [
        ("a.jxl", b"", ".jxl (JPEG XL)"),
        ("drawing", b"8BPS" + bytes(200), "without a suffix (Photoshop)"),
        ("photo.NEF", b"II*\0" + bytes(200), ".nef (camera raw)"),
        ("list.csv.gz", b"\x1f\x8b", ".gz"),
        ("notes", b"BMW is a maker of cars; P1 2 is a place in a race", "without a suffix"),
        ("list.txt", b"\xff\xd8\xff\xe0", ".txt"),
        ("empty", b"", "without a suffix"),
    ],
)
def test_what_is_left_out_is_named(tmp_path: Path, name: str, content: bytes, called: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert left_out_as(str(tmp_path / name)) == called


def test_a_photograph_that_calls_itself_otherwise_is_one(tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "IMG_2.photo", "3"):
        (tmp_path / name).write_bytes(encoded(np.zeros((4, 4, 3), np.uint8), "JPEG"))
        assert left_out_as(str(tmp_path / name)) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("phone", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("IM00001", bytes(128) + b"DICM"),
        ("1.2.840.113619.2.5", bytes(128) + b"DICM"),
        ("volume", bytes(344) + b"n+1\0"),
        ("brain.NII.GZ", b""),
    ],
)
def test_what_needs_a_package_counts_whether_it_is_there_or_not(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert left_out_as(str(tmp_path / name)) is None


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert left_out_as(str(tmp_path / "pipe")) == "without a suffix"
    assert left_out_as(str(tmp_path / "gone")) == "without a suffix"
