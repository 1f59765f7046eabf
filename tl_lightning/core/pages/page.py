"""What a page is made of, as plain data, and how that becomes HTML."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich import table as rich_table
from rich.text import Text as RichText

from tl_lightning.core.plots import INSTALL


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: Plain.
        kind: ``lead`` is large, ``dim`` less loud, ``warning`` stands out, ``code`` is there to be copied.
        title: A heading above it; may be empty.
    """

    text: str
    kind: Literal["plain", "lead", "dim", "warning", "code"] = "plain"
    title: str = ""


NO_CHARTS = Text(f"Charts need matplotlib: {INSTALL}", "dim")


@dataclass(frozen=True)
class Facts:
    """Names with what they are, a line each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Link:
    """A cell that leads somewhere.

    Attributes:
        text: What is read.
        address: Relative to the page, quoted as addresses are.
    """

    text: str
    address: str


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        cells: From left to right.
        style: Words among bold, dim, red, green and yellow.
        name: By which links of the page lead to it; may be empty.
    """

    cells: Sequence[str | Link]
    style: str = ""
    name: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: The heading.
        columns: What each is called, and whether it holds numbers, which stand at the right.
        rows: From top to bottom.
        detail: A line below the heading; may be empty.
        sortable: Whether a click on a column's name sorts by it.
    """

    title: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[TableRow]
    detail: str = ""
    sortable: bool = False

    @classmethod
    def of(cls, table: rich_table.Table) -> "Table":
        """The table that the terminal shows."""
        columns = [(_plain(column.header), column.justify == "right") for column in table.columns]
        rows = zip(*(column.cells for column in table.columns), strict=True)
        styles = [str(row.style or "") for row in table.rows]
        return cls(
            _plain(table.title or ""),
            columns,
            [TableRow([_plain(cell) for cell in row], style) for row, style in zip(rows, styles, strict=True)],
        )


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, RichText) else RichText.from_markup(str(cell)).plain


@dataclass(frozen=True)
class Bar:
    """A row of bars.

    Attributes:
        name: What is counted.
        counts: One for each column; none for a row that only marks a place.
    """

    name: str
    counts: Sequence[int] = ()


@dataclass(frozen=True)
class Bars:
    """Counts as horizontal bars; each column has its own scale, so that shapes can be compared.

    Attributes:
        title: The heading.
        detail: A line below it; may be empty.
        columns: What the first column is called, then the columns of counts.
        rows: From top to bottom.
    """

    title: str
    detail: str
    columns: Sequence[str]
    rows: Sequence[Bar]

    @property
    def longest(self) -> list[int]:
        """The largest count of each column, at least 1."""
        return [max(1, *column) for column in zip(*(row.counts for row in self.rows if row.counts), strict=True)]


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        caption: One sentence: what to see in it.
        svg: As `tl_lightning.core.plots.as_svg` gives it.
        wide: Whether it takes the whole width, and is scrolled where that is too narrow.
    """

    caption: str
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Charts:
    """Charts side by side.

    Attributes:
        title: The heading.
        charts: One or more.
    """

    title: str
    charts: Sequence[Chart]


@dataclass(frozen=True)
class EncodedImage:
    """An image of a strip.

    Attributes:
        caption: One or two words.
        content: A JPEG or PNG file.
    """

    caption: str
    content: bytes

    @property
    def address(self) -> str:
        """The file as an address that holds it."""
        kind = "png" if self.content.startswith(b"\x89PNG") else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Strip:
    """One sample in several versions.

    Attributes:
        caption: Which file it is.
        detail: What is known of it.
        images: The versions.
    """

    caption: str
    detail: str
    images: Sequence[EncodedImage]


@dataclass(frozen=True)
class Strips:
    """Images of samples that belong together.

    Attributes:
        title: The heading.
        detail: Behind the heading, less loud.
        strips: May be none.
        small: Whether the images are so small that they are shown enlarged, pixel by pixel.
    """

    title: str
    detail: str
    strips: Sequence[Strip]
    small: bool = False


Part = Text | Facts | Table | Bars | Charts | Strips


def to_html(title: str, parts: Sequence[Part]) -> str:
    """A page with everything inside; whatever text is in its parts is escaped.

    Args:
        title: The heading.
        parts: From top to bottom.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sorts = any(isinstance(part, Table) and part.sortable for part in parts)
    named = [(type(part).__name__.lower(), part) for part in parts]
    return environment.get_template("page.html").render(title=title, parts=named, sorts=sorts)
