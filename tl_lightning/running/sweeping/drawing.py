"""The strokes that the images of a sweep's report are made of, as SVG."""

from collections.abc import Callable, Iterable, Sequence
from html import escape

from tl_lightning.running.sweeping.axes import Axis, goodness
from tl_lightning.running.sweeping.showing import STATES, is_scored, score_text, shortened
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

Point = tuple[float, float]
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 34.0  # room around an image for what is written there
LETTER = 6.2  # pixels that a letter takes, about


def svg(width: float, height: float, parts: Iterable[str], label: str) -> str:
    """An image.

    Args:
        width: Of its own scale; the page gives it the room there is.
        height: In the same scale.
        parts: From back to front.
        label: For those who hear the page.
    """
    body = "".join(parts)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{body}</svg>'


def text_at(x: float, y: float, text: str, *, anchor: str = "middle", kind: str = "") -> str:
    """A text, escaped; ``x`` is where it has its ``anchor``, ``y`` the line that it stands on."""
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line, of a class of the style sheet."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def path_of(points: Sequence[Point]) -> str:
    """A line through points, as a path has it."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def trial_attributes(sweep: SweepFile, scores: Axis, trial: Trial, kind: str) -> str:
    """What makes an element one of a trial: its number, its state, and how good it is.

    That becomes its colour, squared, so that the best stand out.

    Args:
        sweep: Says which end of the scores is the good one.
        scores: The axis of the scores.
        trial: Whose element it is.
        kind: Further classes.
    """
    good = goodness(sweep, scores, trial)
    share = "" if good is None else f' style="--good:{100 * good**2:.0f}%"'
    return f'data-trial="{trial.number}" class="{kind} {trial.state}"{share}'


def title_of(sweep: SweepFile, trial: Trial) -> str:
    """What is shown where the pointer rests on a trial."""
    score = score_text(trial.score) if is_scored(trial) else "none"
    return f"<title>{escape(f'trial {trial.number}, {STATES[trial.state]}: {sweep.metric} {score}')}</title>"


def frame(
    x: Axis, y: Axis, *, width: float, height: float, below: str
) -> tuple[list[str], Callable[[float], float], Callable[[float], float]]:
    """The axes of a plot.

    Args:
        x: Across.
        y: Upwards, with a line across at every tick.
        width: Of the image.
        height: Of the image.
        below: What the axis across is called.

    Returns:
        What is to be drawn, and how places from 0 to 1 become a distance from the left, and one from the top.
    """

    def across(place: float) -> float:
        return LEFT + place * (width - LEFT - RIGHT)

    def up(place: float) -> float:
        return height - BOTTOM - place * (height - TOP - BOTTOM)

    parts = []
    for place, word in y.ticks():
        parts += [line(LEFT, up(place), width - RIGHT, up(place), "grid")]
        parts += [text_at(LEFT - 6, up(place) + 4, word, anchor="end")]
    ticks = x.ticks()
    room = (width - LEFT - RIGHT) / max(len(ticks), 1)
    for place, word in ticks:
        parts.append(text_at(across(place), height - BOTTOM + 15, shortened(word, max(int(room / LETTER), 3))))
    parts.append(line(LEFT, height - BOTTOM, width - RIGHT, height - BOTTOM, "axis"))
    parts.append(text_at((LEFT + width - RIGHT) / 2, height - 4, below, kind="name"))
    return parts, across, up


def mark(x: float, y: float, attributes: str, title: str, *, failed: bool) -> str:
    """A dot, or a cross for a trial that failed."""
    if failed:
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" {attributes}>{title}</path>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {attributes}>{title}</circle>'
