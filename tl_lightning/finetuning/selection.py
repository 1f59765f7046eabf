"""The small language that says which part of a backbone trains; the head always does."""

import re
from collections.abc import Sequence

from tl_lightning.backbones import Stage
from tl_lightning.errors import UserError, nearest

FORMS = "head | last:N | from:STAGE | layers:START:STOP | regex:PATTERN | all"


def select(stages: Sequence[Stage], selection: str) -> frozenset[str]:
    """Finds the backbone parameters that a selection trains.

    Args:
        stages: The backbone's stages, input to output.
        selection: ``head`` (nothing of the backbone), ``last:2`` (the two top stages), ``from:blocks.4`` (that stage
            and all above), ``layers:-20:``, ``layers:50:`` or ``layers:80%:`` (a Python slice over the layers that own
            parameters, in depth order), ``regex:PATTERN`` (parameter names), or ``all``.

    Returns:
        Names of parameters of the backbone.

    Raises:
        UserError: If the selection is malformed or matches nothing.
    """
    every = [name for stage in stages for name in stage.parameters]
    kind, separator, value = selection.partition(":")
    if selection == "head":
        return frozenset()
    if selection == "all":
        return frozenset(every)
    if kind == "last" and separator:
        return _parameters_of(_last(stages, value, selection))
    if kind == "from" and separator:
        return _parameters_of(_from(stages, value, selection))
    if kind == "layers" and separator:
        return _layers(every, value, selection)
    if kind == "regex" and separator:
        return _regex(every, value, selection)
    hint = nearest(selection, ["head", "all", *(f"from:{stage.name}" for stage in stages)], count=1)
    raise UserError(f"train: {selection!r} is not a selection of stages{hint or ''} (forms: {FORMS})")


def frozen_stages(stages: Sequence[Stage], selection: str) -> int:
    """Counts the stages, from the input up, in which a selection trains nothing."""
    trainable = select(stages, selection)
    touched = [position for position, stage in enumerate(stages) if not trainable.isdisjoint(stage.parameters)]
    return min(touched, default=len(stages))


def _parameters_of(stages: Sequence[Stage]) -> frozenset[str]:
    return frozenset(name for stage in stages for name in stage.parameters)


def _last(stages: Sequence[Stage], value: str, selection: str) -> Sequence[Stage]:
    if not value.isdecimal() or not 1 <= int(value) <= len(stages):
        raise UserError(f"train: {selection!r} needs a number of stages from 1 to {len(stages)} ({_names(stages)})")
    return stages[-int(value) :]


def _from(stages: Sequence[Stage], value: str, selection: str) -> Sequence[Stage]:
    names = [stage.name for stage in stages]
    if value not in names:
        raise UserError(f"train: {selection!r} names no stage{nearest(value, names)} (stages: {_names(stages)})")
    return stages[names.index(value) :]


def _layers(parameters: Sequence[str], value: str, selection: str) -> frozenset[str]:
    # A layer is a module that owns parameters itself; the names, in depth order, already say which.
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
    match = re.fullmatch(r"(-?\d+%?)?:(-?\d+%?)?", value)
    if match is None:
        raise UserError(f"train: {selection!r} is not a slice such as layers:-20: or layers:80%: or layers:10:50")
    start, stop = (_bound(text, len(owners)) for text in match.groups())
    chosen = set(owners[start:stop])
    if not chosen:
        raise UserError(f"train: {selection!r} selects none of the backbone's {len(owners)} layers")
    return frozenset(name for name in parameters if name.rpartition(".")[0] in chosen)


def _bound(text: str | None, count: int) -> int | None:
    if text is None:
        return None
    return round(count * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def _regex(parameters: Sequence[str], pattern: str, selection: str) -> frozenset[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"train: {selection!r} is not a regular expression: {error}") from error
    chosen = frozenset(name for name in parameters if compiled.search(name))
    if not chosen:
        raise UserError(f"train: {selection!r} matches no parameter (they are named like {parameters[0]!r})")
    return chosen


def _names(stages: Sequence[Stage]) -> str:
    return ", ".join(stage.name for stage in stages)
