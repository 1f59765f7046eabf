"""HEIC files, as telephones write them; PIL reads them with a plug-in, and AVIF by itself."""

from functools import cache
from typing import BinaryIO

from tl_lightning.data.images.formats import format_of
from tl_lightning.errors import UserError, shown

INSTALL = "pip install 'tl_lightning[heif]'"


def formats_for(file: BinaryIO, head: bytes) -> tuple[str, ...]:
    """Has PIL read a file, where it is a HEIC file; gives PIL's name of the format then, and nothing otherwise.

    Args:
        file: The file.
        head: Its first bytes.

    Raises:
        UserError: If a package is missing.
    """
    if format_of(head) != "HEIC":
        return ()
    try:
        _register()
    except ImportError as error:
        raise UserError(f"{shown(file.name)} is a HEIC file that needs the package pillow-heif: {INSTALL}") from error
    return ("HEIF",)


@cache
def _register() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
