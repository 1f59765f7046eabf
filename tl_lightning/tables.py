"""The tables that a run shows: what trains, and what came out."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from tl_lightning.data.leaks import KINDS, LeakReport
from tl_lightning.finetuning.freezing import StageRow
from tl_lightning.finetuning.phases import Phase
from tl_lightning.metrics import ClassScore

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "mcc": "MCC",
    "calibration_error": "calibration error",
    "loss": "loss",
}


def stage_table(phase: Phase, rows: Sequence[StageRow], *, title: str) -> Table:
    """Shows every stage's parameters, whether they train, at which peak rate, and the BatchNorm mode.

    Args:
        phase: The phase about to start.
        rows: From the task's ``phase_rows``.
        title: Above the table.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("stage")
    for column in ("parameters", "trainable", "learning rate"):
        table.add_column(column, justify="right")
    table.add_column("BatchNorm")
    for row in rows:
        trainable = f"{row.trainable:,}" if row.trainable else "frozen"
        without = "solved" if row.trainable else ""
        rate = without if row.learning_rate is None else f"{row.learning_rate:.2e}"
        style = None if row.trainable else "dim"
        table.add_row(row.name, f"{row.parameters:,}", trainable, rate, row.batch_norm, style=style)
    total, trained = sum(row.parameters for row in rows), sum(row.trainable for row in rows)
    table.add_section()
    table.add_row("total", f"{total:,}", f"{trained:,}", "", "")
    return table


def result_table(
    metrics: Mapping[str, float], errors: Mapping[str, float], *, majority_accuracy: float, title: str
) -> Table:
    """Shows the figures with their standard errors, the majority class's accuracy beside them.

    Args:
        metrics: Plain names to figures.
        errors: Standard errors of some of them.
        majority_accuracy: Of always answering the most frequent class.
        title: Above the table.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("metric")
    for column in ("value", "standard error", "majority class"):
        table.add_column(column, justify="right")
    for name, words in NAMES.items():
        if name in metrics:
            noise = f"± {errors[name]:.4f}" if name in errors else ""
            baseline = f"{majority_accuracy:.4f}" if name == "accuracy" else ""
            table.add_row(words, f"{metrics[name]:.4f}", noise, baseline)
    return table


def class_table(scores: Sequence[ClassScore], *, title: str) -> Table:
    """Shows how each class fared.

    Args:
        scores: One for each class.
        title: Above the table.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("class")
    for column in ("examples", "precision", "recall", "F1"):
        table.add_column(column, justify="right")
    for score in scores:
        figures = (f"{value:.4f}" for value in (score.precision, score.recall, score.f1))
        table.add_row(score.name, str(score.examples), *figures)
    return table


def leak_table(report: LeakReport, *, title: str) -> Table:
    """Shows how many pictures are there more than once, by where their twins are and how alike they are.

    Args:
        report: What was found.
        title: Above the table.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("pictures")
    for kind in KINDS:
        table.add_column(f"same {kind}" if kind in ("file", "pixels") else kind, justify="right")
    rows: dict[str, Mapping[Any, int]] = {
        f"of {place.replace(' in ', ', also in ')}": k for place, k in report.across.items()
    }
    rows |= {f"twice within {split}": kinds for split, kinds in report.within.items()}
    rows["under two labels"] = report.relabelled
    for name, kinds in rows.items():
        if kinds:
            table.add_row(name, *(f"{kinds[kind]:,}" if kind in kinds else "" for kind in KINDS))
    return table


def data_line(data: Mapping[str, Any]) -> str:
    """Says in one line what the run learns from.

    Args:
        data: The data module's summary.
    """
    sizes = ", ".join(f"{data[split]:,} {split}" for split in ("train", "validation", "test"))
    skipped = f", {data['skipped']:,} broken pictures skipped" if data["skipped"] else ""
    return f"data       {data['source']}: {len(data['classes'])} classes, {sizes}{skipped}"
