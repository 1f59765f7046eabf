"""NIfTI volumes: one slice, turned as radiologists look at it."""

import gzip
import zlib
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_lightning.data.archives.files import state_of
from tl_lightning.data.images.formats import HEAD, format_of
from tl_lightning.data.images.pixels import BrokenImage, RawImage, own_range
from tl_lightning.data.parts import Part
from tl_lightning.errors import UserError, shown

GZIP = b"\x1f\x8b"
INSTALL = "pip install 'tl_lightning[nifti]'"
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # of a volume from right to left, front to back, feet to head
_MOST = 1040  # times as large as its file the content of a gzip file can be


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume in memory.

    Attributes:
        values: The numbers as stored, ``(x, y, z, channels)``, from right to left, front to back and feet to head.
        slope: What they are multiplied by.
        intercept: What is added then.
        pixel_range: From which number to which it is to be seen; `None` for bytes.
    """

    values: NDArray[Any]
    slope: float
    intercept: float
    pixel_range: tuple[float, float] | None


def is_nifti(head: bytes, name: object) -> bool:
    """Whether a file is a volume, by its first bytes; a packed one by its name, too.

    Args:
        head: The first `HEAD` bytes.
        name: Of the file.
    """
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, HEAD)
        except zlib.error:
            head = b""
        return format_of(head) == "NIfTI" or (len(head) < HEAD and str(name).lower().endswith(".nii.gz"))
    return format_of(head) == "NIfTI"


def count_slices(file: BinaryIO, plane: str) -> int:
    """How many slices a volume has in a plane.

    Args:
        file: Opened for reading.
        plane: One of `AXES`.

    Raises:
        UserError: If a package is missing.
        Exception: Whatever a damaged file leads the decoder to.
    """
    image, turn = _opened(file)
    return int(_shape(image, turn)[AXES[plane]])


def read_nifti(file: BinaryIO, part: Part, pixel_range: tuple[float, float] | None) -> RawImage:
    """Reads a slice.

    The patient's right is on the left of an axial or coronal one, as in DICOM, and the front on the left of a sagittal
    one; the front, or the head, is at the top. Slices are counted from the right, the front and the feet. The volumes
    of a file with four dimensions are channels. What is no number is as dark as the smallest one.

    Args:
        file: Opened for reading.
        part: Which slice.
        pixel_range: What becomes black and white; `None` for the header's ``cal_min`` and ``cal_max``, or without them
            from the smallest number of the volume to its largest.

    Raises:
        BrokenImage: If there is no such slice, or the file is not understood.
        UserError: If a package is missing.
        Exception: Whatever a damaged file leads decoders to.
    """
    volume = _recent(file)
    axis = AXES[part.plane]
    if part.number >= volume.values.shape[axis]:
        raise BrokenImage(
            f"it has no {part.plane} slice {part.number}: there are {volume.values.shape[axis]}, counted from 0"
        )
    values = np.swapaxes(volume.values.take(part.number, axis=axis), 0, 1)  # from (across, down) to (down, across)
    if part.plane != "axial":
        values = values[::-1]
    if (volume.slope, volume.intercept) != (1, 0):
        values = values * volume.slope + volume.intercept
    return RawImage(values, pixel_range=pixel_range or volume.pixel_range)


def _opened(file: BinaryIO) -> tuple[Any, NDArray[Any]]:
    """The image as nibabel opens it, whose numbers are not read yet, and how its axes have to be turned."""
    try:
        import nibabel
    except ImportError as error:
        raise UserError(f"{shown(file.name)} is a NIfTI file that needs the package nibabel: {INSTALL}") from error
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    file.seek(0)
    packed = file.read(2) == GZIP
    file.seek(0)
    stream: Any = gzip.GzipFile(fileobj=file) if packed else file
    head = stream.read(HEAD)
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise BrokenImage("the header of a pair of files; save it as one .nii or .nii.gz")
    stream.seek(0)
    image = (nibabel.Nifti2Image if head[4:8] == b"n+2\0" else nibabel.Nifti1Image).from_stream(stream)
    found = io_orientation(image.affine)
    if np.isnan(found).any():  # says no direction
        return image, axcodes2ornt("LPS")
    return image, ornt_transform(found, axcodes2ornt("LPS"))


def _shape(image: Any, turn: NDArray[Any]) -> NDArray[np.int64]:  # noqa: ANN401
    """The sides of a volume once it is turned."""
    sides = np.ones(3, dtype=np.int64)
    for axis, side in enumerate(image.shape[:3]):
        sides[int(turn[axis, 0])] = side
    return sides


def _load(file: BinaryIO) -> Volume:
    from nibabel.orientations import apply_orientation

    image, turn = _opened(file)
    shape = tuple(image.shape)
    channels = [side for side in shape[3:] if side != 1]
    if not shape or len(channels) > 1:
        raise BrokenImage(f"its numbers have the shape {shape}; three dimensions are expected, or four for channels")
    sides = _shape(image, turn).tolist()
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and max(sides[0] * sides[1], sides[0] * sides[2], sides[1] * sides[2]) > 2 * limit:
        raise BrokenImage("too many pixels to be safe")
    kind, here = image.header.get_data_dtype(), file.tell()
    size = file.seek(0, 2)
    file.seek(here)  # where the stream goes on
    if int(np.prod(shape, dtype=np.float64)) * kind.itemsize > _MOST * size:
        raise BrokenImage("damaged: image file is truncated")
    values = np.asanyarray(image.dataobj.get_unscaled())
    if values.dtype.names:  # colour
        values = np.stack([values[name] for name in values.dtype.names], axis=-1)
        channels = [values.shape[-1]]
    values = values.reshape(*(*shape, 1, 1)[:3], channels[0] if channels else 1)
    values = np.asarray(apply_orientation(values, turn))
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f" and (empty := np.isnan(values)).any() and not empty.all():
        values = np.where(empty, values[~empty].min(), values)  # outside of what was looked at
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if values.dtype == np.uint8 and (slope, intercept) == (1, 0):
        return Volume(values, slope, intercept, None)
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    if low < high:
        return Volume(values, slope, intercept, (low, high))
    stored = own_range(values)
    ends = sorted(end * slope + intercept for end in stored) if stored else None
    return Volume(values, slope, intercept, (ends[0], ends[1]) if ends else None)


class _Recent:
    """The volumes that were read last: the slices of one come after each other, and a packed one is read as a whole.

    Each is read by one thread, for which the others that want it wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._volumes: OrderedDict[object, Future[Volume]] = OrderedDict()

    def __call__(self, file: BinaryIO) -> Volume:
        key = (str(file.name), state_of(Path(file.name)))
        with self._lock:
            found = self._volumes.get(key)
            loading = found is None
            future = self._volumes[key] = Future() if found is None else found
            self._volumes.move_to_end(key)
            while len(self._volumes) > self._most:
                self._volumes.popitem(last=False)
        if loading:
            try:
                future.set_result(_load(file))
            except BaseException as error:
                with self._lock:  # another attempt may find the machine in a better state
                    self._volumes.pop(key, None)
                future.set_exception(error)
        return future.result()


_recent = _Recent(most=4)
