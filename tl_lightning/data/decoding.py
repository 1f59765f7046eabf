"""Reads picture files of every format, however damaged, in no more detail than is wanted."""

import errno
import io
import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tl_lightning.data import tiff
from tl_lightning.data.pixels import (
    TRANSPOSED,
    BrokenPicture,
    mirrored_left_right,
    mirrored_up_down,
    on_white,
    to_bytes,
    turned,
)
from tl_lightning.errors import UserError, shown
from tl_lightning.preprocess import Preprocess

# PIL knows more, some of which run other programs (EPS) or take any text for a picture.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "JPEG2000")
ORIENTATION = 0x0112

# A JPEG is decoded at a fraction of its size while that leaves so many times the wanted sides. For 224 pixels out of
# photographs of 1 to 20 megapixels, 2 is off full decoding by 0.3 levels of 255 on average and by 8 at most, which is
# as much as JPEG itself loses, and 2 to 10 times as fast. 1 is off by 1.0 and 42, at edges, and no more than twice as
# fast again; 3 gains little for half of the speed.
GAP = 2

Pair = tuple[float, float]

NO_SUCH_FILE = "no such file"
# What another attempt would not change. Every other error has its cause in the machine and may pass.
LASTING = {
    errno.ENOENT: NO_SUCH_FILE,
    errno.ENOTDIR: NO_SUCH_FILE,
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.EISDIR: "a folder",
    errno.ELOOP: "a link that leads to itself",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EINVAL: "damaged: it points outside of itself",
}


@dataclass(frozen=True)
class Picture:
    """A picture as read, perhaps already reduced.

    Attributes:
        pixels: ``uint8`` of shape ``(height, width, channels)``.
        size: Width and height of the whole picture before it was reduced.
        box: Left, top, right and bottom of the picture within the pixels; JPEG reduces whole blocks, and the last one
            may reach beyond the picture.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    box: tuple[float, float, float, float]


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Leaves out what PIL and tifffile say about files that they can read: large, or with odd data beside the pixels.

    It holds for the whole process, hence it belongs around all threads that read. What C libraries print about damaged
    TIFF files is not theirs to hold back.
    """
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        logger.setLevel(level)


def read_picture(path: Path, preprocess: Preprocess) -> Picture:
    """Reads a picture file: JPEG, PNG, TIFF, WebP, BMP, GIF, PNM or JPEG 2000, whatever its name ends with.

    It is turned as its EXIF data says. Of several pictures in a file the first one counts. Palettes, CMYK and the like
    become RGB. Numbers of more than 8 bits become bytes as `to_bytes` says. Transparency is laid on white, unless the
    picture has as many channels as are wanted with its opacity as the last one: an RGBA file stays as it is where
    `Preprocess.channels` is 4.

    Args:
        path: The file.
        preprocess: What the weights expect; a JPEG is decoded at a fraction of its size where that is enough.

    Returns:
        The picture, with as many channels as are wanted, or 1 channel, or 3 where 1 is wanted.

    Raises:
        BrokenPicture: If it cannot be read, or has another number of channels.
        UserError: If the machine fails, or a package is missing, which says nothing about the picture.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would be waited for
            raise BrokenPicture("a folder" if stat.S_ISDIR(mode) else "not a regular file")
        with _Watched(path) as file:
            try:
                return _read(file, preprocess)
            finally:
                if file.error is not None:
                    raise file.error
    except (BrokenPicture, UserError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenPicture("not a picture") from error
    except Image.DecompressionBombError as error:
        raise BrokenPicture("too many pixels to be safe") from error
    except MemoryError as error:
        raise UserError(f"{shown(path)} cannot be read now: not enough memory; try again with more of it") from error
    except OSError as error:
        if error.errno is None:  # PIL's own
            raise BrokenPicture(f"damaged: {_one_line(error)}") from error
        if error.errno in LASTING:
            raise BrokenPicture(LASTING[error.errno]) from error
        raise UserError(f"{shown(path)} cannot be read now: {_one_line(error.strerror)}; try again") from error
    except Exception as error:  # Decoders raise whatever a damaged file leads them to.
        text = _one_line(error)  # of one word where it is a key or an index
        raise BrokenPicture(f"damaged: {text if ' ' in text else type(error).__name__}") from error


class _Watched(io.BufferedReader):
    """A file that remembers an error of the disk, which PIL takes for the end of a TIFF file."""

    error: OSError | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except OSError as error:
            self.error = error
            raise

    def fileno(self) -> int:
        """None, or libtiff would read past all this."""
        raise io.UnsupportedOperation


def _one_line(text: object) -> str:
    return " ".join(str(text).split()) or type(text).__name__


def _read(file: BinaryIO, preprocess: Preprocess) -> Picture:
    start = file.read(4)
    if not start:
        raise BrokenPicture("empty file")
    file.seek(0)
    reduced = None
    try:
        with Image.open(file, formats=FORMATS) as picture:
            if exact := tiff.pil_is_exact(picture):
                reduced = _reduce(picture, preprocess)
                picture.load()
                orientation = _orientation(picture)  # after loading, since PIL turns TIFF files itself
                values, opacity = _values(picture, file)
                pages = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
    except UnidentifiedImageError:
        if start not in tiff.MAGIC:
            raise
        exact = False
    if not exact:
        values, opacity, orientation, pages = tiff.read_tiff(file)
    if pages > 1 and values.shape[2] == 1 and preprocess.channels not in (1, 3):
        raise BrokenPicture(f"{pages} pages of one channel: all channels have to be in the first page")
    pixels = turned(_with_channels(values, opacity, preprocess), orientation)
    return _placed(pixels, reduced, orientation)


def _reduce(picture: Image.Image, preprocess: Preprocess) -> tuple[Pair, Pair] | None:
    """Has a JPEG decoded at 1/2, 1/4 or 1/8, where that is enough; else `None`.

    Returns:
        Width and height as stored; and how much of the pixels they cover once decoded.
    """
    if picture.format not in ("JPEG", "MPO"):
        return None
    size = picture.size
    if _orientation(picture) in TRANSPOSED:
        height, width = preprocess.resized_shape(size[1], size[0])
    else:
        width, height = preprocess.resized_shape(*size)
    drafted = picture.draft(None, (GAP * width, GAP * height))
    return (size, drafted[1][2:]) if drafted else None


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # Damaged EXIF data says nothing about the pixels.
        return 1


def _values(picture: Image.Image, file: BinaryIO) -> tuple[NDArray[Any], bool]:
    """The numbers of a loaded picture, ``(height, width, channels)``, and whether the last channel is the opacity."""
    mode, key = picture.mode, picture.info.get("transparency")
    if picture.format == "PNG" and (values := _sixteen_bit_channels(file)) is not None:
        opacity = mode == "RGBA"
    elif mode.startswith(("I", "F")):
        values, opacity = np.asarray(picture)[:, :, None], False
    else:
        grey = mode in ("1", "L", "LA", "La")
        opacity = picture.has_transparency_data
        wanted = ("L" if grey else "RGB") + ("A" if opacity else "")
        if mode in ("La", "RGBa", "PA"):  # PIL converts these to RGBA only
            picture = picture.convert("RGBA")
        pixels = np.asarray(picture if picture.mode == wanted else picture.convert(wanted))
        return pixels.reshape(picture.height, picture.width, -1), opacity
    if key is None or values.dtype != np.uint16:
        return values, opacity
    seen = (values != np.array(key, dtype=np.uint16)).any(axis=2, keepdims=True)
    return np.concatenate([values, seen * np.uint16(65535)], axis=2), True


def _sixteen_bit_channels(file: BinaryIO) -> NDArray[np.uint16] | None:
    """All bits of a PNG of 16 bits in several channels, of which PIL unpacks the upper eight; `None` for any other."""

    def unpacked(kind: str) -> NDArray[np.uint8]:
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as picture:
            picture.tile = [tile._replace(args=kind) for tile in picture.tile]
            return np.asarray(picture)

    file.seek(0)
    with Image.open(file, formats=("PNG",)) as picture:
        kind = str(picture.tile[0].args) if picture.tile else ""
    if kind == "LA;16B":
        return unpacked("RGBA").view(">u2").astype(np.uint16)  # as many bytes, unpacked as they are
    if kind not in ("RGB;16B", "RGBA;16B"):
        return None
    # The upper half of a number whose lower byte comes first is the lower half of what the file holds.
    lower = unpacked(kind.replace("16B", "16L"))
    return np.asarray(unpacked(kind).astype(np.uint16) << 8 | lower, dtype=np.uint16)


def _with_channels(values: NDArray[Any], opacity: bool, preprocess: Preprocess) -> NDArray[np.uint8]:
    wanted, found = preprocess.channels, values.shape[2]
    if opacity and found != wanted:
        most = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
        seen = to_bytes(values[:, :, -1:], (0, most))
        pixels = on_white(np.concatenate([to_bytes(values[:, :, :-1], preprocess.pixel_range), seen], axis=2))
        found -= 1
    else:
        pixels = to_bytes(values, preprocess.pixel_range)
    if found not in (1, wanted) and (found, wanted) != (3, 1):
        raise BrokenPicture(f"it has {found} channels where {wanted} are expected: see data.channels")
    return pixels


def _placed(pixels: NDArray[np.uint8], reduced: tuple[Pair, Pair] | None, orientation: int) -> Picture:
    height, width = pixels.shape[:2]
    whole, (right, bottom) = reduced or ((width, height), (width, height))
    if reduced and orientation in TRANSPOSED:
        whole, (right, bottom) = (whole[1], whole[0]), (bottom, right)
    left = width - right if mirrored_left_right(orientation) else 0
    top = height - bottom if mirrored_up_down(orientation) else 0
    return Picture(pixels, (int(whole[0]), int(whole[1])), (left, top, left + right, top + bottom))
