"""The images that an export names: by paths of the machine that made it, which are others here."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tl_lightning.data.archives.files import is_file
from tl_lightning.data.images.formats import SUFFIXES, suffix_of
from tl_lightning.data.samples import name_some
from tl_lightning.errors import UserError, shown

PLACES = ("", "images", "media", "data")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # what Label Studio puts before the name of a file that was uploaded


def locate(stated: Sequence[str], root: Path, source: str, *, parts: Sequence[str] | None = None) -> list[Path]:
    """Finds each image below the folder that the export lies in.

    Of a path that is not there its last parts are looked for, the longest first, and in ``images/``, ``media/`` and
    ``data/``; of an address with ``?d=``, as of Label Studio's local files, what follows that.

    Args:
        stated: Paths or names, also without a suffix.
        root: The folder, which may lie in an archive.
        source: What messages call the export.
        parts: The sub-set of each, in a folder of which it may lie as well.

    Raises:
        UserError: If images are missing, or two names lead to one file.
    """
    found = [_located(name, root, parts[row] if parts else "") for row, name in enumerate(stated)]
    if missing := [name for name, path in zip(stated, found, strict=True) if path is None]:
        addresses = [name for name in missing if "://" in name]
        advice = (
            "download them" if addresses else "put them"
        ) + f" into {root / 'images'}, under the last part of these names"
        raise UserError(
            f"data.source {source}: {len(missing)} of its {len(stated)} images are not beside it: "
            f"{name_some([shown(name) for name in addresses or missing], most=3)}; {advice}"
        )
    places: dict[Path, str] = {}
    paths = [path for path in found if path is not None]
    for name, path in zip(stated, paths, strict=True):
        if places.setdefault(path, name) != name:
            raise UserError(
                f"data.source {source}: both {shown(places[path])} and {shown(name)} lead to {path}; keep the folders "
                "that tell them apart"
            )
    return paths


def _located(stated: str, root: Path, part: str) -> Path | None:
    address = urlsplit(stated)
    inside = parse_qs(address.query).get("d", [""])[0]
    name = (inside or (unquote(address.path) if address.scheme or "%" in stated else stated)).replace("\\", "/")
    steps = [step for step in name.split("/") if step not in ("", ".", "..")]
    if not steps:
        return None
    for start in range(len(steps)):
        tail = steps[start:]
        for place in dict.fromkeys((*PLACES, part, f"images/{part}")):
            if found := _with_a_suffix(root.joinpath(*filter(None, place.split("/")), *tail)):
                return found
    if uploaded := _UPLOADED.fullmatch(steps[-1]):
        return _located(uploaded[1], root, part)
    return None


def _with_a_suffix(path: Path) -> Path | None:
    if is_file(path):
        return path
    if suffix_of(path.name) in SUFFIXES:
        return None
    return next((found for suffix in sorted(SUFFIXES) if is_file(found := path.with_name(path.name + suffix))), None)
