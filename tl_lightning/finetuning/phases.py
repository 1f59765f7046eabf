"""Phases are data: what trains, for how long, at which share of the base learning rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tl_lightning.errors import UserError, nearest

BATCH_NORM_MODES = ("frozen", "train")


@dataclass(frozen=True)
class Phase:
    """One stretch of training with a fixed set of trainable parameters and a fresh learning-rate schedule.

    Attributes:
        train: What trains besides the head, in the language of `selection.select`.
        epochs: How many epochs; `None`, for the last phase only, takes the rest of ``trainer.max_epochs``.
        lr_scale: Multiplies the base learning rates; relative to the base, never to the phase before.
        bn: BatchNorm of the trainable stages: ``frozen`` keeps the running statistics (the affine weights train),
            ``train`` lets them follow the batches. In frozen stages both are frozen, whatever this says.
        warmup: The share of the phase's steps, from 0 to 1, over which the rates rise; then a cosine takes them to 0.
        name: What tables and logs call the phase; by default what it trains.
    """

    train: str = "all"
    epochs: int | None = None
    lr_scale: float = 1.0
    bn: str = "frozen"
    warmup: float = 0.1
    name: str = ""


@dataclass(frozen=True)
class Preset:
    """A strategy of the field: a list of phases with a name, and the model settings without which it is not that."""

    phases: tuple[Phase, ...]
    model: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "feature_extraction": Preset((Phase(train="head"),)),
    "partial": Preset((Phase(train="last:2"),)),
    "full": Preset((Phase(train="all"),)),
    # Kumar et al. 2022 (arXiv:2202.10054): a random head distorts good features, so it is trained first.
    "lp_ft": Preset((Phase(train="head", epochs=3), Phase(train="all"))),
    # The baseline that transfer has to beat: random weights, one learning rate, BatchNorm that learns its statistics.
    "scratch": Preset(
        (Phase(train="all", bn="train"),),
        model={"weights": "none", "backbone_lr_scale": 1.0, "bottom_ratio": 1.0},
    ),
}


def parse_phases(value: str | Sequence[Mapping[str, Any]], *, max_epochs: int) -> list[Phase]:
    """Turns what a configuration says into phases whose lengths add up to the run's.

    Args:
        value: The name of a preset, or a list of mappings with the fields of `Phase`.
        max_epochs: The run's length in epochs.

    Returns:
        Phases with every field filled in.

    Raises:
        UserError: If a name, key or value is wrong, or the epochs disagree with ``max_epochs``.
    """
    if isinstance(value, str):
        if value not in PRESETS:
            names = ", ".join(PRESETS)
            raise UserError(f"phases: {value!r} is no preset{nearest(value, PRESETS)} (presets: {names}; or a list)")
        phases = list(PRESETS[value].phases)
    else:
        phases = [_phase(entry, f"phases[{position}]") for position, entry in enumerate(value)]
    if not phases:
        raise UserError("phases: the list is empty; give at least one phase, such as {train: all}")
    return [replace(phase, name=phase.name or phase.train) for phase in _with_epochs(phases, max_epochs)]


def _phase(entry: Mapping[str, Any], where: str) -> Phase:
    known = [field.name for field in fields(Phase)]
    for key in entry:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, known)} (keys: {', '.join(known)})")
    phase = Phase(**entry)
    if not isinstance(phase.train, str):
        raise UserError(f"{where}.train is {phase.train!r}; it must be text such as head, last:2 or all")
    if phase.epochs is not None and (type(phase.epochs) is not int or phase.epochs < 1):
        raise UserError(f"{where}.epochs is {phase.epochs!r}; it must be a whole number, 1 or more")
    if phase.bn not in BATCH_NORM_MODES:
        raise UserError(f"{where}.bn is {phase.bn!r}; it must be one of {', '.join(BATCH_NORM_MODES)}")
    if not _is_number(phase.lr_scale) or phase.lr_scale <= 0:
        raise UserError(f"{where}.lr_scale is {phase.lr_scale!r}; it must be a number above 0")
    if not _is_number(phase.warmup) or not 0 <= phase.warmup <= 1:
        raise UserError(f"{where}.warmup is {phase.warmup!r}; it must be a share of the phase, from 0 to 1")
    return phase


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _with_epochs(phases: Sequence[Phase], max_epochs: int) -> list[Phase]:
    *early, last = phases
    for position, phase in enumerate(early):
        if phase.epochs is None:
            raise UserError(f"phases[{position}] ({phase.train}) has no epochs; only the last phase may omit them")
    before = sum(phase.epochs or 0 for phase in early)
    rest = max_epochs - before
    if rest < 1:
        raise UserError(
            f"phases: the first {len(early)} take {before} epochs, which leaves none of trainer.max_epochs "
            f"{max_epochs} for the last; raise --trainer.max_epochs or shorten a phase"
        )
    if last.epochs is not None and last.epochs != rest:
        raise UserError(
            f"phases: their epochs add up to {before + last.epochs}, but trainer.max_epochs is {max_epochs}; "
            "make them agree, or omit the epochs of the last phase"
        )
    return [*early, replace(last, epochs=rest)]
