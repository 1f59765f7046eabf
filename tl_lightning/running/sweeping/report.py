"""A sweep as a page for people: one HTML file that needs nothing else."""

import os
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tl_lightning.run_folder import write_text
from tl_lightning.running.sweeping import charts
from tl_lightning.running.sweeping.axes import Axis, parameter_axis, score_axis
from tl_lightning.running.sweeping.best import best_trial, command_of
from tl_lightning.running.sweeping.noise import figure_of, standard_error, test_score, within_noise
from tl_lightning.running.sweeping.showing import (
    STATES,
    duration,
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

CROWD = 150  # trials that are drawn thinner
MANY = 10  # parameters that the parallel picture has room for; those that mattered most


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
    parts += _pictures(sweep, trials, best, importance)
    parts += [_table(sweep, trials, best, folder), _failures(trials)]
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
            f"On the test pictures, which chose nothing, this trial has {figure_of(sweep.metric)} {score_text(test)}. "
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


def _pictures(
    sweep: SweepFile, trials: Sequence[Trial], best: Trial | None, importance: Mapping[str, float]
) -> list[str]:
    numbers = charts.score_numbers(trials)
    if not numbers:
        return []
    scores = score_axis(sweep, numbers)
    parts, metric = [_legend(trials)], escape(sweep.metric)
    first = f"<div><h2>{metric} of every trial, in order</h2>{charts.history(sweep, trials, scores)}</div>"
    learnt = [trial for trial in trials if any(number_of(value) is not None for value in trial.history)]
    if learnt:
        figures = [number for trial in learnt for value in trial.history if (number := number_of(value)) is not None]
        picture = charts.curves(sweep, learnt, score_axis(sweep, figures), best)
        first += f"<div><h2>{metric} by validation</h2>{picture}</div>"
    parts.append(f'<div class="pair">{first}</div>')
    scored = [trial for trial in trials if is_scored(trial)]
    keys = [key for key in varied(sweep) if any(key in trial.values for trial in scored)]
    names = short_names(varied(sweep))
    axes = {
        key: parameter_axis(sweep.parameters[key], [trial.values[key] for trial in scored if key in trial.values])
        for key in keys
    }
    if importance:
        parts.append(_bars(importance, names))
    if keys:
        chosen = sorted(keys, key=lambda key: -importance.get(key, 0.0))[:MANY]
        shown = {key: axes[key] for key in keys if key in chosen}
        hint = "Pull along an axis to keep what lies between; click the axis to let it go."
        if len(keys) > MANY:
            hint += f" Of {len(keys)} parameters, {MANY} are drawn."
        width = 150 * len(shown) + 130
        picture = charts.parallel(sweep, scored, scores, shown, names)
        parts.append(
            f'<h2>All values</h2><p class="dim">{hint}</p>'
            f'<div class="scroll"><div style="min-width:{int(0.85 * width)}px;max-width:{int(1.6 * width)}px">'
            f"{picture}</div></div>"
        )
        slices = "".join(
            f"<div>{charts.slice_of(sweep, scored, scores, key, axes[key], names[key])}</div>" for key in keys
        )
        parts.append(f'<h2>One parameter at a time</h2><div class="slices">{slices}</div>')
    return parts


def _legend(trials: Sequence[Trial]) -> str:
    marks = []
    for state, word in STATES.items():
        if not any(trial.state == state for trial in trials):
            continue
        shape = (
            '<path d="M3 3l8 8m0 -8l-8 8" class="dot cross"/>'
            if state == "failed"
            else (f'<circle cx="7" cy="7" r="4.5" class="dot {state}" style="--colour:var(--strong)"/>')
        )
        marks.append(f'<span><svg viewBox="0 0 14 14">{shape}</svg>{word}</span>')
    marks.append('<span>weak<i class="scale"></i>good</span>')
    marks.append("<span>far weaker ones are drawn at the edge; click a trial to keep it lit</span>")
    return f'<div class="key">{"".join(marks)}</div>'


def _bars(importance: Mapping[str, float], names: Mapping[str, str]) -> str:
    longest = max(importance.values()) or 1.0
    rows = []
    for key, share in sorted(importance.items(), key=lambda item: -item[1]):
        bar = f'<div><div class="bar" style="width:{100 * share / longest:.1f}%"></div></div>'
        told = f"{share:.0%}" if share >= 0.005 else "&lt;1%"
        rows.append(f'<span title="{escape(key)}">{escape(names.get(key, key))}</span>{bar}<span>{told}</span>')
    what = "How much the values of the good trials differ from those of all (PED-ANOVA). With few trials a rough guide."
    return f'<h2>What mattered</h2><p class="dim">{what}</p><div class="bars">{"".join(rows)}</div>'


def _table(sweep: SweepFile, trials: Sequence[Trial], best: Trial | None, folder: Path) -> str:
    if not trials:
        return ""
    names = short_names(varied(sweep))
    numeric = {
        key: all(number_of(trial.values[key]) is not None for trial in trials if key in trial.values) for key in names
    }
    heads = [("trial", True, ""), ("score", True, sweep.metric), ("state", False, "")]
    heads += [(name, numeric[key], key) for key, name in names.items()]
    heads += [("validations", True, ""), ("seconds", True, ""), ("folder", False, "")]
    top = "".join(
        f'<th class="{"number" if right else "text"}" title="{escape(title)}"><button>{escape(name)}</button></th>'
        for name, right, title in heads
    )
    scores = score_axis(sweep, charts.score_numbers(trials) or [0.0])
    rows = "".join(_row(sweep, trial, best, names, numeric, scores, folder) for trial in trials)
    return (
        f'<h2>All trials</h2><div class="scroll"><table class="sortable"><thead><tr>{top}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(
    sweep: SweepFile,
    trial: Trial,
    best: Trial | None,
    names: Mapping[str, str],
    numeric: Mapping[str, bool],
    scores: Axis,
    folder: Path,
) -> str:
    known = {names[key]: trial.values[key] for key in names if key in trial.values}
    told = f"trial {trial.number}, {STATES[trial.state]}, {sweep.metric} {score_text(trial.score) or 'none'}"
    told += "".join(f"  ·  {name} {value_text(value)}" for name, value in known.items())
    told += f"  ·  {trial.error}" if trial.error else ""
    score = score_text(trial.score) if is_scored(trial) else ""
    cells = [_cell(str(trial.number), trial.number, right=True), _cell(score, trial.score if score else "", right=True)]
    cells.append(f'<td class="state">{STATES[trial.state]}</td>')
    for key in names:
        value = trial.values.get(key)
        text = value_text(value) if key in trial.values else ""
        cells.append(_cell(text, value if numeric[key] and text else text, right=numeric[key]))
    seconds = "" if trial.seconds is None else trial.seconds
    cells.append(_cell(str(len(trial.history)), len(trial.history), right=True))
    cells.append(_cell("" if trial.seconds is None else duration(trial.seconds), seconds, right=True))
    path = os.path.relpath(trial.folder, folder)
    cells.append(f'<td><a href="{escape(_link(path))}">{escape(trial.folder.name)}</a></td>')
    kind = "top" if best is not None and trial.number == best.number else "row"
    attributes = charts.trial_attributes(sweep, scores, trial, kind)
    return f'<tr data-told="{escape(told)}" {attributes}>{"".join(cells)}</tr>'


def _cell(text: str, sort: Any, *, right: bool) -> str:  # noqa: ANN401 - a number, or a text
    kind = "number" if right else "value"
    return f'<td class="{kind}" data-sort="{escape(str(sort))}" title="{escape(text)}">{escape(text)}</td>'


def _link(path: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(Path(path).as_posix()))


def _failures(trials: Sequence[Trial]) -> str:
    rows = "".join(
        f'<tr data-trial="{trial.number}" class="failed"><td class="number">{trial.number}</td>'
        f'<td class="wrap">{escape(trial.error or "no reason is known")}</td></tr>'
        for trial in trials
        if trial.state == "failed"
    )
    heads = '<tr><th class="number">trial</th><th>reason</th></tr>'
    return f'<h2>Failed</h2><div class="scroll"><table>{heads}{rows}</table></div>' if rows else ""
