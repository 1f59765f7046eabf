"""What is known of a sweep's trials, as plain data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["waiting", "running", "completed", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        number: From 1, in the order in which trials began.
        values: By dotted key, exact.
        state: ``waiting`` is one that was interrupted and is to go on; ``stopped`` one that was weak and ended early;
            ``failed`` has an ``error``.
        score: The best of the metric so far; `None` where none came.
        history: The metric at each validation.
        seconds: How long it has taken so far, in all attempts; `None` where that is not known.
        folder: The trial's run folder.
        error: Why it failed, in one line; else empty.
        worker: Who has or had it, such as ``node1:4711``.
        attempts: How often it was begun; more than 1 where a worker died or was interrupted.
    """

    number: int
    values: dict[str, Any]
    state: State
    score: float | None
    history: tuple[float, ...]
    seconds: float | None
    folder: Path
    error: str = ""
    worker: str = ""
    attempts: int = 1


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted key as a tree, which a configuration is; of a tree within a value both parts are kept.

    Args:
        values: Such as ``{"model.lr": 0.1}``.
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = _merged(tree, value)
    return tree


def _merged(one: Any, other: Any) -> Any:  # noqa: ANN401 - anything that YAML holds
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: _merged(one[key], other[key]) if key in one and key in other else {**one, **other}[key]
            for key in {**one, **other}
        }
    return other
