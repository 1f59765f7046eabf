"""Phases are data: what trains, for how long, at which share of the base learning rates."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tl_lightning.backbones import Stage
from tl_lightning.errors import UserError, nearest
from tl_lightning.finetuning.schedules import Schedule, parse_schedule
from tl_lightning.finetuning.selection import select

BATCH_NORM_MODES = ("frozen", "train", "adapt")
GRADUAL = "gradual"
DEFAULT_WARMUP = 0.1


@dataclass(frozen=True)
class Phase:
    """One stretch of training with a fixed set of trainable parameters and a fresh learning-rate schedule.

    Attributes:
        train: What trains besides the head, in the language of `selection.select`; or ``gradual``, which thaws one
            stage after the other, from the top (ULMFiT, Howard and Ruder 2018, arXiv:1801.06146).
        epochs: At most so many; `None`, for the last phase only, takes the rest of ``trainer.max_epochs``.
        lr_scale: Multiplies the base learning rates; relative to the base, never to the phase before.
        bn: BatchNorm of the trainable stages: ``frozen`` keeps the running statistics (the affine weights train),
            ``train`` lets them follow the batches. In frozen stages both are frozen, whatever this says. ``adapt``
            estimates the statistics of the whole backbone once on the training images, then keeps them.
        schedule: How the learning rates move.
        warmup: The share of the phase's steps, from 0 to 1, over which the learning rates rise to their peak.
        augmentation: What is done to training images; `None` for ``data.augmentation``, but for ``none`` where the
            head alone trains: its features are then computed once, and augmenting them seldom pays.
        views: Versions of each sample that are cached where the frozen part of the backbone is computed once; one of
            them is drawn in each epoch. `None` for all that there are: 1, of ``flips`` 2, of ``dihedral`` 8.
        patience: The phase ends after so many validations without a gain; `None` for ``early_stopping.patience``.
        min_delta: What counts as a gain; `None` for ``early_stopping.min_delta``.
        cooldown: After a stop for lack of patience, the learning rates fall linearly to 0 over so many epochs more.
        name: What tables and logs call the phase; by default what it trains.
    """

    train: str = "all"
    epochs: int | None = None
    lr_scale: float = 1.0
    bn: str = "frozen"
    schedule: Schedule = field(default_factory=Schedule)
    warmup: float = DEFAULT_WARMUP
    augmentation: str | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    views: int | None = None
    patience: int | None = None
    min_delta: float | None = None
    cooldown: int = 0
    name: str = ""

    @property
    def keeps_backbone(self) -> bool:
        """Whether the whole backbone stays frozen."""
        return self.train == "head"


@dataclass(frozen=True)
class Preset:
    """A strategy of the field: a list of phases with a name, and the model settings without which it is not that."""

    phases: tuple[Mapping[str, Any], ...]
    model: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "feature_extraction": Preset(({"train": "head"},)),
    "partial": Preset(({"train": "last:2"},)),
    "full": Preset(({"train": "all"},)),
    # Kumar et al. 2022 (arXiv:2202.10054): a random head distorts good features, so it is trained first.
    "lp_ft": Preset(({"train": "head", "epochs": "30%"}, {"train": "all"})),
    "gradual": Preset(({"train": GRADUAL},)),
    # The baseline that transfer has to beat: random weights, one learning rate, BatchNorm that learns its statistics.
    "scratch": Preset(
        ({"train": "all", "bn": "train"},),
        model={"weights": "none", "backbone_lr_scale": 1.0, "bottom_ratio": 1.0},
    ),
}


def parse_phases(value: str | Sequence[Mapping[str, Any]], *, max_epochs: int) -> list[Phase]:
    """Turns what a configuration says into phases whose lengths add up to the run's.

    Args:
        value: The name of a preset, or a list of mappings with the fields of `Phase`; ``epochs`` may be a share of the
            run, such as ``30%``.
        max_epochs: The run's length in epochs.

    Returns:
        Phases with their epochs filled in; `plan` fits them to a backbone.

    Raises:
        UserError: If a name, key or value is wrong, or the epochs disagree with ``max_epochs``.
    """
    if isinstance(value, str):
        if value not in PRESETS:
            names = ", ".join(PRESETS)
            known = f"(presets: {names}; or a list of phases)"
            raise UserError(f"phases: {value!r} is no preset{nearest(value, PRESETS)} {known}")
        value = PRESETS[value].phases
    if not value:
        raise UserError("phases: the list is empty; give at least one phase, such as {train: all}")
    for position, entry in enumerate(value):
        _check_keys(entry, f"phases[{position}]")
    lengths = _lengths([_epochs(entry, k) for k, entry in enumerate(value)], max_epochs)
    return [_phase({**value[k], "epochs": epochs}, f"phases[{k}]") for k, epochs in enumerate(lengths)]


def plan(phases: Sequence[Phase], stages: Sequence[Stage]) -> list[Phase]:
    """Fits phases to a backbone: ``gradual`` becomes one phase for each stage it thaws.

    Args:
        phases: What `parse_phases` gave.
        stages: The backbone's stages, input to output.

    Returns:
        Phases whose ``train`` is a selection of stages, each with a name.

    Raises:
        UserError: If a phase's selection matches nothing, or a phase does nothing that the one before does not.
    """
    planned: list[Phase] = []
    for position, phase in enumerate(phases):
        if phase.train != GRADUAL:
            planned.append(replace(phase, name=phase.name or phase.train))
            continue
        selections = _thawing(phase.epochs or 0, len(stages), f"phases[{position}]")
        named = f"{phase.name or GRADUAL}: "
        planned += [replace(phase, train=train, epochs=epochs, name=named + train) for train, epochs in selections]
    planned = [_unaugmented(phase) if phase.keeps_backbone else phase for phase in planned]
    chosen = [select(stages, phase.train) for phase in planned]
    for position in range(1, len(planned)):
        before, after = (replace(planned[k], train="", epochs=None, name="") for k in (position - 1, position))
        if chosen[position] == chosen[position - 1] and before == after:
            raise UserError(
                f"phases: {planned[position].name!r} changes nothing after {planned[position - 1].name!r}: both train "
                "the same parameters in the same way; join them into one phase"
            )
    return planned


def _unaugmented(phase: Phase) -> Phase:
    """The same phase on plain images, unless it says itself how they are augmented."""
    asked = phase.augmentation is not None or phase.views is not None
    return phase if asked else replace(phase, augmentation="none")


def _thawing(epochs: int, stages: int, where: str) -> list[tuple[str, int]]:
    """One stage more per epoch from the top, several where there are more stages than epochs; then all of them."""
    if epochs < 2:
        raise UserError(f"{where}: gradual has {epochs} epoch, but the head and the stages need 2 or more")
    steps = min(stages, epochs - 1)
    thawed = [round(step * stages / steps) for step in range(steps + 1)]
    selections = ["head", *(f"last:{count}" for count in thawed[1:-1]), "all"]
    return [*((selection, 1) for selection in selections[:-1]), ("all", epochs - steps)]


def _check_keys(entry: Mapping[str, Any], where: str) -> None:
    known = [field.name for field in fields(Phase)]
    for key in entry:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{nearest(str(key), known)} (keys: {', '.join(known)})")


def _epochs(entry: Mapping[str, Any], position: int) -> int | str | None:
    epochs = entry.get("epochs")
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", epochs) if isinstance(epochs, str) else None
    if (share and 0 < float(share[1]) <= 100) or epochs is None or (type(epochs) is int and epochs >= 1):
        return epochs
    raise UserError(
        f"phases[{position}].epochs is {epochs!r}; it must be a whole number, 1 or more, or a share of the run such as "
        "30%"
    )


def _lengths(asked: Sequence[int | str | None], max_epochs: int) -> list[int]:
    exact = [max_epochs * float(epochs[:-1]) / 100 if isinstance(epochs, str) else epochs for epochs in asked]
    lengths = []
    for position, epochs in enumerate(exact[:-1]):
        if epochs is None:
            raise UserError(f"phases[{position}] has no epochs; only the last phase may omit them")
        lengths.append(max(1, round(epochs)))
    rest = max_epochs - sum(lengths)
    if rest < 1:
        raise UserError(
            f"phases: the first {len(lengths)} take {sum(lengths)} epochs, so the last can never be reached within "
            f"trainer.max_epochs {max_epochs}; raise --trainer.max_epochs or shorten a phase"
        )
    last = exact[-1]
    if last is None:
        return [*lengths, rest]
    # Shares may miss the run's length by less than an epoch, as three times 33% does; a number means what it says.
    total = sum(epochs or 0 for epochs in exact) if isinstance(asked[-1], str) else sum(lengths) + last
    if abs(total - max_epochs) >= 1:
        raise UserError(
            f"phases: their epochs add up to {total:g}, but trainer.max_epochs is {max_epochs}; "
            "make them agree, or omit the epochs of the last phase"
        )
    return [*lengths, rest]


def _phase(entry: Mapping[str, Any], where: str) -> Phase:
    schedule = parse_schedule(entry.get("schedule", "cosine"), f"{where}.schedule")
    if schedule.class_path is not None and entry.get("warmup"):
        raise UserError(f"{where}.warmup is for cosine, linear and constant; {schedule.class_path} has its own shape")
    phase = Phase(**{**entry, "schedule": schedule})
    if not isinstance(phase.train, str):
        raise UserError(f"{where}.train is {phase.train!r}; it must be text such as head, last:2 or all")
    if phase.bn not in BATCH_NORM_MODES:
        raise UserError(f"{where}.bn is {phase.bn!r}; it must be one of {', '.join(BATCH_NORM_MODES)}")
    if not _is_number(phase.lr_scale) or phase.lr_scale <= 0:
        raise UserError(f"{where}.lr_scale is {phase.lr_scale!r}; it must be a number above 0")
    if not _is_number(phase.warmup) or not 0 <= phase.warmup <= 1:
        raise UserError(f"{where}.warmup is {phase.warmup!r}; it must be a share of the phase, from 0 to 1")
    if phase.views is not None and (type(phase.views) is not int or phase.views < 1):
        raise UserError(f"{where}.views is {phase.views!r}; it must be a whole number, 1 or more")
    if phase.patience is not None and (type(phase.patience) is not int or phase.patience < 1):
        raise UserError(f"{where}.patience is {phase.patience!r}; it must be a whole number of validations, 1 or more")
    if phase.min_delta is not None and (not _is_number(phase.min_delta) or phase.min_delta < 0):
        raise UserError(f"{where}.min_delta is {phase.min_delta!r}; it must be a number, 0 or more")
    if type(phase.cooldown) is not int or phase.cooldown < 0:
        raise UserError(f"{where}.cooldown is {phase.cooldown!r}; it must be a whole number of epochs, 0 or more")
    if not isinstance(phase.augmentation, str | Mapping | list | None):
        raise UserError(
            f"{where}.augmentation is {phase.augmentation!r}; it must be a name, a mapping with class_path, or a list "
            "of such"
        )
    if not isinstance(phase.name, str | None):
        raise UserError(f"{where}.name is {phase.name!r}; it must be text")
    return phase


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
