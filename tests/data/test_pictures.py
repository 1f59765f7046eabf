from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tl_lightning.data.pictures import BrokenPicture, crop, prepare, read_picture, resize, to_channels
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(90, 61), (60, 101)])
def test_prepared_pictures_equal_those_of_timm(
    tmp_path: Path, picture: Callable[..., Path], crop_mode: str, interpolation: str, mode: str, size: tuple[int, int]
) -> None:
    from timm.data import create_transform, resolve_data_config

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config = {"input_size": (3, 33, 33), "crop_pct": 0.9, "mean": mean, "std": std}
    config |= {"crop_mode": crop_mode, "interpolation": interpolation}
    preprocess = Preprocess(33, 3, 0.9, crop_mode, interpolation, mean, std)
    path = picture(tmp_path / "a.png", size=size, mode=mode)
    expected = create_transform(**resolve_data_config({}, pretrained_cfg=config))(Image.open(path).convert("RGB"))
    prepared = prepare(path, preprocess)
    assert prepared.dtype == torch.uint8 and prepared.shape == (3, 33, 33)
    assert (preprocess.normalize(prepared) - expected).abs().max() <= 1e-6


def save(path: Path, picture: Image.Image, **options: object) -> Image.Image:
    picture.save(path, **options)
    return read_picture(path)


def test_every_kind_of_picture_becomes_grey_or_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 3), (255, 0, 0))
    assert save(tmp_path / "p.png", red.convert("P")).getpixel((0, 0)) == (255, 0, 0)
    assert save(tmp_path / "c.jpg", red.convert("CMYK"), quality=100).mode == "RGB"
    assert save(tmp_path / "l.png", Image.new("L", (4, 3), 7)).getpixel((0, 0)) == 7
    assert save(tmp_path / "1.png", Image.new("1", (4, 3), 1)).getpixel((0, 0)) == 255


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    assert save(tmp_path / "a.png", Image.new("RGBA", (4, 3), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert save(tmp_path / "b.png", Image.new("RGBA", (4, 3), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)
    grey = save(tmp_path / "c.png", Image.new("LA", (4, 3), (0, 0)))
    assert (grey.mode, grey.getpixel((0, 0))) == ("L", 255)
    palette = Image.new("P", (4, 3), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for name, transparency in (("d.png", 0), ("e.png", b"\x00\xff")):
        assert save(tmp_path / name, palette, transparency=transparency).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 255, 256, 40000, 65535]], dtype=np.uint16)
    assert np.asarray(save(tmp_path / name, Image.fromarray(values))).tolist() == [[0, 0, 1, 156, 255]]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert save(tmp_path / "a.jpg", Image.new("RGB", (8, 4)), exif=exif).size == (4, 8)


def test_broken_pictures_have_short_reasons(
    tmp_path: Path, picture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = picture(tmp_path / "good.png", size=(64, 64))
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:4000])
    reasons = {}
    for name in ("empty.png", "text.png", "cut.png", "none.png", "."):
        with pytest.raises(BrokenPicture) as error:
            read_picture(tmp_path / name)
        reasons[name] = str(error.value)
    assert reasons.pop("cut.png").startswith("damaged: image file is truncated")
    assert reasons == {
        "empty.png": "empty file",
        "text.png": "not a picture",
        "none.png": "no such file",
        ".": "a folder",
    }
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BrokenPicture, match="too many pixels"):
        read_picture(good)


def test_elongated_pictures_are_resized_or_refused(small: Preprocess) -> None:
    assert resize(Image.new("L", (2, 2000)), small).shape == (20000, 20, 1)
    assert resize(Image.new("L", (2, 2000)), replace(small, crop_mode="border")).shape == (20, 1, 1)
    with pytest.raises(BrokenPicture, match="too elongated"):
        resize(Image.new("L", (1, 1_000_000)), small)


def test_small_pictures_are_padded(small: Preprocess) -> None:
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


def test_unknown_preprocessing_is_named(small: Preprocess) -> None:
    with pytest.raises(UserError, match="crop_mode 'middle' is unknown"):
        resize(Image.new("L", (4, 4)), replace(small, crop_mode="middle"))
    with pytest.raises(UserError, match="interpolation 'cubic' is unknown"):
        resize(Image.new("L", (4, 4)), replace(small, interpolation="cubic"))
