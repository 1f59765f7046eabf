"""A sweep as a page for people: one HTML file that needs nothing else."""

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tl_lightning.core.files import write_text
from tl_lightning.running.sweeping.best import best_trial, command_of
from tl_lightning.running.sweeping.noise import metric_of, standard_error, test_score, within_noise
from tl_lightning.running.sweeping.report_charts import images
from tl_lightning.running.sweeping.report_table import failures, table
from tl_lightning.running.sweeping.showing import (
    ranked,
    score_text,
)
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.table import counts
from tl_lightning.running.sweeping.trials import Trial

CROWD = 150  # trials that are drawn thinner


def write_report(sweep: SweepFile, trials: Sequence[Trial], folder: Path, *, importance: Mapping[str, float]) -> Path:
    """Writes ``report.html`` into the folder of a sweep.

    Args:
        sweep: What was asked for.
        trials: All, in any state.
        folder: Of the sweep; its ``best.yaml`` is named where it is there already.
        importance: Of the parameters, by key; may be empty.

    Returns:
        The file.
    """
    file = folder / "report.html"
    write_text(file, page(sweep, sorted(trials, key=lambda trial: trial.number), folder, importance=importance))
    return file


def page(sweep: SweepFile, trials: Sequence[Trial], folder: Path, *, importance: Mapping[str, float]) -> str:
    """The page, with everything inside; what was written by others is escaped.

    Args:
        sweep: What was asked for.
        trials: In order.
        folder: Where the page will be.
        importance: Of the parameters, by key; may be empty.
    """
    style, script = (Path(__file__).with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    best, title = best_trial(sweep, trials), escape(f"sweep {sweep.name}")
    about = f"{sweep.method} search, {sweep.goal} {sweep.metric}: {counts(trials, planned=None)}"
    parts = [f"<h1>{title}</h1>", f'<p class="dim">{escape(about)}</p>', _headline(sweep, best, folder)]
    if best is not None:
        parts.append(_honest(sweep, trials, best))
    parts += images(sweep, trials, best, importance)
    parts += [table(sweep, trials, best, folder), failures(trials)]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style>"
    )
    body = "\n".join([*parts, '<div id="told" aria-live="polite"></div>', f"<script>{script}</script>"])
    kind = ' class="many"' if len(trials) > CROWD else ""
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body{kind}>\n{body}\n</body></html>\n'


def _headline(sweep: SweepFile, best: Trial | None, folder: Path) -> str:
    if best is None:
        return '<div class="headline"><p>No trial was completed, so there is no best one.</p></div>'
    score = f"{escape(score_text(best.score))} <small>{escape(sweep.metric)}, trial {best.number}</small>"
    lines = [f'<div class="score">{score}</div>', f"<pre>{escape(_command(sweep, best))}</pre>"]
    if (folder / "best.yaml").is_file():
        lines.append(
            f'<p>The same as a file: <a href="best.yaml">best.yaml</a>, for <code>{_with_file(folder)}</code></p>'
        )
    return f'<div class="headline">{"".join(lines)}</div>'


def _command(sweep: SweepFile, best: Trial) -> str:
    """Ready to be copied into a shell, an option per line."""
    words = [shlex.quote(word) for word in command_of(sweep, best)]
    return "".join(f" \\\n    {word}" if word.lstrip("'").startswith("--") else f" {word}" for word in words).strip()


def _with_file(folder: Path) -> str:
    return escape(f"tl fit --config {folder / 'best.yaml'}")


def _honest(sweep: SweepFile, trials: Sequence[Trial], best: Trial) -> str:
    others = [trial for trial in ranked(sweep, trials) if trial.state in ("completed", "stopped")]
    lines = []
    if len(others) > 1:
        lines.append(
            f"{score_text(best.score)} is the best of {len(others)} validation scores, and so too good: chosen for "
            "being the best, it was lucky as well."
        )
    if (test := test_score(sweep, best)) is not None:
        lines.append(
            f"On the test images, which chose nothing, this trial has {metric_of(sweep.metric)} {score_text(test)}. "
            "That is the one figure to quote."
        )
    error = standard_error(sweep, best)
    if error is not None and len(others) > 1:
        near = within_noise(sweep, trials, best, error=error)
        completed = sum(trial.state == "completed" for trial in others) - 1
        what = f"{near} of the other {completed} completed trials lie" if near != 1 else "1 other completed trial lies"
        lines.append(
            f"The standard error of its validation score is {error:.2g}; {what} within two of them of the best"
            + (", and may be as good." if near else ".")
        )
    return f'<div class="honest">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>' if lines else ""
