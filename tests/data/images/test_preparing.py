from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tl_lightning.data.images import decoding
from tl_lightning.data.images.decoding import DecodedImage
from tl_lightning.data.images.image_files import read_image
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.images.preparing import crop, prepare, read_resized, resize, to_channels
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(90, 61), (60, 101)])
def test_prepared_images_equal_those_of_timm(
    tmp_path: Path, image: Callable[..., Path], crop_mode: str, interpolation: str, mode: str, size: tuple[int, int]
) -> None:
    from timm.data import create_transform, resolve_data_config

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config = {"input_size": (3, 33, 33), "crop_pct": 0.9, "mean": mean, "std": std}
    config |= {"crop_mode": crop_mode, "interpolation": interpolation}
    preprocess = ImagePreprocess(33, 3, 0.9, crop_mode, interpolation, mean, std)
    path = image(tmp_path / "a.png", size=size, mode=mode)
    expected = create_transform(**resolve_data_config({}, pretrained_cfg=config))(Image.open(path).convert("RGB"))
    prepared = prepare(path, preprocess)
    assert prepared.dtype == torch.uint8 and prepared.shape == (3, 33, 33)
    assert (preprocess.normalize(prepared) - expected).abs().max() <= 1e-6


def black(width: int, height: int, channels: int = 1) -> DecodedImage:
    return DecodedImage(np.zeros((height, width, channels), dtype=np.uint8), (width, height), (0, 0, width, height))


def test_elongated_images_are_resized_or_refused(small: ImagePreprocess) -> None:
    assert resize(black(2, 2000), small).shape == (20000, 20, 1)
    assert resize(black(2, 2000), replace(small, crop_mode="border")).shape == (20, 1, 1)
    with pytest.raises(BrokenImage, match="1 x 1000000 pixels are too elongated"):
        resize(black(1, 1_000_000), small)


def test_any_number_of_channels_is_resized_as_each_of_them(small: ImagePreprocess) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 5), dtype=np.uint8)
    together = resize(replace(black(40, 30), pixels=pixels), small)
    assert together.shape == (20, 26, 5)
    for i in range(5):
        alone = Image.fromarray(pixels[:, :, i]).resize((26, 20), Image.Resampling.BILINEAR)
        assert np.array_equal(together[:, :, i], np.asarray(alone))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_the_same_image_as_the_whole_one(
    tmp_path: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    # Smooth, so that a shift by a pixel or a wrong corner shows.
    y, x = np.mgrid[0:323, 0:403] / 403
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.dstack([255 * x, 255 * y, 255 * x * y]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, subsampling=0, exif=exif)
    reduced = read_image(tmp_path / "a.jpg", small)
    assert sorted(reduced.pixels.shape) == [3, 41, 51] and sorted(reduced.size) == [323, 403]
    resized = read_resized(tmp_path / "a.jpg", small).astype(int)
    monkeypatch.setattr(decoding, "GAP", 1000)
    whole = read_resized(tmp_path / "a.jpg", small).astype(int)
    assert resized.shape == whole.shape and np.abs(resized - whole).max() <= 2


def test_a_jpeg_keeps_twice_the_wanted_sides(
    tmp_path: Path, image: Callable[..., Path], small: ImagePreprocess
) -> None:
    for size, kept in (((79, 79), 79), ((80, 80), 40), ((160, 400), 40), ((319, 319), 80)):
        path = image(tmp_path / "a.jpg", size=size)
        assert min(read_image(path, small).pixels.shape[:2]) == kept
    path = image(tmp_path / "b.jpg", size=(400, 80))
    assert read_image(path, replace(small, crop_mode="squash")).pixels.shape == (40, 200, 3)
    assert read_image(path, replace(small, crop_mode="border")).pixels.shape == (10, 50, 3)


def test_small_images_are_padded(small: ImagePreprocess) -> None:
    pixels = torch.full((1, 3, 16), 9, dtype=torch.uint8)
    black = crop(pixels, small)
    assert black.shape == (1, 16, 16) and (black[0, :6] == 0).all() and (black[0, 6:9] == 9).all()
    border = crop(pixels, replace(small, crop_mode="border", mean=(0.5, 0.2, 0.1)))
    assert border.shape == (3, 16, 16) and border[:, 0, 0].tolist() == [128, 51, 26]


def test_channels_follow_the_weights() -> None:
    grey = torch.full((1, 2, 2), 9, dtype=torch.uint8)
    assert to_channels(grey, 3).tolist() == [[[9, 9], [9, 9]]] * 3
    colour = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    as_grey = to_channels(torch.from_numpy(colour).permute(2, 0, 1), 1)[0]
    assert np.array_equal(as_grey.numpy(), np.asarray(Image.fromarray(colour).convert("L")))
    with pytest.raises(UserError, match="the weights take 4 channels"):
        to_channels(torch.zeros(3, 2, 2, dtype=torch.uint8), 4)


def test_unknown_preprocessing_is_named(small: ImagePreprocess) -> None:
    with pytest.raises(UserError, match="crop_mode 'middle' is unknown"):
        resize(black(4, 4), replace(small, crop_mode="middle"))
    with pytest.raises(UserError, match="interpolation 'cubic' is unknown"):
        resize(black(4, 4), replace(small, interpolation="cubic"))
