"""The images of a sweep's report with their headings, and the bars of what mattered."""

from collections.abc import Mapping, Sequence
from html import escape

from tl_lightning.running.sweeping import charts
from tl_lightning.running.sweeping.axes import parameter_axis, score_axis
from tl_lightning.running.sweeping.showing import STATES, is_scored, number_of, short_names, varied
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

MANY = 10  # parameters that the image of all values has room for; those that mattered most


def images(sweep: SweepFile, trials: Sequence[Trial], best: Trial | None, importance: Mapping[str, float]) -> list[str]:
    """All images, from the whole to the single parameter; nothing where no trial has a score.

    Args:
        sweep: Says what varied.
        trials: In order.
        best: Drawn thick.
        importance: Of the parameters, by key; may be empty.
    """
    numbers = charts.score_numbers(trials)
    if not numbers:
        return []
    scores = score_axis(sweep, numbers)
    parts, metric = [_legend(trials)], escape(sweep.metric)
    first = f"<div><h2>{metric} of every trial, in order</h2>{charts.history(sweep, trials, scores)}</div>"
    learnt = [trial for trial in trials if any(number_of(value) is not None for value in trial.history)]
    if learnt:
        figures = [number for trial in learnt for value in trial.history if (number := number_of(value)) is not None]
        image = charts.curves(sweep, learnt, score_axis(sweep, figures), best)
        first += f"<div><h2>{metric} by validation</h2>{image}</div>"
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
        image = charts.parallel(sweep, scored, scores, shown, names)
        parts.append(
            f'<h2>All values</h2><p class="dim">{hint}</p>'
            f'<div class="scroll"><div style="min-width:{int(0.85 * width)}px;max-width:{int(1.6 * width)}px">'
            f"{image}</div></div>"
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
