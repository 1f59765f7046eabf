"""DICOM files and NIfTI volumes, made in code, with what must never be met again in any output."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PERSONAL = ("Doe^Jane", "MRN-", "19700131", "Dr^Who")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RAS = np.eye(4)


def write_dicom(path: Path, values: NDArray[Any], *, patient: str = "1", bits: int | None = None, **said: Any) -> Path:
    """Writes a file of one frame ``(h, w)``, several ``(n, h, w)``, or colour ``(n, h, w, 3)``.

    ``said`` are further elements by their names; `None` takes one away.
    """
    frames = values[None] if values.ndim == 2 else values
    allocated = frames.dtype.itemsize * 8
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SECONDARY_CAPTURE
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.PatientName, made.PatientID, made.PatientBirthDate = "Doe^Jane", f"MRN-{patient}", "19700131"
    made.ReferringPhysicianName, made.StudyInstanceUID = "Dr^Who", generate_uid()
    made.Rows, made.Columns = frames.shape[1:3]
    if values.ndim > 2:
        made.NumberOfFrames = len(frames)
    made.SamplesPerPixel = 1 if frames.ndim == 3 else frames.shape[3]
    made.PhotometricInterpretation = "MONOCHROME2" if frames.ndim == 3 else "RGB"
    if frames.ndim == 4:
        made.PlanarConfiguration = 0
    made.BitsAllocated, made.BitsStored = allocated, bits or allocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(frames.dtype.kind == "i")
    content = frames.tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    for name, value in said.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def item(**said: Any) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for name, value in said.items():
        setattr(made, name, value)
    return made


def write_nifti(
    path: Path, values: NDArray[Any], *, affine: NDArray[Any] = RAS, slope: float | None = None, intercept: float = 0,
    window: tuple[float, float] | None = None,
) -> Path:  # fmt: skip
    """Writes a volume ``(x, y, z)`` whose axes go as the affine says."""
    image = nibabel.Nifti1Image(values, affine)
    if window:
        image.header["cal_min"], image.header["cal_max"] = window
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)
        image.header.set_data_dtype(values.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    if slope is not None:  # saved as if the numbers were scaled already
        patch_slope(path, slope, intercept)
    return path


def patch_slope(path: Path, slope: float, intercept: float) -> None:
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()
    path.write_bytes(content)
