"""A page that a person looks at: facts, bars and strips of images as one HTML file that needs nothing else."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 24px auto; max-width: 1240px;
  padding: 0 20px; }
h1 { font-size: 24px; margin: 0 0 12px; } h2 { font-size: 18px; margin: 32px 0 6px; }
h3 { font-size: 16px; margin: 22px 0 4px; } p { margin: 4px 0 8px; } .dim { color: #666; font-weight: normal; }
table { border-collapse: collapse; } td, th { padding: 2px 14px 2px 0; text-align: left; vertical-align: middle; }
th { font-weight: 600; } .name { max-width: 340px; overflow-wrap: anywhere; }
.bar { display: inline-block; height: 12px; background: #4a7ab5; margin-right: 6px; vertical-align: -1px; }
.marked td { color: #b3400e; font-weight: 600; border-top: 2px solid #b3400e; }
.warning { background: #fdf1e3; border-left: 4px solid #d9822b; padding: 6px 12px; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(590px, 1fr)); gap: 14px 20px; }
.strip { display: flex; gap: 4px; } figure { margin: 0; }
figure img { width: 112px; height: 112px; object-fit: contain; background: #eee; display: block; }
figcaption { font-size: 12px; color: #666; } .caption { font-size: 13px; overflow-wrap: anywhere; }
.small img { image-rendering: pixelated; }
"""
BAR_WIDTH = 160  # pixels of the longest bar of a column


@dataclass(frozen=True)
class DecodedImage:
    """An image of a strip.

    Attributes:
        caption: One or two words.
        content: A JPEG or PNG file.
    """

    caption: str
    content: bytes


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
    images: Sequence[DecodedImage]


@dataclass(frozen=True)
class Section:
    """Strips under a heading.

    Attributes:
        title: The heading.
        detail: Behind the heading, less loud.
        strips: May be none.
    """

    title: str
    detail: str
    strips: Sequence[Strip]


@dataclass(frozen=True)
class Row:
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
    rows: Sequence[Row]


@dataclass(frozen=True)
class Page:
    """All that the page says, in its order.

    Attributes:
        title: The heading.
        facts: Pairs of a name and what it is.
        warnings: Lines that stand out.
        bars: Tables of bars.
        sections: Strips of images.
        legend: What the images of the strips are.
        small: Whether the model's images are so small that they are shown enlarged, pixel by pixel.
        broken: Files that cannot be read, with the reasons.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()
    bars: Sequence[Bars] = ()
    sections: Sequence[Section] = ()
    legend: str = ""
    small: bool = False
    broken: Sequence[tuple[str, str]] = field(default_factory=list)

    def html(self) -> str:
        """The page, with everything inside."""
        title, kind = escape(self.title), "small" if self.small else ""
        facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(what)}</td></tr>" for name, what in self.facts)
        parts = [f"<h1>{title}</h1>", f"<table>{facts}</table>"]
        parts += [f'<p class="warning">{escape(line)}</p>' for line in self.warnings]
        parts += [_bars(bars) for bars in self.bars]
        if self.broken:
            rows = "".join(f"<tr><td>{escape(path)}</td><td>{escape(reason)}</td></tr>" for path, reason in self.broken)
            heading = "<tr><th>file</th><th>reason</th></tr>"
            parts.append(f"<h2>images that cannot be read</h2><table>{heading}{rows}</table>")
        parts.append(f"<h2>images</h2><p>{escape(self.legend)}</p>" if self.sections else "")
        parts += [_section(section) for section in self.sections]
        head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        body = "\n".join(parts)
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body class="{kind}">\n{body}\n</body></html>\n'


def _bars(bars: Bars) -> str:
    heading = "".join(f"<th>{escape(column)}</th>" for column in bars.columns)
    counted = [row.counts for row in bars.rows if row.counts]
    longest = [max(1, *column) for column in zip(*counted, strict=True)] if counted else []
    lines = []
    for row in bars.rows:
        name = f'<td class="name">{escape(row.name)}</td>'
        if not row.counts:
            lines.append(f'<tr class="marked"><td colspan="{len(bars.columns)}">{escape(row.name)}</td></tr>')
            continue
        cells = (
            f'<td><span class="bar" style="width:{round(BAR_WIDTH * count / most)}px"></span>{count:,}</td>'
            for count, most in zip(row.counts, longest, strict=True)
        )
        lines.append(f"<tr>{name}{''.join(cells)}</tr>")
    detail = f"<p>{escape(bars.detail)}</p>" if bars.detail else ""
    return f"<h2>{escape(bars.title)}</h2>{detail}<table><tr>{heading}</tr>\n{chr(10).join(lines)}</table>"


def _section(section: Section) -> str:
    strips = "\n".join(
        f'<div><div class="strip">{"".join(map(_figure, strip.images))}</div>'
        f'<div class="caption">{escape(strip.caption)} <span class="dim">{escape(strip.detail)}</span></div></div>'
        for strip in section.strips
    )
    heading = f'<h3>{escape(section.title)} <span class="dim">{escape(section.detail)}</span></h3>'
    return f'{heading}\n<div class="strips">{strips}</div>'


def _figure(picture: DecodedImage) -> str:
    kind = "png" if picture.content.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(picture.content).decode()
    caption = escape(picture.caption)
    image = f'<img src="data:image/{kind};base64,{data}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
