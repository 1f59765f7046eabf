"""What a range test found, as a curve, a table and words."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from tl_lightning.core.plots import new_figure, save_figure
from tl_lightning.finetuning.freezing import StageRow
from tl_lightning.inspecting.learning_rates.range_test import Curve


def draw(curve: Curve, path: Path, *, phase_lr: float, suggested: float | None, title: str) -> None:
    """Draws the loss over the head's learning rate, whole or not at all.

    Args:
        curve: At least one step of it.
        path: The PNG, replaced where it exists.
        phase_lr: The head's learning rate in the phase, at factor 1.
        suggested: The suggested factor, if there is one.
        title: Above the image.
    """
    lrs = [phase_lr * factor for factor in curve.factors]
    figure, axes = new_figure()
    axes.set_xscale("log")
    axes.plot(lrs, curve.losses, color="tab:blue", alpha=0.3, linewidth=1, label="loss of each batch")
    axes.plot(lrs, curve.smoothed, color="tab:blue", linewidth=2, label="smoothed")
    axes.axvline(phase_lr, color="gray", linestyle="--", label=f"configured: {phase_lr:.2g}")
    if suggested is not None:
        lr = phase_lr * suggested
        axes.axvline(lr, color="tab:red", label=f"suggested: {lr:.2g}")
    # One exploding batch would press everything worth seeing into a flat line.
    top = min(max(curve.losses), 2.5 * max(curve.smoothed[: curve.best + 1]))
    bottom = min(curve.losses)
    margin = 0.05 * (top - bottom) or 0.1
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_title(title)
    axes.set_xlabel("learning rate of the head; the stages' rise in proportion")
    axes.set_ylabel("training loss")
    axes.legend()
    save_figure(figure, path)


def rate_table(rows: list[StageRow], factor: float | None, *, title: str) -> Table:
    """Shows the learning rate of each stage that trains, as configured and as suggested.

    Args:
        rows: From the task's ``phase_rows``.
        factor: The suggested factor; `None` where there is none.
        title: Above the table.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("group")
    for column in ("configured rate", "suggested rate"):
        table.add_column(column, justify="right")
    for row in rows:
        if row.learning_rate is not None:
            suggested = "" if factor is None else f"{row.learning_rate * factor:.2e}"
            table.add_row(row.name, f"{row.learning_rate:.2e}", suggested)
    return table


def explanation(curve: Curve, factor: float | None, *, phase_lr: float, lr: float) -> Iterator[str]:
    """What came out, in words: the lines below the table."""
    tested = f"{curve.factors[0] * phase_lr:.1e} to {curve.factors[-1] * phase_lr:.1e}"
    ends = {
        "complete": "to the end without diverging",
        "diverged": "until the loss diverged",
        "not_finite": "until the loss was no finite number",
    }
    yield f"tested the head's rate from {tested} in {len(curve.factors)} steps, {ends[curve.end]}"
    if factor is None:
        yield (
            "no suggestion: the loss never fell clearly, by more than its noise from batch to batch; "
            "try more --steps, a lower --lowest, or look at the data"
        )
        return
    if curve.end == "complete" and len(curve.factors) - curve.best <= curve.window:
        yield "the loss was still falling at the end: a higher --highest may show better rates"
    yield f"--model.lr {lr * factor:.2g}"
