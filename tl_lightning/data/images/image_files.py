"""Reads image files, and tells what is wrong with a file from what is wrong with the machine."""

import errno
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tl_lightning.data.archives.files import open_file
from tl_lightning.data.images.decoding import DecodedImage, decode
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.parts import split_part
from tl_lightning.errors import UserError, shown
from tl_lightning.preprocess.image import ImagePreprocess

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


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Leaves out what decoders say about files that they can read: large, or with odd data beside the pixels.

    What pydicom says may hold names and numbers of patients.

    It holds for the whole process, hence it belongs around all threads that read. What C libraries print about damaged
    TIFF files is not theirs to hold back.
    """
    loggers = [logging.getLogger(name) for name in ("tifffile", "pydicom", "nibabel")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom|nibabel|pillow_heif)\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def read_image(path: Path, preprocess: ImagePreprocess) -> DecodedImage:
    """Reads an image file, whatever its name ends with.

    JPEG, PNG, TIFF, WebP, BMP, GIF, PNM, JPEG 2000, AVIF, and with their packages HEIC, DICOM and NIfTI.

    It is turned as its EXIF data says. Of several images in a file the first one counts, unless the path names a part
    of it, see `tl_lightning.data.parts`. Palettes, CMYK and the like
    become RGB. Numbers of more than 8 bits become bytes as `to_bytes` says. Transparency is laid on white, unless the
    image has as many channels as are wanted with its opacity as the last one: an RGBA file stays as it is where
    `ImagePreprocess.channels` is 4.

    Args:
        path: The file, also within an archive, or a part of it.
        preprocess: What the weights expect; a JPEG is decoded at a fraction of its size where that is enough.

    Returns:
        The image, with as many channels as are wanted, or 1 channel, or 3 where 1 is wanted.

    Raises:
        BrokenImage: If it cannot be read, or has another number of channels.
        UserError: If the machine fails, or a package is missing, which says nothing about the image.
    """
    file, part = split_part(path)
    try:
        if not file.is_file() and file.exists():  # a pipe would be waited for
            raise BrokenImage("a folder" if file.is_dir() else "not a regular file")
        with _Watched(file) as opened:
            try:
                return decode(opened, preprocess, part)
            finally:
                if opened.error is not None:
                    raise opened.error
    except (BrokenImage, UserError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage("not an image") from error
    except Image.DecompressionBombError as error:
        raise BrokenImage("too many pixels to be safe") from error
    except MemoryError as error:
        raise UserError(f"{shown(path)} cannot be read now: not enough memory; try again with more of it") from error
    except OSError as error:
        if error.errno is None:  # PIL's own
            raise BrokenImage(f"damaged: {_one_line(error)}") from error
        if error.errno in LASTING:
            raise BrokenImage(LASTING[error.errno]) from error
        raise UserError(f"{shown(path)} cannot be read now: {_one_line(error.strerror)}; try again") from error
    except Exception as error:  # Decoders raise whatever a damaged file leads them to.
        text = _one_line(error)  # of one word where it is a key or an index
        raise BrokenImage(f"damaged: {text if ' ' in text else type(error).__name__}") from error


class _Watched(io.BufferedReader):
    """A file that remembers an error of the disk, which PIL takes for the end of a TIFF file."""

    error: OSError | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(open_file(path))

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
