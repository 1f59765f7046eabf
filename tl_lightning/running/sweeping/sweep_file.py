"""A W&B sweep file, read for this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tl_lightning.running.sweeping.parameters import Parameter


@dataclass(frozen=True)
class EarlyTermination:
    """When a weak trial ends early.

    Attributes:
        min_iter: Validations before the first look.
        eta: Of the trials at a look, one in so many goes on; a look is ``eta`` times as late as the one before.
    """

    min_iter: int
    eta: int


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file asks for.

    Attributes:
        path: Where it is.
        text: As written.
        name: Of the sweep; without one, that of the file.
        method: How values are chosen.
        metric: The logged figure that is searched by, such as ``val/accuracy``.
        goal: Whether that is to be large or small.
        parameters: By dotted key, such as ``model.lr``.
        fit_args: What the command gives to ``tl fit`` beside the parameters.
        early_termination: `None` where every trial runs to its end.
        run_cap: How many trials there may be; `None` for no limit.
    """

    path: Path
    text: str
    name: str
    method: Literal["grid", "random", "bayes"]
    metric: str
    goal: Literal["maximize", "minimize"]
    parameters: Mapping[str, Parameter]
    fit_args: tuple[str, ...]
    early_termination: EarlyTermination | None
    run_cap: int | None
