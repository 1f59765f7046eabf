"""Learning-rate schedules: one of three shapes or one torch scheduler, made anew for every phase on one optimizer."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from tl_lightning.core.class_path import one_line
from tl_lightning.errors import UserError, nearest
from tl_lightning.finetuning.torch_schedulers import (
    PER_EPOCH,
    PER_GROUP,
    Mode,
    check_arguments,
    construct,
    find_class,
)

Shape = Literal["cosine", "linear", "constant"]
Interval = Literal["step", "epoch"]

SHAPES: tuple[str, ...] = get_args(Shape)
KEYS = ("class_path", "init_args", "interval")
# What schedulers leave in the groups, and what else than the learning rate they change there, by where its original is.
_LEFTOVERS = ("max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr")
_CYCLED = {"betas": "base_betas", "momentum": "own_momentum"}
# Long enough for whatever a trial's arguments may count.
_TRIAL_LENGTH = 1_000_000


@dataclass(frozen=True)
class Schedule:
    """How the learning rates move within a phase; `parse_schedule` makes one from a configuration.

    Attributes:
        shape: A warm-up and then this: ``cosine`` and ``linear`` fall to 0, ``constant`` stays; `None` with a class.
        class_path: A scheduler of torch by its name, or the import path of any scheduler class.
        init_args: The class's arguments.
        interval: Whether the class moves the learning rates, and counts, after every ``step`` or every ``epoch``.
    """

    shape: Shape | None = "cosine"
    class_path: str | None = None
    init_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    interval: Interval = "step"


@dataclass
class Running:
    """A scheduler at work in a phase.

    Attributes:
        scheduler: To be stepped after the optimizer.
        interval: After every ``step`` or every ``epoch``.
        plateau: Whether ``scheduler.step`` takes the monitored metric.
    """

    scheduler: LRScheduler
    interval: Interval
    plateau: bool


def parse_schedule(value: str | Mapping[str, Any], where: str) -> Schedule:
    """Turns what a configuration says into a schedule that is known to build.

    Args:
        value: ``cosine``, ``linear`` or ``constant``; the name or import path of a scheduler class; or a mapping with
            ``class_path`` and, where wanted, ``init_args`` and ``interval``. MultiStepLR's milestones are whole
            numbers or shares of the phase such as ``20%``; functions are given by their import paths.
        where: What messages call it, such as ``phases[1].schedule``.

    Raises:
        UserError: If a name, key or value is wrong, a class cannot be imported, or the class refuses its arguments.
    """
    if isinstance(value, str):
        if value in SHAPES:
            return Schedule(shape=cast(Shape, value))
        value = {"class_path": value}
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {value!r}; it must be {', '.join(SHAPES)} or a mapping with class_path")
    for key in value:
        if key not in KEYS:
            raise UserError(
                f"{where}: unknown key {key!r}{nearest(str(key), KEYS)} (keys: {', '.join(KEYS)}; "
                "what the class takes goes into init_args)"
            )
    found = find_class(value.get("class_path"), where, known=SHAPES)
    default = "epoch" if issubclass(found, PER_EPOCH) else "step"
    interval = value.get("interval", default)
    if interval not in get_args(Interval):
        raise UserError(f"{where}.interval is {interval!r}; it must be step or epoch")
    arguments = value.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}.init_args is {arguments!r}; it must be a mapping of the class's arguments")
    check_arguments(found, arguments, where)
    schedule = Schedule(None, value["class_path"], dict(arguments), interval)
    _try_out(schedule, where)
    return schedule


def set_learning_rates(optimizer: Optimizer, lr_scale: float) -> None:
    """Gives every group its learning rate of a phase and takes out what an earlier scheduler left there.

    Args:
        optimizer: The run's, whose groups come from `groups.parameter_groups`.
        lr_scale: The phase's share of the base learning rates.
    """
    for group in optimizer.param_groups:
        # Torch takes a scheduler's base from `initial_lr` where there is one: that of the phase before.
        group["lr"] = group["initial_lr"] = group["base_lr"] * lr_scale
        for key in _LEFTOVERS:
            if key not in optimizer.defaults:
                group.pop(key, None)
        for key, kept in _CYCLED.items():
            if key in group:
                group[key] = group.setdefault(kept, group[key])


def build_schedule(
    optimizer: Optimizer,
    schedule: Schedule,
    *,
    lr_scale: float,
    warmup: float,
    steps: int,
    epochs: int,
    mode: Mode,
) -> Running:
    """Gives the optimizer a phase's learning rates and a fresh scheduler.

    What a torch class needs to know of the phase and was not told is filled in: its length (OneCycleLR's
    ``total_steps``, ``T_max``, ``T_0``, ``total_iters``), each group's highest and lowest learning rate, CyclicLR's
    ``step_size_up`` for one cycle, a plateau's ``mode``; ``cycle_momentum`` is off. One number given as ``max_lr``,
    ``base_lr`` or ``swa_lr`` is the head's, and the other groups' follow in proportion.

    Args:
        optimizer: The run's, whose groups come from `groups.parameter_groups`; the same one in every phase.
        schedule: What `parse_schedule` gave.
        lr_scale: Multiplies the base learning rates.
        warmup: The share of the phase's steps over which the learning rates of a shape rise, from 0 to 1.
        steps: The number of optimizer steps in the phase.
        epochs: The number of epochs in the phase.
        mode: Which way the monitored metric gets better.

    Raises:
        UserError: If the class refuses its arguments, or is given fewer steps than the phase has.
    """
    set_learning_rates(optimizer, lr_scale)
    if schedule.class_path is None:
        return Running(_shaped(optimizer, schedule.shape, warmup, steps), "step", plateau=False)
    length = max(steps if schedule.interval == "step" else epochs, 1)
    scheduler = _made(optimizer, schedule, length=length, mode=mode, where="schedule")
    if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < length:
        raise UserError(
            f"schedule: {schedule.class_path} ends after {scheduler.total_steps} {schedule.interval}s, but the phase "
            f"has {length}; omit total_steps, epochs and steps_per_epoch, and it takes the whole phase"
        )
    return Running(scheduler, schedule.interval, plateau=isinstance(scheduler, ReduceLROnPlateau))


def _shaped(optimizer: Optimizer, shape: str | None, warmup: float, steps: int) -> LRScheduler:
    rising = round(warmup * steps)

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        progress = min((step - rising) / max(steps - rising, 1), 1.0)
        if shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1 - progress if shape == "linear" else 1.0

    return lr_scheduler.LambdaLR(optimizer, share)


def _made(optimizer: Optimizer, schedule: Schedule, *, length: int, mode: Mode, where: str) -> LRScheduler:
    found = find_class(schedule.class_path, where)
    return construct(optimizer, found, schedule.init_args, length=length, mode=mode, where=where)


def _try_out(schedule: Schedule, where: str) -> None:
    """Builds a schedule and steps it, on as many groups as its longest list per group asks for.

    What a later phase would refuse must be said before the first one trains; some arguments, such as a ``step_size``
    of 0, are refused only once the learning rates move.
    """
    lists = [schedule.init_args[name] for name in PER_GROUP if name in schedule.init_args]
    groups = max((len(values) for values in lists if isinstance(values, list | tuple)), default=1)
    optimizer = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "base_lr": 1.0} for _ in range(groups)])
    set_learning_rates(optimizer, 1.0)
    scheduler = _made(optimizer, schedule, length=_TRIAL_LENGTH, mode="min", where=where)
    step: Callable[..., None] = scheduler.step
    metric = (0.0,) if isinstance(scheduler, ReduceLROnPlateau) else ()
    try:
        for _ in range(2):
            optimizer.step()
            step(*metric)
    except Exception as error:  # as in `construct`
        raise UserError(f"{where}: {schedule.class_path} refuses its arguments; {one_line(error)}") from error
