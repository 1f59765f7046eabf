"""Zip archives, read in place."""

import stat
import zipfile
from pathlib import Path

from tl_lightning.data.archives.members import Member, Members, is_absurd, tidy
from tl_lightning.errors import UserError, shown

DOS, UNIX = 0, 3  # what made an entry
UTF8, ENCRYPTED = 0x800, 0x1  # its flags


def open_zip(path: Path) -> Members:
    """Reads the directory of a zip archive; its file stays open for this process.

    Raises:
        UserError: If it is cut off, encrypted, or holds what would be absurdly large once unpacked.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(
            f"{path} is a damaged or cut off zip archive ({' '.join(str(error).split())}): download it again"
        ) from error
    infos = {_name(info): info for info in archive.infolist() if not (_name(info).endswith("/") or _is_link(info))}
    for name, info in infos.items():
        if info.flag_bits & ENCRYPTED:
            raise UserError(f"{path} is encrypted ({shown(name)}): unpack it with its password first")
        if is_absurd(info.file_size, packed=info.compress_size):
            raise UserError(
                f"{path} holds {shown(name)}, whose {info.compress_size:,} bytes would become {info.file_size:,}: "
                "do not trust it; remove that file"
            )

    def member(info: zipfile.ZipInfo) -> Member:
        return Member(info.file_size, lambda: archive.read(info))

    return Members(path, {whole: member(infos[name]) for name, whole in tidy(path, infos).items()})


def _is_link(info: zipfile.ZipInfo) -> bool:
    return info.create_system == UNIX and stat.S_ISLNK(info.external_attr >> 16)


def _name(info: zipfile.ZipInfo) -> str:
    """The name as its maker meant it: Macs write UTF-8 without saying so, older Windows has its own separator."""
    name = info.filename
    if not info.flag_bits & UTF8 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return name.replace("\\", "/") if info.create_system == DOS else name
