"""Which files are images: told by the end of their name, and where that tells nothing, by their first bytes."""

import os
import re
from pathlib import Path

from tl_lightning.data.archives.files import open_file

# The one table of what is read; a name that ends so is taken at its word, and said to be broken where it is not true.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jif .jfif .png .apng .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k .jpx .avif "
    ".avifs .heic .heif .dcm .dicom .nii .nii.gz".split()
)
SEVERAL = frozenset((".tif", ".tiff", ".dcm", ".dicom", ".nii", ".nii.gz"))  # of these, files may hold several images
UNREAD = {".jxl": "JPEG XL", ".svg": "SVG", ".psd": "Photoshop", ".exr": "OpenEXR"}
# Cameras' own files begin like TIFF, with a thumbnail where the image is expected.
RAW = frozenset(".dng .cr2 .cr3 .nef .nrw .arw .sr2 .orf .rw2 .raf .pef .srw .raw .3fr .iiq .x3f".split())
# Files that often lie beside images in large numbers: not worth a look.
OTHERS = frozenset(
    ".txt .md .csv .tsv .json .jsonl .xml .yaml .yml .html .htm .pdf .py .ipynb .npy .npz .mat .pkl .pt .db .ini .log "
    ".lnk .md5 .aae .xmp .mp4 .mov .avi .mkv .mp3 .wav .zip .tar .gz .7z".split()
)
# What systems and programs leave in people's folders: never anybody's data, and not worth a word.
SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir"))
SYSTEM_FOLDERS = frozenset(
    ("@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "__macosx", "__pycache__", "lost+found",
     "system volume information")
)  # fmt: skip
HEAD = 352  # bytes that tell the format
BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%PDF": "PDF",
}
READ = frozenset(("JPEG", "PNG", "GIF", "TIFF", "JPEG 2000", "WebP", "BMP", "PNM", "AVIF", "HEIC", "DICOM", "NIfTI"))
BRANDS = dict.fromkeys((b"avif", b"avis"), "AVIF") | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "HEIC"
)


def is_ignored(name: str, *, folder: bool = False) -> bool:
    """Whether a file or folder is hidden, or was left by a system rather than put there by a person.

    Args:
        name: The last part of its path.
        folder: Whether it is a folder.
    """
    return name.startswith(".") or name.lower() in (SYSTEM_FOLDERS if folder else SYSTEM_FILES)


def suffix_of(name: str) -> str:
    """The end of a name in small letters, such as ``.jpg`` or ``.nii.gz``; empty where it has none."""
    if name.lower().endswith(".nii.gz"):
        return ".nii.gz"
    return os.path.splitext(name)[1].lower()


def left_out_as(path: str) -> str | None:
    """What a file is called among those that are no images; `None` for an image that can be read.

    It is opened only where its name tells nothing.

    Args:
        path: The file.
    """
    suffix = suffix_of(path)
    if suffix in SUFFIXES:
        return None
    called = suffix or "without a suffix"
    if suffix in OTHERS:
        return called
    kind = "camera raw" if suffix in RAW else format_of(first_bytes(path)) or UNREAD.get(suffix)
    if kind in READ:
        return None
    return f"{called} ({kind})" if kind else called


def first_bytes(path: str) -> bytes:
    """What a file begins with; nothing of one that cannot be read, or is no regular file: a pipe would be waited for.

    Args:
        path: The file.
    """
    try:
        if os.path.lexists(path) and not os.path.isfile(path):
            return b""
        with open_file(Path(path)) as file:
            return file.read(HEAD)
    except Exception:  # also of a damaged archive
        return b""


def format_of(head: bytes) -> str | None:
    """The format of an image that begins so, in `READ` where it can be read; `None` for what is not known.

    Args:
        head: The first `HEAD` bytes of the file.
    """
    for beginning, kind in BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return "AVIF" if b"avif" in head[:32] else BRANDS.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[15:18] == bytes(3):  # as text may begin with BM, too
        return "BMP"
    if re.match(rb"P[1-6]\s+[#\d]", head):
        return "PNM"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "NIfTI"
    return "DICOM" if head[128:132] == b"DICM" else None
