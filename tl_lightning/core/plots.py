"""Images for people, where matplotlib is installed; it is an extra, and slow to import."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from tl_lightning.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "pip install 'tl_lightning[plots]'"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure() -> tuple["Figure", "Axes"]:
    """An empty figure with one grid to draw on; without pyplot, so that no window system is asked for."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
