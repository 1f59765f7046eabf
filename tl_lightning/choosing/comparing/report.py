"""What a comparison shows and writes: tables and a page, ``summary.json`` and ``comparison.csv``."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from tl_lightning.choosing.comparing.growth import Growth
from tl_lightning.choosing.comparing.outcome import Outcome, Row
from tl_lightning.choosing.comparing.results import DIVERGED, METRICS, Measure, Result
from tl_lightning.core.console import console, new_table
from tl_lightning.core.files import write_csv, write_text
from tl_lightning.core.pages import page as pages
from tl_lightning.core.pages.page import NO_CHARTS, Charts, Facts, Part, to_html
from tl_lightning.core.plots import can_draw
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.metrics.words import in_words

STYLES = {
    "helped": "bold green",
    "better": "bold green",
    "no_evidence": "bold yellow",
    "worse": "bold red",
    "negative": "bold red",
}


def comparison_table(rows: Sequence[Row], measure: Measure, *, reference: str, baseline: float | None) -> Table:
    """Strategies side by side on the test images.

    Args:
        rows: With one share of the labels.
        measure: What is compared.
        reference: The strategy that the others are compared with.
        baseline: The metric of a prediction without a model.
    """
    labelled = next((f" with {row.labelled:,} labelled images" for row in rows if row.labelled is not None), "")
    gain = f"less error than {reference}" if measure.is_error else f"points more than {reference}"
    test = "McNemar p, accuracy" if measure.name in METRICS[1:] else "McNemar p"  # it knows right and wrong alone
    numbers = (in_words(measure.name), f"{gain} (95 % CI)", test, "of all")
    table = new_table(f"strategies{labelled}, on test", "strategy", numbers=numbers)
    for row in rows:
        if row.value is None:
            table.add_row(row.strategy, "failed", style="red")
            continue
        difference = "reference" if row.strategy == reference else in_interval(row, measure)
        tests = ("", "") if row.p is None else (f"{row.p:.2g}", f"{row.adjusted:.2g}")
        table.add_row(row.strategy, with_error(row), difference, *tests)
    if baseline is not None:
        table.add_section()
        table.add_row("without a model", f"{baseline:.3f}")
    return table


def cost_table(rows: Sequence[Row], measure: Measure) -> Table:
    """What validation said of strategies, and what they took."""
    numbers = (f"validation {in_words(measure.validation)}", "trainable", "seconds", "runs")
    table = new_table("and what they took", "strategy", numbers=numbers)
    for row in rows:
        runs = f"{len(row.seeds)} of {len(row.seeds) + len(row.failures)}" if row.failures else f"{len(row.seeds)}"
        cells = ("", "", "")
        if row.value is not None:
            cells = (f"{row.validation:.3f}", f"{row.trainable:,}", f"{row.seconds:.3g}")
        table.add_row(row.strategy, *cells, runs, style="red" if row.value is None else None)
    return table


def with_error(row: Row) -> str:
    """The test metric and its standard error."""
    return "failed" if row.value is None else f"{row.value:.3f} ± {row.error:.3f}"


def in_interval(row: Row, measure: Measure) -> str:
    """A difference with its interval, in points where the metric is a share."""
    if row.difference is None:
        return ""
    scale, digits = (1, ".3g") if measure.is_error else (100, ".1f")
    value, low, high = (scale * number for number in (row.difference.value, row.difference.low, row.difference.high))
    return f"{value:+{digits}} ({low:{digits}} to {high:{digits}})"


def shares_table(rows: Sequence[Row], measure: Measure) -> Table:
    """The test metric of every strategy with every share of the labels."""
    table = new_table(f"test {in_words(measure.name)} by labelled images", "strategy")
    fractions = list(dict.fromkeys(row.fraction for row in rows))
    for fraction in fractions:
        labelled = [row.labelled for row in rows if row.fraction == fraction and row.labelled is not None]
        table.add_column(f"{labelled[0]:,}" if labelled else f"{fraction:g}", justify="right")
    for strategy in dict.fromkeys(row.strategy for row in rows):
        values = {row.fraction: row for row in rows if row.strategy == strategy}
        table.add_row(strategy, *(with_error(values[fraction]) for fraction in fractions))
    return table


def tables(outcome: Outcome, measure: Measure) -> list[Table]:
    """Everything that is compared: the strategies, what they took, and every share of the labels."""
    rows = outcome.last
    shown = [comparison_table(rows, measure, reference=outcome.reference, baseline=outcome.baseline)]
    shown.append(cost_table(rows, measure))
    return [*shown, shares_table(outcome.rows, measure)] if len(outcome.rows) > len(rows) else shown


def conclusions(outcome: Outcome, growth: Growth | None, measure: Measure) -> Iterator[tuple[str, str, str]]:
    """What follows: a word, a sentence and its style."""
    failures = {job.name: result for job, result in outcome.made.items() if isinstance(result, str)}
    for name, reason in failures.items():
        yield "failed", f"{name}: {reason}", "red"
    if outcome.verdict is not None:
        yield "verdict", outcome.verdict.text, STYLES[outcome.verdict.kind]
        yield "", f"it is about {outcome.transfer}, as that is best on validation ({in_words(measure.validation)})", ""
    else:
        again = "; the same command with --run_dir tries again what did not complete"
        broken = any(not reason.startswith(DIVERGED) for reason in failures.values())
        yield "verdict", f"none: the runs that it needs failed{again if broken else ''}", ""
    for sentence in () if growth is None else growth.sentences:
        yield "labels", sentence, ""


def show(outcome: Outcome, growth: Growth | None, measure: Measure) -> None:
    """Prints the tables, the verdict, and what the learning curves say."""
    console.rule("comparison")
    for table in tables(outcome, measure):
        console.print(table)
    for word, sentence, style in conclusions(outcome, growth, measure):
        console.print(f"{word:<11}{sentence}", style=style or None)


def page(outcome: Outcome, growth: Growth | None, measure: Measure) -> str:
    """The same as a page, with charts where matplotlib is installed."""
    parts: list[Part] = [Facts([(word, sentence) for word, sentence, _ in conclusions(outcome, growth, measure)])]
    if can_draw():
        from tl_lightning.choosing.comparing.charts import draw_comparison, draw_curves

        charts = [draw_comparison(outcome, measure)] if any(row.value is not None for row in outcome.last) else []
        if growth is not None:
            until = max(2 * growth.now, growth.now + growth.more)
            perfect = 0.0 if measure.is_error else 1.0
            charts.append(draw_curves(growth.lines, metric=in_words(measure.name), perfect=perfect, until=until))
        parts += [Charts("", charts)] if charts else []
    else:
        parts.append(NO_CHARTS)
    return to_html("strategies compared", [*parts, *map(pages.Table.of, tables(outcome, measure))])


def summarise(outcome: Outcome, growth: Growth | None, measure: Measure) -> dict[str, Any]:
    """Everything as plain data, for ``summary.json``."""
    runs = []
    for job, result in outcome.made.items():
        entry = {"run": job.name, "strategy": job.strategy.name, "fraction": job.fraction, "seed": job.seed}
        if isinstance(result, Result):
            runs.append({**entry, "status": "completed", "validation": result.validation, "test": dict(result.test)})
        else:
            runs.append({**entry, "status": "failed", "error": result})
    return {
        "metric": measure.name,
        "validated_by": measure.validation,
        "reference": outcome.reference,
        "transfer": outcome.transfer,
        "verdict": None if outcome.verdict is None else asdict(outcome.verdict),
        "baseline": outcome.baseline,
        "strategies": [asdict(row) for row in outcome.rows],
        "curves": None if growth is None else growth.to_dict(),
        "runs": runs,
    }


def csv_rows(rows: Sequence[Row]) -> Iterator[list[object]]:
    """The columns of ``comparison.csv``, then a line per strategy and share of the labels."""
    names = "strategy fraction labelled value error validation p adjusted trainable seconds".split()
    ends = ("value", "low", "high")
    yield [*names, "difference", *ends[1:], "runs", "failed"]
    for row in rows:
        interval = [getattr(row.difference, end, None) for end in ends]
        yield [*(getattr(row, name) for name in names), *interval, len(row.seeds), len(row.failures)]


def write(outcome: Outcome, growth: Growth | None, measure: Measure, folder: Path) -> dict[str, Any]:
    """Writes the summary, the table and the page; says where they are.

    Returns:
        The summary.
    """
    summary = summarise(outcome, growth, measure)
    RunFolder(folder).write_summary(summary)
    write_csv(folder / "comparison.csv", csv_rows(outcome.rows))
    write_text(folder / "comparison.html", page(outcome, growth, measure))
    console.print(f"folder {folder}: summary.json, comparison.csv, comparison.html and a run per strategy and seed")
    return summary
