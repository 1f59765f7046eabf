"""The image of a comparison: how far each strategy is from the reference, and how sure that is."""

from pathlib import Path

from tl_lightning.choosing.comparing.outcome import Outcome
from tl_lightning.choosing.comparing.results import Measure
from tl_lightning.core.plots import new_figure, save_figure
from tl_lightning.metrics.words import in_words


def draw_comparison(outcome: Outcome, measure: Measure, file: Path) -> None:
    """Draws a forest plot: each strategy's figure, with the interval of its difference to the reference around it.

    An interval that does not reach the line of the reference is a difference that chance does not explain.

    Args:
        outcome: Of the comparison; with the largest share of the labels, a run or more ended well.
        measure: What is compared.
        file: The PNG to write.
    """
    rows = [(row, row.value) for row in outcome.last if row.value is not None]
    figure, axes = new_figure()
    reference = next((value for row, value in rows if row.strategy == outcome.reference), None)
    better = -1 if measure.is_error else 1
    for place, (row, value) in enumerate(rows):
        color = (
            "tab:red"
            if row.strategy == outcome.reference
            else "tab:green"
            if row.strategy == outcome.transfer
            else "tab:blue"
        )
        if row.difference is not None and reference is not None:
            ends = [reference + better * end for end in (row.difference.low, row.difference.high)]
            axes.plot(ends, [place, place], color=color, linewidth=2, marker="|", markersize=10)
        axes.plot([value], [place], color=color, marker="o")
    if reference is not None:
        axes.axvline(reference, color="tab:red", label=f"{outcome.reference}: {reference:.3f}")
    if outcome.baseline is not None:
        axes.axvline(outcome.baseline, color="gray", linestyle="--", label=f"without a model: {outcome.baseline:.3f}")
    stands = "\n(best on validation)"
    names = [f"{row.strategy}{stands if row.strategy == outcome.transfer else ''}" for row, _ in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(
        f"test {in_words(measure.name)}; bars: 95 % interval of the difference to {outcome.reference}, same images"
    )
    labelled = next((f", {row.labelled:,} labelled images" for row, _ in rows if row.labelled is not None), "")
    axes.set_title(f"strategies compared{labelled}")
    if reference is not None or outcome.baseline is not None:
        axes.legend()
    save_figure(figure, file)
