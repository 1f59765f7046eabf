"""A sweep as a page for people."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tl_lightning.core.files import write_text
from tl_lightning.core.pages.page import NO_CHARTS, Bar, Bars, Charts, Link, Part, Table, TableRow, Text, to_html
from tl_lightning.core.plots import can_draw
from tl_lightning.running.sweeping.best import best_trial, command_of
from tl_lightning.running.sweeping.charts import Axis, SweepCharts
from tl_lightning.running.sweeping.noise import metric_of, standard_error, test_score, within_noise
from tl_lightning.running.sweeping.showing import (
    STATES,
    is_scored,
    number_of,
    ranked,
    score_text,
    short_names,
    value_text,
    varied,
)
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.table import counts
from tl_lightning.running.sweeping.trials import Trial

MANY = 10  # parameters that the chart of all values has room for; those that mattered most
STYLES = {"failed": "red", "stopped": "dim"}


def write_report(sweep: SweepFile, trials: Sequence[Trial], folder: Path, *, importance: Mapping[str, float]) -> Path:
    """Writes ``report.html`` into the folder of a sweep.

    Args:
        sweep: What was asked for.
        trials: All, in any state.
        folder: The sweep's; its ``best.yaml`` is named where it is there already.
        importance: The share of each parameter, by key; may be empty.

    Returns:
        The file.
    """
    file, ordered = folder / "report.html", sorted(trials, key=lambda trial: trial.number)
    write_text(file, to_html(f"sweep {sweep.name}", [*parts(sweep, ordered, folder, importance=importance)]))
    return file


def parts(
    sweep: SweepFile, trials: Sequence[Trial], folder: Path, *, importance: Mapping[str, float]
) -> Iterator[Part]:
    """The page, from the best trial to the table of all.

    Args:
        sweep: What was asked for.
        trials: In order.
        folder: Where the page will be.
        importance: The share of each parameter, by key; may be empty.
    """
    best, names = best_trial(sweep, trials), short_names(varied(sweep))
    yield Text(f"{sweep.method} search, {sweep.goal} {sweep.metric}: {counts(trials, planned=None)}", "dim")
    if best is None:
        yield Text("No trial was completed, so there is no best one.", "lead")
    else:
        yield Text(f"{sweep.metric} {score_text(best.score)}, trial {best.number}", "lead")
        yield Text(_command(sweep, best), "code")
        if (folder / "best.yaml").is_file():
            yield Text(f"The same as a file: tl fit --config {folder / 'best.yaml'}")
        yield from (Text(line, "warning") for line in _honest(sweep, trials, best))
    if any(map(is_scored, trials)):
        yield from _charts(sweep, trials, best, importance) if can_draw() else [NO_CHARTS]
    if importance:
        what = "How much good trials differ from all (PED-ANOVA); with few trials a rough guide."
        rows = [Bar(names.get(key, key), [round(100 * share)]) for key, share in importance.items()]
        yield Bars("What mattered", what, ["parameter", "per cent"], rows)
    if trials:
        yield _table(trials, best, names, folder)
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        reasons = [TableRow([str(trial.number), trial.error or "no reason is known"]) for trial in failed]
        yield Table("Failed", [("trial", True), ("reason", False)], reasons)


def _command(sweep: SweepFile, best: Trial) -> str:
    """Ready to be copied into a shell, an option per line."""
    words = [shlex.quote(word) for word in command_of(sweep, best)]
    return "".join(f" \\\n    {word}" if word.lstrip("'").startswith("--") else f" {word}" for word in words).strip()


def _honest(sweep: SweepFile, trials: Sequence[Trial], best: Trial) -> Iterator[str]:
    others = [trial for trial in ranked(sweep, trials) if trial.state in ("completed", "stopped")]
    if len(others) > 1:
        yield (
            f"{score_text(best.score)} is the best of {len(others)} validation scores, and so too good: chosen for "
            "being the best, it was lucky as well."
        )
    if (test := test_score(sweep, best)) is not None:
        yield (
            f"On the test images, which chose nothing, this trial has {metric_of(sweep.metric)} {score_text(test)}. "
            "That is the one number to quote."
        )
    error = standard_error(sweep, best)
    if error is not None and len(others) > 1:
        near = within_noise(sweep, trials, best, error=error)
        completed = sum(trial.state == "completed" for trial in others) - 1
        what = f"{near} of the other {completed} completed trials lie" if near != 1 else "1 other completed trial lies"
        yield (
            f"The standard error of its validation score is {error:.2g}; {what} within two of them of the best"
            + (", and may be as good." if near else ".")
        )


def _charts(
    sweep: SweepFile, trials: Sequence[Trial], best: Trial | None, importance: Mapping[str, float]
) -> Iterator[Part]:
    charts, names = SweepCharts(sweep, trials, best), short_names(varied(sweep))
    yield Charts("Scores", [chart for chart in (charts.history(), charts.curves()) if chart is not None])
    scored = [trial for trial in trials if is_scored(trial)]
    values = {key: [trial.values[key] for trial in scored if key in trial.values] for key in names}
    axes = {key: Axis.of(sweep.parameters[key], found) for key, found in values.items() if found}
    if axes:
        most = sorted(axes, key=lambda key: -importance.get(key, 0.0))[:MANY]
        left = f": the {MANY} parameters of {len(axes)} that mattered most" if len(axes) > MANY else ""
        yield Charts(
            f"All values{left}", [charts.parallel({key: (names[key], axes[key]) for key in axes if key in most})]
        )
        single = [charts.by_parameter(key, axis, names[key]) for key, axis in axes.items()]
        yield Charts("One parameter at a time", single)


def _table(trials: Sequence[Trial], best: Trial | None, names: Mapping[str, str], folder: Path) -> Table:
    rows = []
    for trial in trials:
        score = score_text(trial.score) if is_scored(trial) else ""
        values = [value_text(trial.values[key]) if key in trial.values else "" for key in names]
        seconds = "" if trial.seconds is None else f"{trial.seconds:.0f}"
        path = Link(trial.folder.name, quote(os.fsencode(Path(os.path.relpath(trial.folder, folder)).as_posix())))
        cells: list[str | Link] = [
            str(trial.number),
            score,
            STATES[trial.state],
            *values,
            str(len(trial.history)),
            seconds,
            path,
        ]
        style = "bold" if best is not None and trial.number == best.number else STYLES.get(trial.state, "")
        rows.append(TableRow(cells, style, f"trial-{trial.number}"))
    columns = [("trial", True), ("score", True), ("state", False)]
    for key, name in names.items():
        columns.append((name, all(number_of(trial.values[key]) is not None for trial in trials if key in trial.values)))
    return Table(
        "All trials", [*columns, ("validations", True), ("seconds", True), ("folder", False)], rows, sortable=True
    )
