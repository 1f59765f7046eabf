"""The tables that a run shows: what trains, and what came out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from tl_lightning.core.console import new_table
from tl_lightning.data.leaks import KINDS, LeakReport
from tl_lightning.finetuning.freezing import StageRow
from tl_lightning.finetuning.phases import Phase
from tl_lightning.metrics.words import in_words
from tl_lightning.tasks.objectives import OBJECTIVES


def stage_table(phase: Phase, rows: Sequence[StageRow], *, title: str) -> Table:
    """Shows every stage's parameters, whether they train, at which peak learning rate, and the BatchNorm mode.

    Args:
        phase: The phase about to start.
        rows: From the task's ``phase_rows``.
        title: Above the table.
    """
    table = new_table(title, "stage", numbers=("parameters", "trainable", "learning rate"))
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
    metrics: Mapping[str, float],
    errors: Mapping[str, float],
    baseline: Mapping[str, float],
    constant: str,
    *,
    title: str,
) -> Table:
    """Shows metrics with their standard errors, and those of the baseline beside them.

    Args:
        metrics: The value of each, by its plain name.
        errors: Standard errors of some of them.
        baseline: What the metrics are without a model.
        constant: What the baseline is called.
        title: Above the table.
    """
    table = new_table(title, "metric", numbers=("value", "standard error", constant))
    for name, value in sorted(metrics.items(), key=lambda item: item[0] == "loss"):
        noise = "" if math.isnan(errors.get(name, math.nan)) else f"± {errors[name]:.4f}"
        beside = _number(baseline.get(name, math.nan))
        table.add_row(in_words(name), _number(value), noise, beside)
    return table


def score_table(rows: Sequence[Mapping[str, Any]], word: str, *, title: str) -> Table:
    """Shows how each class, label or number fared.

    Args:
        rows: With ``name`` first, then metrics by name; whole numbers are counts.
        word: What a row is about.
        title: Above the table.
    """
    table = new_table(title, word, numbers=map(in_words, list(rows[0])[1:]))
    for row in rows:
        name, *values = row.values()
        table.add_row(str(name), *map(_number, values))
    return table


def _number(value: float) -> str:
    """A count or a metric; a blank where there is no value."""
    return f"{value:,}" if isinstance(value, int) else "" if math.isnan(value) else f"{value:.4f}"


def leak_table(report: LeakReport, *, title: str) -> Table:
    """Shows how many images are there more than once, by where their twins are and how alike they are.

    Args:
        report: What was found.
        title: Above the table.
    """
    names = [f"same {kind}" if kind in ("file", "pixels") else kind for kind in KINDS]
    table = new_table(title, "images", numbers=names)
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
    skipped = f", {data['skipped']:,} broken images skipped" if data["skipped"] else ""
    if isinstance(data["problem_type"], str):
        what = OBJECTIVES[data["problem_type"]].described(data["classes"])
    else:
        described = {name: OBJECTIVES[kind].described for name, kind in data["problem_type"].items()}
        what = "; ".join(f"{name}: {of(data['classes'][name])}" for name, of in described.items())
    groups = "" if data["groups"] is None else f", {data['groups']:,} groups"
    fold = "" if data["fold"] is None else f", fold {data['fold']}"
    return f"data       {data['source']}: {what}, {sizes}{groups}{fold}{skipped}"


def split_table(data: Mapping[str, Any]) -> Table:
    """Shows how many images of each class, of one target or of several, are in each split.

    Args:
        data: The data module's summary.
    """
    one = isinstance(data["problem_type"], str)
    word = OBJECTIVES[data["problem_type"]].noun if one else "target and class"
    columns = {"train": "train", "val": "validation", "test": "test"}
    table = new_table("images", word, numbers=columns.values())
    for target, counts in {"": data["class_counts"]}.items() if one else data["class_counts"].items():
        for name in counts["train"]:
            table.add_row(f"{target} {name}".strip(), *(f"{counts[split][name]:,}" for split in columns))
    return table
