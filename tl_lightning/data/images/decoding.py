"""From an image file of any format to upright bytes, in no more detail than is wanted."""

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tl_lightning.data.images import dicom, heif, nifti, tiff
from tl_lightning.data.images.formats import HEAD
from tl_lightning.data.images.pixels import (
    TRANSPOSED,
    BrokenImage,
    RawImage,
    mirrored_left_right,
    mirrored_up_down,
    on_white,
    to_bytes,
    turned,
)
from tl_lightning.data.parts import Part
from tl_lightning.preprocess.image import ImagePreprocess

# PIL knows more, some of which run other programs (EPS) or take any text for an image.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF")
ORIENTATION = 0x0112

# A JPEG is decoded at a fraction of its size while that leaves so many times the wanted sides. For 224 pixels out of
# photographs of 1 to 20 megapixels, 2 is off full decoding by 0.3 levels of 255 on average and by 8 at most, which is
# as much as JPEG itself loses, and 2 to 10 times as fast. 1 is off by 1.0 and 42, at edges, and no more than twice as
# fast again; 3 gains little for half of the speed.
GAP = 2

Pair = tuple[float, float]


@dataclass(frozen=True)
class DecodedImage:
    """An image as read, perhaps already reduced.

    Attributes:
        pixels: ``uint8`` of shape ``(height, width, channels)``.
        size: Width and height of the whole image before it was reduced.
        box: Left, top, right and bottom of the image within the pixels; JPEG reduces whole blocks, and the last one
            may reach beyond the image.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    box: tuple[float, float, float, float]


def decode(file: BinaryIO, preprocess: ImagePreprocess, part: Part | None = None) -> DecodedImage:
    """Decodes an open file; see `tl_lightning.data.images.image_files.read_image`.

    Raises:
        BrokenImage: If it is empty, or has another number of channels.
        UserError: If a package is missing.
        Exception: Whatever a damaged file leads decoders to.
    """
    head = file.read(HEAD)
    if not head:
        raise BrokenImage("empty file")
    wanted, reduced = part or Part(0), None
    if nifti.is_nifti(head, file.name):
        raw = nifti.read_nifti(file, wanted, preprocess.pixel_range)
    elif dicom.is_dicom(head, file.name):
        raw = dicom.read_dicom(file, wanted.number, preprocess.pixel_range)
    else:
        raw, reduced = _pictured(file, head, wanted.number, preprocess)
    if raw.pages > 1 and raw.values.shape[2] == 1 and preprocess.channels not in (1, 3):
        raise BrokenImage(f"{raw.pages} pages of one channel: all channels have to be in the first page")
    pixels = turned(_with_channels(raw, preprocess), raw.orientation)
    return _placed(pixels, reduced, raw.orientation)


def _pictured(
    file: BinaryIO, head: bytes, number: int, preprocess: ImagePreprocess
) -> tuple[RawImage, tuple[Pair, Pair] | None]:
    """An image of the usual formats, and how it was reduced; of a TIFF file the page of a number."""
    file.seek(0)
    formats = heif.formats_for(file, head) or FORMATS
    try:
        with Image.open(file, formats=formats) as image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            if number:
                if number >= pages:
                    raise BrokenImage(tiff.no_page(number, pages))
                image.seek(number)
            if tiff.pil_is_exact(image):
                reduced = _reduce(image, preprocess)
                packed = str(image.tile[0].args) if image.tile else ""
                image.load()
                orientation = _orientation(image)  # after loading, since PIL turns TIFF files itself
                values, opacity = _values(image, packed, file)
                return RawImage(values, opacity, orientation, pages), reduced
    except UnidentifiedImageError:
        if head[:4] not in tiff.MAGIC:
            raise
    return tiff.read_tiff(file, number), None


def _reduce(image: Image.Image, preprocess: ImagePreprocess) -> tuple[Pair, Pair] | None:
    """Has a JPEG decoded at 1/2, 1/4 or 1/8, where that is enough; else `None`.

    Returns:
        Width and height as stored; and how much of the pixels they cover once decoded.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    size = image.size
    width, height = preprocess.resized_shape(*size)  # turned or not, the proportions are these
    drafted = image.draft(None, (GAP * width, GAP * height))
    return (size, drafted[1][2:]) if drafted else None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Damaged EXIF data says nothing about the pixels.
        return 1


def _values(image: Image.Image, packed: str, file: BinaryIO) -> tuple[NDArray[Any], bool]:
    """The numbers of a loaded image, ``(height, width, channels)``, and whether the last channel is the opacity.

    `packed` is PIL's word for what was in the file.
    """
    mode, key = image.mode, image.info.get("transparency")
    values: NDArray[Any]
    if image.format == "PNG" and packed in ("LA;16B", "RGB;16B", "RGBA;16B"):
        values, opacity = _sixteen_bits(file, packed), mode == "RGBA"
    elif mode.startswith(("I", "F")):
        values, opacity = np.asarray(image)[:, :, None], False
    else:
        grey = mode in ("1", "L", "LA", "La")
        opacity = image.has_transparency_data
        wanted = ("L" if grey else "RGB") + ("A" if opacity else "")
        if mode in ("La", "RGBa", "PA"):  # PIL converts these to RGBA only
            image = image.convert("RGBA")
        pixels = np.asarray(image if image.mode == wanted else image.convert(wanted))
        return pixels.reshape(image.height, image.width, -1), opacity
    if key is None or values.dtype != np.uint16:
        return values, opacity
    seen = (values != np.array(key, dtype=np.uint16)).any(axis=2, keepdims=True)
    return np.concatenate([values, seen * np.uint16(65535)], axis=2), True


def _sixteen_bits(file: BinaryIO, packed: str) -> NDArray[np.uint16]:
    """All bits of a PNG of 16 bits in several channels, of which PIL unpacks the upper eight."""

    def unpacked(kind: str) -> NDArray[np.uint8]:
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as image:
            image.tile = [tile._replace(args=kind) for tile in image.tile]
            return np.asarray(image)

    if packed == "LA;16B":
        return unpacked("RGBA").view(">u2").astype(np.uint16)  # as many bytes, unpacked as they are
    # The upper half of a number whose lower byte comes first is the lower half of what the file holds.
    lower = unpacked(packed.replace("16B", "16L"))
    return np.asarray(unpacked(packed).astype(np.uint16) << 8 | lower, dtype=np.uint16)


def _with_channels(raw: RawImage, preprocess: ImagePreprocess) -> NDArray[np.uint8]:
    values, wanted, found = raw.values, preprocess.channels, raw.values.shape[2]
    pixel_range = preprocess.pixel_range or raw.pixel_range
    if raw.opacity and found != wanted:
        most = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
        seen = to_bytes(values[:, :, -1:], (0, most))
        pixels = on_white(np.concatenate([to_bytes(values[:, :, :-1], pixel_range), seen], axis=2))
        found -= 1
    else:
        pixels = to_bytes(values, pixel_range)
    if found not in (1, wanted) and (found, wanted) != (3, 1):
        raise BrokenImage(f"it has {found} channels where {wanted} are expected: see data.channels")
    return 255 - pixels if raw.negative else pixels


def _placed(pixels: NDArray[np.uint8], reduced: tuple[Pair, Pair] | None, orientation: int) -> DecodedImage:
    height, width = pixels.shape[:2]
    whole, (right, bottom) = reduced or ((width, height), (width, height))
    if reduced and orientation in TRANSPOSED:
        whole, (right, bottom) = (whole[1], whole[0]), (bottom, right)
    left = width - right if mirrored_left_right(orientation) else 0
    top = height - bottom if mirrored_up_down(orientation) else 0
    return DecodedImage(pixels, (int(whole[0]), int(whole[1])), (left, top, left + right, top + bottom))
