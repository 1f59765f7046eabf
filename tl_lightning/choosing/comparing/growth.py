"""How strategies grow with the number of labels: lines to draw, and what follows from them in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tl_lightning.choosing.comparing.curves import CatchUp, catches_up, gain_in_words, gain_of
from tl_lightning.choosing.comparing.outcome import Outcome
from tl_lightning.choosing.comparing.power_law import Curve, fit_curve
from tl_lightning.choosing.comparing.results import Measure


@dataclass(frozen=True)
class Line:
    """What was measured of a strategy.

    Attributes:
        name: The strategy's.
        sizes: Labelled images, ascending.
        scores: With each size; minus the metric where that is an error.
        errors: The standard errors of the scores.
        curve: Fitted to the scores; `None` where there are too few sizes.
    """

    name: str
    sizes: Sequence[int]
    scores: Sequence[float]
    errors: Sequence[float]
    curve: Curve | None


@dataclass(frozen=True)
class Growth:
    """Learning curves of a comparison with several shares of the labels.

    Attributes:
        lines: One per strategy that has a metric.
        now: Labelled images with the largest share.
        more: Labels whose gain is forecast.
        catch_up: Where the reference is as good as the strategy that stands for transfer; `None` without one of them.
        sentences: What follows, for people.
    """

    lines: tuple[Line, ...]
    now: int
    more: int
    catch_up: CatchUp | None
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for ``summary.json``."""
        strategies = []
        for line in self.lines:
            entry = {"strategy": line.name, "labelled": line.sizes, "scores": line.scores, "errors": line.errors}
            curve = line.curve
            fitted = None if curve is None else {key: getattr(curve, key) for key in ("floor", "scale", "exponent")}
            gain = None if curve is None else gain_of(curve, self.now, self.more)._asdict()
            strategies.append({**entry, "power_law": fitted, "gain": gain})
        catch_up = None if self.catch_up is None else vars(self.catch_up)
        return {"now": self.now, "more": self.more, "catch_up": catch_up, "strategies": strategies}


def grow(outcome: Outcome, measure: Measure, *, more: int) -> Growth | None:
    """Fits curves to what the shares of the labels gave.

    Args:
        outcome: What the comparison gave.
        measure: What is compared.
        more: Labels whose gain is forecast, 1 or more.

    Returns:
        The curves; `None` where there is one share, or nothing that ended well.
    """
    if len({row.fraction for row in outcome.rows}) < 2:
        return None
    sign, perfect = (-1, 0.0) if measure.is_error else (1, 1.0)
    points: dict[str, list[tuple[int, float, float]]] = {}
    apart = []
    for row in outcome.rows:
        if row.value is None or row.error is None or row.labelled is None:
            continue
        points.setdefault(row.strategy, []).append((row.labelled, sign * row.value, row.error))
        if row.strategy == outcome.transfer and row.difference is not None:
            apart.append((row.labelled, row.difference))
    lines = {}
    for name, measured in points.items():
        scores, errors = [score for _, score, _ in measured], [error for _, _, error in measured]
        labelled = [size for size, _, _ in measured]
        lines[name] = Line(name, labelled, scores, errors, fit_curve(labelled, scores, errors, perfect=perfect))
    if not lines:
        return None
    now = max(max(line.sizes) for line in lines.values())
    behind, ahead = lines.get(outcome.reference), lines.get(outcome.transfer or "")
    sentences, catch_up = [], None
    if ahead is not None and behind is not None and apart:
        sizes, gaps = [size for size, _ in apart], [gap for _, gap in apart]
        catch_up = catches_up(behind.curve, ahead.curve, sizes, gaps, names=(behind.name, ahead.name))
        sentences.append(catch_up.text)
    if ahead is not None:
        sentences.append(gain_in_words(ahead.curve, now, more, name=ahead.name, points=not measure.is_error))
    return Growth(tuple(lines.values()), now, more, catch_up, tuple(sentences))
