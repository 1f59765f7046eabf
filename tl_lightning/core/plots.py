"""Charts for people, where matplotlib is installed; it is an extra, and slow to import.

A chart is a matplotlib figure of one size, which becomes a PNG of its own (`save_figure`) or an SVG within a page
(`as_svg`).
"""

import importlib.util
import io
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tl_lightning.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "pip install 'tl_lightning[plots]'"
SIZE = (5.625, 3.375)  # inches: on a phone, which is about as wide, the letters can still be read


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure(width: float = SIZE[0], height: float = SIZE[1]) -> tuple["Figure", "Axes"]:
    """An empty figure with one grid to draw on; without pyplot, so that no window system is asked for.

    Args:
        width: In inches.
        height: In inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def log_scale(axes: "Axes") -> None:
    """Makes equal factors equally far apart across, with numbers written out, which fonts of pages have."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def as_svg(figure: "Figure", name: str, tips: Mapping[str, str] | None = None) -> str:
    """A figure for a page: what is black takes the colour of the page's text, and nothing is behind it.

    Args:
        figure: Drawn with black where the text's colour is meant.
        name: Another one for every figure of a page, as their parts refer to each other by names.
        tips: What is shown where the pointer rests on a link, by what it links to.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # which name addresses on the web
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = re.sub(
        r"^.*?<svg [^>]*?(viewBox=\S+ \S+ \S+ [^ >]+)[^>]*>", r'<svg \1 role="img">', file.getvalue(), flags=re.S
    )
    for ours, theirs in (("<g", r'<g id="[^"]*"(?=>)'), ("", """font-family: [^;"]*(; )?"""), ("", ' target="_blank"')):
        text = re.sub(theirs, ours, text)  # names that several figures would share; the page's own font; its own rows
    text = text.replace("#000000", "currentColor").replace("xlink:href", "href")
    for link, tip in (tips or {}).items():
        text = text.replace(f'<a href="{link}">', f'<a href="{link}"><title>{escape(tip)}</title>')
    return text
