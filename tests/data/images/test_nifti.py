import gzip
import sys
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from medical import write_nifti

from tl_lightning.data.images.image_files import quiet_decoders, read_image
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

# From right to left, front to back, feet to head: what every way to store it has to come out as.
BODY = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)
RANGE = (-1000, 3000)


def pixels(path: Path | str, small: ImagePreprocess, pixel_range: tuple[float, float] | None = None) -> Any:
    with quiet_decoders():
        return read_image(Path(path), small.with_pixel_range(pixel_range)).pixels


def grey(path: Path | str, small: ImagePreprocess, pixel_range: tuple[float, float] | None = None) -> Any:
    found = pixels(path, small, pixel_range)
    assert found.dtype == np.uint8 and found.shape[2] == 1
    return found[:, :, 0]


def linear(values: Any, low: float, high: float) -> Any:
    return ((values - low) / (high - low) * 255).round().clip(0, 255)


def test_slices_are_turned_alike_however_the_volume_is_stored(tmp_path: Path, small: ImagePreprocess) -> None:
    for number, (order, signs) in enumerate(product(permutations(range(3)), product((1, -1), repeat=3))):
        if number % 5:
            continue  # ten of the 48 ways
        stored = np.transpose(BODY, order)
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, (of, sign) in enumerate(zip(order, signs, strict=True)):
            stored = np.flip(stored, axis) if sign < 0 else stored
            affine[of, axis] = sign * (1 if of == 2 else -1)  # RAS+: x and y run the other way there
        path = write_nifti(tmp_path / f"{number}.nii", np.ascontiguousarray(stored), affine=affine)
        assert np.array_equal(grey(f"{path}#axial:2", small), BODY[:, :, 2].T)  # front at the top, right on the left
        assert np.array_equal(grey(f"{path}#coronal:3", small), BODY[:, 3, ::-1].T)  # head at the top
        assert np.array_equal(grey(f"{path}#sagittal:4", small), BODY[4, :, ::-1].T)
        assert np.array_equal(grey(path, small), BODY[:, :, 0].T)


def test_slope_and_intercept_count(tmp_path: Path, small: ImagePreprocess) -> None:
    stored = BODY.astype(np.int16) - 100
    path = write_nifti(tmp_path / "a.nii", stored, affine=np.diag([-1, -1, 1, 1]), slope=10, intercept=-24)
    assert nibabel.load(path).get_fdata().min() == stored.min() * 10 - 24
    assert np.array_equal(grey(f"{path}#1", small, RANGE), linear(stored[:, :, 1].T * 10 - 24, *RANGE))
    falling = write_nifti(tmp_path / "b.nii", stored, affine=np.diag([-1, -1, 1, 1]), slope=-2, intercept=5)
    values = stored * -2 + 5  # the range is that of the volume, not that of a slice
    assert np.array_equal(grey(f"{falling}#1", small), linear(values[:, :, 1].T, values.min(), values.max()))


def test_black_and_white_are_the_headers_or_the_volumes_own(tmp_path: Path, small: ImagePreprocess) -> None:
    stored = np.cumsum(BODY.astype(np.int32).ravel()).reshape(BODY.shape).astype(np.float32)
    here = {"affine": np.diag([-1, -1, 1, 1])}
    path = write_nifti(tmp_path / "a.nii", stored, **here)
    assert np.array_equal(grey(f"{path}#1", small), linear(stored[:, :, 1].T, stored.min(), stored.max()))
    path = write_nifti(tmp_path / "b.nii", stored, window=(1000, 9000), **here)
    assert np.array_equal(grey(f"{path}#1", small), linear(stored[:, :, 1].T, 1000, 9000))
    path = write_nifti(tmp_path / "c.nii", np.full(BODY.shape, 7, np.int16), **here)
    assert not grey(f"{path}#1", small).any()
    outside = stored.copy()
    outside[:2] = np.nan
    path = write_nifti(tmp_path / "d.nii", outside, **here)
    low = np.nanmin(outside)
    assert np.array_equal(
        grey(f"{path}#1", small), linear(np.nan_to_num(outside[:, :, 1].T, nan=low), low, stored.max())
    )
    path = write_nifti(tmp_path / "e.nii", np.full(BODY.shape, np.nan, np.float32), **here)
    with pytest.raises(BrokenImage, match=r"^some of its pixels are NaN or infinite$"):
        grey(path, small)


def test_a_fourth_dimension_is_channels(tmp_path: Path, small: ImagePreprocess) -> None:
    here = {"affine": np.diag([-1, -1, 1, 1])}
    four = np.stack([BODY, BODY // 2, BODY // 3, BODY // 4], axis=3)
    path = write_nifti(tmp_path / "a.nii.gz", four, **here)
    assert np.array_equal(pixels(f"{path}#2", small.with_channels(4)), four[:, :, 2].swapaxes(0, 1))
    with pytest.raises(BrokenImage, match=r"^it has 4 channels where 3 are expected: see data.channels$"):
        pixels(f"{path}#2", small)
    path = write_nifti(tmp_path / "b.nii.gz", BODY[..., None], **here)
    assert np.array_equal(grey(f"{path}#2", small), BODY[:, :, 2].T)
    path = write_nifti(tmp_path / "c.nii.gz", BODY[:, :, 0], **here)
    assert np.array_equal(grey(path, small), BODY[:, :, 0].T)
    color = np.zeros(BODY.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    color["R"], color["G"] = BODY, BODY // 2
    path = write_nifti(tmp_path / "d.nii.gz", color, **here)
    expected = np.stack([BODY, BODY // 2, BODY * 0], axis=3)
    assert np.array_equal(pixels(f"{path}#2", small), expected[:, :, 2].swapaxes(0, 1))


def test_what_nibabel_brings_along(small: ImagePreprocess) -> None:
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    two = small.with_channels(2)
    first, second = (pixels(folder / name, two) for name in ("example4d.nii.gz", "example_nifti2.nii.gz"))
    assert first.shape == (96, 128, 2) and second.shape[2] == 2
    assert grey(folder / "anatomical.nii", small).shape == (41, 33)
    with pytest.raises(BrokenImage, match=r"^its numbers have the shape"):
        pixels(folder / "row_major.dconn.nii", small)


def test_damaged_ones_say_so_and_are_never_black(tmp_path: Path, small: ImagePreprocess) -> None:
    whole = write_nifti(tmp_path / "a.nii", BODY).read_bytes()
    (tmp_path / "half.nii").write_bytes(whole[: len(whole) - 100])
    packed = gzip.compress(whole)
    (tmp_path / "half.nii.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "head.nii").write_bytes(whole[:344] + b"ni1\0" + whole[348:])
    huge = bytearray(whole)
    huge[42:48] = np.array([32767] * 3, dtype="<i2").tobytes()
    (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(bytes(huge)))
    (tmp_path / "long.nii").write_bytes(
        bytes(huge).replace(np.array([32767] * 3, "<i2").tobytes(), np.array([9000, 9000, 9000], "<i2").tobytes())
    )
    reasons = {
        "half.nii": "damaged: ",
        "half.nii.gz": "damaged: ",
        "head.nii": "the header of a pair of files; save it as one .nii or .nii.gz",
        "huge.nii.gz": "too many pixels to be safe",
        "long.nii": "damaged: image file is truncated",
    }
    for name, reason in reasons.items():
        with pytest.raises(BrokenImage) as error:
            grey(tmp_path / name, small)
        assert str(error.value).startswith(reason) and "\n" not in str(error.value)
    with pytest.raises(BrokenImage, match=r"^it has no axial slice 7: there are 7, counted from 0$"):
        grey(tmp_path / "a.nii#7", small)


def test_a_volume_that_changes_is_read_anew(tmp_path: Path, small: ImagePreprocess) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", BODY)
    before = grey(f"{path}#2", small)
    path.unlink()
    write_nifti(path, BODY[::-1])
    assert np.array_equal(grey(f"{path}#2", small), before[:, ::-1])


def test_a_missing_package_is_named(tmp_path: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", BODY)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(UserError) as error:
        grey(path, small)
    assert (
        str(error.value) == f"{path} is a NIfTI file that needs the package nibabel: pip install 'tl_lightning[nifti]'"
    )
