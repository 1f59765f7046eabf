"""Which parts of a file with several images are looked at: frames, pages, or the slices of a volume."""

import re
from dataclasses import dataclass

from tl_lightning.errors import UserError

PLANES = ("axial", "coronal", "sagittal")
_WORDS = {"all": slice(None), "first": slice(0, 1)}
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(\d*))?")


@dataclass(frozen=True)
class Frames:
    """A choice among the parts of a file.

    Attributes:
        plane: How a volume is cut: ``axial``, ``coronal`` or ``sagittal``.
        chosen: Which of the frames, pages or slices; `None` for the one in the middle.
    """

    plane: str
    chosen: slice | None

    @classmethod
    def parse(cls, text: str) -> "Frames":
        """Reads a choice: ``all``, ``first``, ``middle`` or a slice such as ``20:-20:4``, perhaps behind a plane.

        Args:
            text: Such as ``middle``, ``coronal`` or ``coronal:20:-20``.

        Raises:
            UserError: If it is none.
        """
        head, _, rest = text.partition(":")
        plane, which = (head, rest or "all") if head in PLANES else (PLANES[0], text)
        if which == "middle":
            return cls(plane, None)
        match = _SLICE.fullmatch(which)
        if which not in _WORDS and (match is None or match[3] == "0"):
            raise UserError(
                f"data.frames is {text!r}; it must be all, first, middle or a slice such as 20:-20:4, perhaps behind "
                f"{', '.join(PLANES)} and a colon"
            )
        if match is None:
            return cls(plane, _WORDS[which])
        start, stop, step = (int(number) if number else None for number in match.groups())
        return cls(plane, slice(start, stop, step))

    def among(self, count: int) -> range:
        """The numbers of the chosen parts, from 0.

        Args:
            count: How many the file has, 1 or more.
        """
        return range(count)[slice(count // 2, count // 2 + 1) if self.chosen is None else self.chosen]
