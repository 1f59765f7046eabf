"""Torch's schedulers, made for a phase: what they need to know of it is filled in, and one number serves all groups."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import SWALR

from tl_lightning.core.class_path import check_switches, one_line, resolve
from tl_lightning.errors import UserError, nearest

Mode = Literal["min", "max"]

COMPOSITIONS = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)

TORCH_SCHEDULERS: Mapping[str, type[LRScheduler]] = {
    "SWALR": SWALR,
    **{
        name: found
        for name, found in vars(lr_scheduler).items()
        if inspect.isclass(found)
        and issubclass(found, LRScheduler)
        and found not in COMPOSITIONS
        and name.strip("_") != "LRScheduler"
    },
}

# What people give these counts epochs: "by a tenth every 30".
PER_EPOCH = (
    lr_scheduler.StepLR,
    lr_scheduler.MultiStepLR,
    lr_scheduler.ExponentialLR,
    ReduceLROnPlateau,
    SWALR,
)
_LENGTHS = ("total_steps", "T_max", "T_0", "total_iters")
_HIGHEST = ("max_lr", "base_lr", "swa_lr")
PER_GROUP = (*_HIGHEST, "min_lr", "max_momentum", "base_momentum")
_FUNCTIONS = ("lr_lambda", "scale_fn")


def find_class(class_path: object, where: str, *, known: Sequence[str] = ()) -> type[LRScheduler]:
    """Finds a scheduler's class.

    Args:
        class_path: The name of one of torch's, or any import path.
        where: What messages call it.
        known: Other words that could have been meant.

    Raises:
        UserError: If there is no such class, or it is made of other schedules.
    """
    if not isinstance(class_path, str):
        raise UserError(f"{where}.class_path is {class_path!r}; it must name a scheduler such as OneCycleLR")
    if class_path in TORCH_SCHEDULERS:
        return TORCH_SCHEDULERS[class_path]
    name = class_path.rpartition(".")[2]
    if name in [each.__name__ for each in COMPOSITIONS]:
        raise UserError(f"{where}: {name} is made of other schedules; give each of them a phase of its own")
    if "." not in class_path:
        known = (*known, *TORCH_SCHEDULERS)
        raise UserError(f"{where}: {class_path!r} is no schedule{nearest(class_path, known)} ({', '.join(known)})")
    found = resolve(class_path, where)
    if not inspect.isclass(found) or not issubclass(found, LRScheduler) or found is LRScheduler:
        raise UserError(f"{where}: {class_path!r} is no scheduler; it must be a class made from torch's LRScheduler")
    return found


def _parameters(scheduler_class: type[LRScheduler]) -> dict[str, inspect.Parameter]:
    """What a class takes from a user: all but the optimizer, and the place to resume at, which its state has."""
    _, *parameters = inspect.signature(scheduler_class).parameters.items()
    return {name: parameter for name, parameter in parameters if name != "last_epoch"}


def check_arguments(scheduler_class: type[LRScheduler], arguments: Mapping[str, Any], where: str) -> None:
    """Checks the names of a scheduler's arguments against those that its class takes.

    Args:
        scheduler_class: Whose.
        arguments: What a user gives.
        where: What messages call the schedule.

    Raises:
        UserError: If there is no such argument, or one lacks.
    """
    parameters = _parameters(scheduler_class)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if name not in parameters and not takes_any:
            raise UserError(
                f"{where}.init_args: {scheduler_class.__name__} has no argument {name!r}{nearest(name, parameters)} "
                f"(arguments: {', '.join(parameters)})"
            )
    check_switches(scheduler_class, arguments, f"{where}.init_args")
    known = {*arguments, *_fill(scheduler_class, {}, learning_rates=[1.0], length=1, mode="min")}
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and not variadic and name not in known:
            raise UserError(f"{where}.init_args: {scheduler_class.__name__} needs {name!r}; give it")


def construct(
    optimizer: Optimizer,
    scheduler_class: type[LRScheduler],
    init_args: Mapping[str, Any],
    *,
    length: int,
    mode: Mode,
    where: str,
) -> LRScheduler:
    """Builds a scheduler for a phase; see `schedules.build_schedule`.

    Args:
        optimizer: The run's, with its groups at their learning rates of the phase.
        scheduler_class: The class to build.
        init_args: What a user gives.
        length: The phase's length, in the steps or epochs that the scheduler counts.
        mode: Which way the monitored metric gets better.
        where: What messages call the schedule.

    Raises:
        UserError: If the class refuses its arguments.
    """
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    given = _translated(scheduler_class, init_args, learning_rates=learning_rates, length=length, where=where)
    try:
        arguments = _fill(scheduler_class, given, learning_rates=learning_rates, length=length, mode=mode)
        if issubclass(scheduler_class, lr_scheduler.CyclicLR):
            # Torch takes the start of a cycle from `initial_lr`, which on a fresh optimizer is `base_lr`.
            _set_initial(optimizer, arguments.get("base_lr", learning_rates))
        scheduler: LRScheduler = scheduler_class(optimizer, **arguments)
    except Exception as error:  # the class may be the user's, and torch's raise whatever their arithmetic does
        raise UserError(f"{where}: {scheduler_class.__name__} refuses its arguments; {one_line(error)}") from error
    if issubclass(scheduler_class, lr_scheduler.CyclicLR):
        _set_initial(optimizer, learning_rates)
    return scheduler


def _fill(
    scheduler_class: type[LRScheduler],
    given: Mapping[str, Any],
    *,
    learning_rates: Sequence[float],
    length: int,
    mode: Mode,
) -> dict[str, Any]:
    """The arguments given, and what the class needs to know of the phase besides."""
    parameters = _parameters(scheduler_class)
    # A user's own constructor is told the length where it demands it; its defaults are its own.
    by_torch = scheduler_class.__init__.__module__.startswith("torch.")
    filled: dict[str, Any] = {
        name: length
        for name in _LENGTHS
        if name in parameters and (by_torch or parameters[name].default is inspect.Parameter.empty)
    }
    if issubclass(scheduler_class, OneCycleLR):
        if {"epochs", "steps_per_epoch"} <= given.keys():
            filled.pop("total_steps", None)  # torch would let it overrule them
        filled |= {"max_lr": list(learning_rates), "cycle_momentum": False}
    elif issubclass(scheduler_class, lr_scheduler.CyclicLR):
        lowest = [lr / 10 for lr in given.get("max_lr", learning_rates)]
        filled |= {"max_lr": list(learning_rates), "base_lr": lowest, "step_size_up": max(length // 2, 1)}
        filled |= {"cycle_momentum": False}
    elif issubclass(scheduler_class, ReduceLROnPlateau):
        filled |= {"mode": mode}
    return {name: value for name, value in filled.items() if name in parameters} | dict(given)


def _set_initial(optimizer: Optimizer, learning_rates: Sequence[float]) -> None:
    for group, lr in zip(optimizer.param_groups, learning_rates, strict=True):
        group["initial_lr"] = lr


def _translated(
    scheduler_class: type[LRScheduler],
    given: Mapping[str, Any],
    *,
    learning_rates: Sequence[float],
    length: int,
    where: str,
) -> dict[str, Any]:
    """What a configuration can say, in the terms of a class of torch."""
    arguments = dict(given)
    if not scheduler_class.__module__.startswith("torch."):
        return arguments
    for name in _FUNCTIONS:
        if arguments.get(name) is not None:
            arguments[name] = found = resolve(arguments[name], f"{where}.init_args.{name}")
            if not inspect.isfunction(found):
                raise UserError(f"{where}.init_args.{name} is {given[name]!r}, which is no function; name one")
    for name in _HIGHEST:
        if _is_number(arguments.get(name)):
            arguments[name] = [arguments[name] * (lr / max(learning_rates)) for lr in learning_rates]
    if "milestones" in arguments:
        arguments["milestones"] = _milestones(arguments["milestones"], length, f"{where}.init_args.milestones")
    if _is_number(arguments.get("pct_start")):
        arguments["pct_start"] = _rising_share(float(arguments["pct_start"]), length, where)
    return arguments


def _milestones(value: object, length: int, where: str) -> list[int]:
    """Places within a phase: whole numbers as they are, ``20%`` of the length otherwise."""
    places = []
    for entry in value if isinstance(value, list | tuple) else ():
        share = entry[:-1] if isinstance(entry, str) and entry.endswith("%") else ""
        if type(entry) is int and entry > 0:
            places.append(entry)
        elif share.replace(".", "", 1).isdecimal() and 0 < float(share) < 100:
            places.append(max(round(float(share) / 100 * length), 1))
    if not isinstance(value, list | tuple) or len(places) < len(value):
        raise UserError(f"{where} is {value!r}; give a list of whole numbers above 0 or of shares such as '20%'")
    return places


def _rising_share(share: float, length: int, where: str) -> float:
    """Torch divides by the length of the rise less one, and by that of the fall; neither may be 0."""
    if share == 1:
        raise UserError(f"{where}.init_args.pct_start is 1; OneCycleLR has to fall as well: give a share below 1")
    return math.nextafter(share, 0.0) if share * length == 1 else share


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
