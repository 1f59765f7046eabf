"""How values, scores and times of a sweep are written for people."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from tl_lightning.running.sweeping.parameters import Bell, Choice, Parameter, Range
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial

STATES = {
    "completed": "completed",
    "stopped": "stopped early",
    "failed": "failed",
    "running": "running",
    "waiting": "waiting",
}


def varied(sweep: SweepFile) -> list[str]:
    """The keys that differ from trial to trial: all but the choices of one value."""
    return [key for key, kind in sweep.parameters.items() if not (isinstance(kind, Choice) and len(kind.values) == 1)]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """A name for each key, as few of its last parts as tell it from the others: ``lr`` for ``model.lr``.

    Args:
        keys: Dotted, each once.
    """
    names = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        names[key] = next(
            (tail for tail in tails if sum(other == tail or other.endswith(f".{tail}") for other in keys) == 1), key
        )
    return names


def value_text(value: Any) -> str:  # noqa: ANN401 - anything that YAML holds
    """A value as one line, numbers with four digits.

    Args:
        value: A parameter's value.
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_inner(inner)}" for key, inner in value.items()) or "{}"
    if isinstance(value, list):
        return "; ".join(_inner(inner) for inner in value) or "[]"
    return " ".join(str(value).split())


def _inner(value: Any) -> str:  # noqa: ANN401 - anything that YAML holds
    return f"({value_text(value)})" if isinstance(value, dict | list) and len(value) > 1 else value_text(value)


def shortened(text: str, width: int) -> str:
    """A text of at most so many letters; of a longer one the end, as of a path, is what is left.

    Args:
        text: One line.
        width: At least 2.
    """
    return text if len(text) <= width else f"…{text[-(width - 1) :]}"


def shortened_end(text: str, width: int) -> str:
    """A text of at most so many letters; of a longer one the beginning is what is left.

    Args:
        text: One line.
        width: At least 2.
    """
    return text if len(text) <= width else f"{text[: width - 1]}…"


def encoded(value: Any) -> str:  # noqa: ANN401 - anything that YAML holds
    """A value as JSON, in which two values are the same text only where they are the same."""
    return json.dumps(value, sort_keys=True, default=str)


def score_text(score: float | None) -> str:
    """A score with four digits behind the point where it is about one, and never longer than nine letters."""
    if score is None:
        return ""
    return f"{score:.4f}" if 0.001 <= abs(score) < 1000 or score == 0 else f"{score:.3g}"


def number_of(value: Any) -> float | None:  # noqa: ANN401 - anything that YAML holds
    """The number that a value is; `None` where it is none, as true or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def ranked(sweep: SweepFile, trials: Iterable[Trial]) -> list[Trial]:
    """The trials that have a score, the best first; of equal ones the earlier."""
    sign = -1 if sweep.goal == "maximize" else 1
    scored = [(sign * trial.score, trial.number, trial) for trial in trials if is_scored(trial)]  # type: ignore[operator]
    return [trial for *_, trial in sorted(scored, key=lambda row: row[:2])]


def is_scored(trial: Trial) -> bool:
    """Whether it has a score that is a number, which a diverged one has not."""
    return number_of(trial.score) is not None


def is_log(kind: Parameter) -> bool:
    """Whether the values of a parameter are drawn, and so best shown, by their logarithm."""
    return (isinstance(kind, Range) and kind.log) or (isinstance(kind, Bell) and kind.shape == "log_normal")
