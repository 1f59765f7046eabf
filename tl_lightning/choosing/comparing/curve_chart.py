"""The image of learning curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_lightning.choosing.comparing.curves import forecast
from tl_lightning.choosing.comparing.power_law import Curve
from tl_lightning.core.plots import new_figure, save_figure

BEYOND = 2  # times the largest size: how far the forecast is drawn


@dataclass(frozen=True)
class Line:
    """What was measured of a strategy.

    Attributes:
        name: Of the strategy.
        sizes: Labelled images, ascending.
        scores: With each.
        errors: Their standard errors.
        curve: Fitted to them; `None` where there are too few sizes.
    """

    name: str
    sizes: Sequence[int]
    scores: Sequence[float]
    errors: Sequence[float]
    curve: Curve | None


def draw_curves(
    lines: Sequence[Line], file: Path, *, figure: str, perfect: float = 1.0, until: int | None = None
) -> None:
    """Draws scores against the number of labels, with fitted curves, and the 95 % band of what would come.

    Args:
        lines: One per strategy.
        file: The PNG to write.
        figure: What the scores are, in words, such as ``accuracy`` or ``mean absolute error``.
        perfect: 1 for shares, 0 where scores are minus an error: they are drawn as the error then.
        until: How many labels the forecast goes to; by default twice as many as were measured.
    """
    canvas, axes = new_figure()
    sizes = sorted({size for line in lines for size in line.sizes})
    end = until or BEYOND * sizes[-1]
    sign = 1 if perfect else -1
    for number, line in enumerate(lines):
        colour, scores = f"C{number}", [sign * score for score in line.scores]
        axes.errorbar(line.sizes, scores, yerr=line.errors, fmt="o", color=colour, capsize=4, label=line.name)
        if line.curve is None:
            axes.plot(line.sizes, scores, color=colour, alpha=0.5)
            continue
        along = np.geomspace(line.curve.smallest, end, 100)
        axes.plot(along, [sign * forecast(line.curve, labels).value for labels in along], "--", color=colour)
        beyond = np.geomspace(line.curve.largest, end, 40)
        band = sign * np.array([forecast(line.curve, labels) for labels in beyond])
        axes.fill_between(beyond, band[:, 1], band[:, 2], color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    ticks = [*sizes, end]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labelled images")
    axes.set_ylabel(f"test {figure} (± 1 s.e.)")
    axes.set_title("learning curves: measured, fitted (dashed), and the 95 % interval of the forecast")
    axes.legend()
    save_figure(canvas, file)
