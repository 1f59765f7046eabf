"""Names of classes that are probably not what their maker meant: one class written in two ways, or a missing value."""

import unicodedata
from collections.abc import Iterable

from tl_lightning.data.samples import are_numbers, name_some

MISSING = frozenset(("nan", "NaN", "NAN", "null", "NULL", "None", "n/a", "N/A", "NA", "#N/A", "<NA>", "NaT"))


def doubtful_names(names: Iterable[str]) -> list[str]:
    """What is odd about the names of the classes of one target, a line each.

    Args:
        names: All of them.
    """
    alike: dict[str, list[str]] = {}
    names = list(names)
    for name in names:
        alike.setdefault(_plain(name), []).append(name)
    said = [
        f"the classes {' and '.join(in_code(same))} differ only in how they are written (capitals, blanks, Unicode "
        "form) and are learned as different ones: give them one name if they are the same"
        for same in alike.values()
        if len(same) > 1
    ]
    if missing := [repr(name) for name in names if name in MISSING]:
        said.append(
            f"{name_some(missing)} is learned as a class: if it stands for a missing label, leave the cell blank"
        )
    return said


def same_text(name: str) -> str:
    """The one form of a text that Unicode writes in several: é is one character or two."""
    return unicodedata.normalize("NFC", name)


def likeness(name: str, known: Iterable[str]) -> str:
    """Names the known class that differs only in how it is written, as the tail of a message; empty without one."""
    like = [other for other in known if _plain(other) == _plain(name)]
    return f"; it differs from {in_code(like)[0]} only in how it is written" if like else ""


def in_code(names: list[str]) -> list[str]:
    """Names in quotes, such that one sees how they differ."""
    return [ascii(name) if len({*map(same_text, names)}) < len(names) else repr(name) for name in names]


def _plain(name: str) -> str:
    if are_numbers([name]):
        return name
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(seen.casefold().split())
