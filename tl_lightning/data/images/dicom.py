"""DICOM files: one frame, in the units that the file states, through the window that it states.

Of a file's header only what pixels need is read, and of what says whose they are a code that leads nowhere back.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_lightning.data.images.formats import format_of
from tl_lightning.data.images.pixels import BrokenImage, RawImage, own_range
from tl_lightning.errors import UserError, shown

SUFFIXES = (".dcm", ".dicom")
INSTALL = "pip install 'tl_lightning[dicom]'"
GREY = ("MONOCHROME1", "MONOCHROME2")
DEFLATED = "1.2.840.10008.1.2.1.99"
# Explicit or implicit, little-endian or not: what a file without a header of its own can be encoded in.
PLAIN = {(True, True): "1.2.840.10008.1.2", (False, True): "1.2.840.10008.1.2.1", (False, False): "1.2.840.10008.1.2.2"}
PIXELS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{color}PaletteColorLookupTable{part}" for part in ("Descriptor", "Data") for color in ("Red", "Green", "Blue")),
    *(f"Segmented{color}PaletteColorLookupTableData" for color in ("Red", "Green", "Blue")),
)
_SALT = secrets.token_bytes(16)  # of this process: codes are compared and forgotten

Whose = Literal["patient", "study", "file"]
"""What may not be on two sides of a split: all images of a patient, of an examination, or of a file."""


@dataclass(frozen=True)
class DicomHeader:
    """What listing needs of a file.

    Attributes:
        frames: How many images it holds, 1 or more.
        whose: A code of its patient or study, alike for all files of one; empty where the file does not say.
    """

    frames: int
    whose: bytes


def is_dicom(head: bytes, name: object) -> bool:
    """Whether a file is one, by its first bytes; old ones, which lack the mark, by their name.

    Args:
        head: The first `HEAD` bytes.
        name: Of the file.
    """
    return format_of(head) == "DICOM" or str(name).lower().endswith(SUFFIXES)


def read_header(file: BinaryIO, whose: Whose) -> DicomHeader:
    """Reads how many frames there are, and whose they are.

    Args:
        file: Opened for reading.
        whose: What the code stands for; where no patient is named, it is the study.

    Raises:
        UserError: If a package is missing.
        Exception: Whatever a damaged file leads the decoder to.
    """
    names = {"patient": ("PatientID", "IssuerOfPatientID"), "study": (), "file": ()}[whose]
    header = _header(file, ("NumberOfFrames", "StudyInstanceUID", *names))
    said = [str(header.get(name) or "").strip() for name in names]
    if (not said or not said[0]) and whose != "file":
        said = [str(header.get("StudyInstanceUID") or "").strip()]
    code = hashlib.sha256(_SALT + "\0".join(said).encode(errors="replace")).digest() if any(said) else b""
    return DicomHeader(max(1, int(header.get("NumberOfFrames") or 1)), code)


def read_dicom(file: BinaryIO, frame: int, pixel_range: tuple[float, float] | None) -> RawImage:
    """Reads a frame.

    Args:
        file: Opened for reading.
        frame: Its number, from 0.
        pixel_range: What becomes black and white, in the units that the file states (for CT Hounsfield's); `None` for
            the first lookup table or window of the file, or without one from its smallest number to its largest.

    Returns:
        The numbers with the range that they are to be seen in; of a MONOCHROME1 file as a negative.

    Raises:
        BrokenImage: If the file holds no such frame, or one that is not understood.
        UserError: If a package is missing.
        Exception: Whatever a damaged file leads decoders to.
    """
    header = _header(file, PIXELS)
    if "Rows" not in header or "BitsAllocated" not in header:
        raise BrokenImage("a DICOM file without an image")
    if Image.MAX_IMAGE_PIXELS is not None and int(header.Rows) * int(header.Columns) > 2 * Image.MAX_IMAGE_PIXELS:
        raise BrokenImage("too many pixels to be safe")
    if frame >= (count := max(1, int(header.get("NumberOfFrames") or 1))):
        raise BrokenImage(f"it has no frame {frame}: there are {count}, counted from 0")
    values = _decoded(file, header, frame)
    kind = str(header.get("PhotometricInterpretation", "")).strip()
    if kind == "PALETTE COLOR":
        values, highest = _through_palette(values, header)
        return RawImage(values, pixel_range=pixel_range or (0, highest))
    if kind not in GREY:
        highest = 2 ** int(header.get("BitsStored") or header.BitsAllocated) - 1
        return RawImage(values, pixel_range=pixel_range or (0, highest))
    if header.BitsAllocated == 1:
        values = values * np.uint8(255)
    values = _rescaled(values, _of_frame(header, frame, "PixelValueTransformationSequence"))
    if pixel_range is None:
        values, pixel_range = _windowed(values, _of_frame(header, frame, "FrameVOILUTSequence"))
    return RawImage(values[:, :, None], pixel_range=pixel_range, negative=kind == "MONOCHROME1")


def _header(file: BinaryIO, names: tuple[str, ...]) -> Any:  # noqa: ANN401 - pydicom's data set
    """The elements of these names; no other is looked at."""
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"{shown(file.name)} is a DICOM file that needs the package pydicom: {INSTALL}") from error
    file.seek(0)
    return pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(names))


def _decoded(file: BinaryIO, header: Any, frame: int) -> NDArray[Any]:  # noqa: ANN401
    """The numbers as stored, ``(rows, columns)`` or with the channels last; colour is RGB."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    syntax = header.file_meta.get("TransferSyntaxUID") or PLAIN[header.original_encoding]
    file.seek(0)
    try:
        if syntax == DEFLATED:
            whole = pydicom.dcmread(file, specific_tags=[*PIXELS, "PixelData", "PlanarConfiguration"])
            values = np.asarray(pixel_array(whole, index=frame))
        else:
            values = np.asarray(pixel_array(file, index=frame, transfer_syntax_uid=syntax))
    except AttributeError as error:
        if "no pixel data" not in str(error) and "no 'Pixel Data'" not in str(error):
            raise
        raise BrokenImage("a DICOM file without an image") from error
    except NotImplementedError as error:
        raise BrokenImage(f"its pixels are encoded as {pydicom.uid.UID(syntax).name}, which is not read") from error
    except RuntimeError as error:
        if "missing dependencies" in str(error) or "missing required dependencies" in str(error):
            name = pydicom.uid.UID(syntax).name
            raise UserError(f"{shown(file.name)} is encoded as {name}, which needs a package: {INSTALL}") from error
        if "exceptions were raised by all available plugins" not in str(error):
            raise
        raise BrokenImage(
            f"damaged, or of a kind that is not read: its {pydicom.uid.UID(syntax).name} cannot be decoded"
        ) from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _of_frame(header: Any, frame: int, sequence: str) -> Any:  # noqa: ANN401
    """What holds for a frame: an item of its own, one that all share, or the file's header."""
    for groups, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = header.get(groups) or []
        if number < len(items) and (inner := items[number].get(sequence)):
            return inner[0]
    return header


def _rescaled(values: NDArray[Any], said: Any) -> NDArray[Any]:  # noqa: ANN401
    """The numbers in the units that a file states."""
    if tables := said.get("ModalityLUTSequence"):
        return _through_table(values, tables[0].LUTDescriptor, tables[0].LUTData)[0]
    slope, intercept = (said.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, offset = 1.0 if slope is None else float(slope), float(intercept or 0)
    return values if (slope, offset) == (1, 0) else values * slope + offset


def _windowed(values: NDArray[Any], said: Any) -> tuple[NDArray[Any], tuple[float, float] | None]:  # noqa: ANN401
    """The numbers that a file wants to be seen, and from which (black) to which (white); `None` for bytes."""
    if tables := said.get("VOILUTSequence"):
        seen, highest = _through_table(values, tables[0].LUTDescriptor, tables[0].LUTData)
        return seen, (0.0, highest)
    center, width = (_first(said.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width <= 0:
        return values, own_range(values)
    function = str(said.get("VOILUTFunction") or "LINEAR").strip()
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width)), (0.0, 1.0)
    if function == "LINEAR":  # part 3 of the standard, C.11.2.1.2: a window of 1 is a step
        center, width = center - 0.5, max(width - 1, 1e-6)
    return values, (center - width / 2, center + width / 2)


def _first(value: Any) -> float | None:  # noqa: ANN401 - one number, several, or none
    if value is None or value == "":
        return None
    several = isinstance(value, list | tuple) or hasattr(value, "__len__")
    return float(value[0]) if several and len(value) else None if several else float(value)


def _through_table(values: NDArray[Any], descriptor: Any, data: Any) -> tuple[NDArray[Any], float]:  # noqa: ANN401
    """What a lookup table makes of numbers, and the largest number that it may hold.

    pydicom's own counts the places of a table in the type of what the table holds: of 4,096 places in 256 levels it
    reads the first 256 only.
    """
    count, first, bits = int(descriptor[0]) or 2**16, int(descriptor[1]), int(descriptor[2])
    if isinstance(data, bytes):
        table = np.frombuffer(data, dtype=np.uint8 if len(data) < 2 * count else np.dtype("<u2"))[:count]
    else:
        table = np.asarray(data)[:count]
    if len(table) < count:
        raise BrokenImage(f"damaged: a lookup table has {len(table)} of its {count} numbers")
    places = np.clip(values.astype(np.int64) - first, 0, count - 1)
    highest = 2**bits - 1
    return table[places], float(highest if table.max() <= highest else 65535)


def _through_palette(values: NDArray[Any], header: Any) -> tuple[NDArray[Any], float]:  # noqa: ANN401
    """The colours of a palette, ``(rows, columns, 3)``, and the largest number that they may have."""
    if "SegmentedRedPaletteColorLookupTableData" in header:
        from pydicom.pixels.processing import apply_color_lut

        colors = np.asarray(apply_color_lut(values, header))[:, :, :3]
        return colors, float(np.iinfo(colors.dtype).max)
    parts = []
    for color in ("Red", "Green", "Blue"):
        descriptor, data = (header.get(f"{color}PaletteColorLookupTable{part}") for part in ("Descriptor", "Data"))
        if descriptor is None or data is None:
            raise BrokenImage("damaged: its palette is missing")
        parts.append(_through_table(values, descriptor, data))
    return np.stack([part for part, _ in parts], axis=2), max(highest for _, highest in parts)
