"""The charts of a comparison: how far each strategy is from the reference, and how all grow with the labels."""

from collections.abc import Sequence

import numpy as np

from tl_lightning.choosing.comparing.curves import forecast
from tl_lightning.choosing.comparing.growth import Line
from tl_lightning.choosing.comparing.outcome import Outcome
from tl_lightning.choosing.comparing.results import Measure
from tl_lightning.core.pages.page import Chart
from tl_lightning.core.plots import as_svg, log_scale, new_figure
from tl_lightning.metrics.words import in_words


def draw_comparison(outcome: Outcome, measure: Measure) -> Chart:
    """Draws a forest plot: each strategy's metric, with the interval of its difference to the reference around it.

    Args:
        outcome: With the largest share of the labels, a run or more ended well.
        measure: What is compared.
    """
    rows = [(row, row.value) for row in outcome.last if row.value is not None]
    figure, axes = new_figure()
    reference = next((value for row, value in rows if row.strategy == outcome.reference), None)
    colours = {outcome.reference: "tab:red", outcome.transfer: "tab:green"}
    better = -1 if measure.is_error else 1
    for place, (row, value) in enumerate(rows):
        colour = colours.get(row.strategy, "tab:blue")
        if row.difference is not None and reference is not None:
            ends = [reference + better * end for end in (row.difference.low, row.difference.high)]
            axes.plot(ends, [place, place], color=colour, linewidth=2, marker="|", markersize=10)
        axes.plot([value], [place], color=colour, marker="o")
    if reference is not None:
        axes.axvline(reference, color="tab:red", label=f"{outcome.reference}: {reference:.3f}")
    if outcome.baseline is not None:
        axes.axvline(outcome.baseline, color="gray", linestyle="--", label=f"without a model: {outcome.baseline:.3f}")
    stands = "\n(best on validation)"
    axes.set_yticks(
        range(len(rows)), [f"{row.strategy}{stands if row.strategy == outcome.transfer else ''}" for row, _ in rows]
    )
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"test {in_words(measure.name)}")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    caption = (
        f"A bar, the 95 % interval of the difference to {outcome.reference} on the same images, that does not reach "
        "the red line is a difference that chance does not explain."
    )
    return Chart(caption, as_svg(figure, "comparison"))


def draw_curves(lines: Sequence[Line], *, metric: str, perfect: float, until: int) -> Chart:
    """Draws scores against the number of labels, with fitted curves, and the 95 % band of what would come.

    Args:
        lines: One per strategy.
        metric: What the scores are, in words, such as ``accuracy`` or ``mean absolute error``.
        perfect: 1 for shares, 0 where scores are minus an error: they are drawn as the error then.
        until: How many labels the forecast goes to.
    """
    figure, axes = new_figure()
    sizes = sorted({size for line in lines for size in line.sizes})
    sign = 1 if perfect else -1
    for number, line in enumerate(lines):
        colour, scores = f"C{number}", [sign * score for score in line.scores]
        axes.errorbar(line.sizes, scores, yerr=line.errors, fmt="o", color=colour, capsize=4, label=line.name)
        if line.curve is None:
            axes.plot(line.sizes, scores, color=colour, alpha=0.5)
            continue
        along = np.geomspace(line.curve.smallest, until, 100)
        axes.plot(along, [sign * forecast(line.curve, labels).value for labels in along], "--", color=colour)
        beyond = np.geomspace(line.curve.largest, until, 40)
        band = sign * np.array([forecast(line.curve, labels) for labels in beyond])
        axes.fill_between(beyond, band[:, 1], band[:, 2], color=colour, alpha=0.15, linewidth=0)
    log_scale(axes)
    ticks = [*sizes, until]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set(xlabel="labelled images", ylabel=f"test {metric} (± 1 s.e.)")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    caption = "What more labels would bring: measured, fitted (dashed), and the 95 % interval of the forecast."
    return Chart(caption, as_svg(figure, "curves"))
