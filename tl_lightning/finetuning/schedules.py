"""Learning-rate schedules: one of three shapes or any torch scheduler, made anew for every phase on one optimizer."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import SWALR

from tl_lightning.errors import UserError, nearest

Shape = Literal["cosine", "linear", "constant"]
Interval = Literal["step", "epoch"]
Mode = Literal["min", "max"]

SHAPES: tuple[str, ...] = get_args(Shape)
KEYS = ("class_path", "init_args", "interval")

TORCH_SCHEDULERS: Mapping[str, type[LRScheduler]] = {
    "SWALR": SWALR,
    **{
        name: found
        for name, found in vars(lr_scheduler).items()
        if inspect.isclass(found) and issubclass(found, LRScheduler) and name.strip("_") != "LRScheduler"
    },
}

_COMPOSITE = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)
# OneCycleLR keeps its limits in the optimizer's groups, where they become the starting rates of the other parts; torch
# refuses a plateau, and fails on a composite, once its turn comes.
_NO_PART = (*_COMPOSITE, lr_scheduler.OneCycleLR, ReduceLROnPlateau)
# What people give these counts epochs: "by a tenth every 30".
_PER_EPOCH = (
    lr_scheduler.StepLR,
    lr_scheduler.MultiStepLR,
    lr_scheduler.ExponentialLR,
    ReduceLROnPlateau,
    SWALR,
)
_LENGTHS = ("total_steps", "T_max", "T_0", "total_iters")
_PER_GROUP = ("max_lr", "base_lr", "swa_lr", "min_lr", "max_momentum", "base_momentum")
_FUNCTIONS = ("lr_lambda", "scale_fn")
# What schedulers leave in the groups, and what they change there besides the rate, with where its original is kept.
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
        init_args: Its arguments; the ``schedulers`` of SequentialLR and ChainedScheduler are a tuple of `Schedule`.
        interval: Whether the class moves the rates, and counts, after every ``step`` or every ``epoch``.
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
            ``class_path`` and, where wanted, ``init_args`` and ``interval``. In SequentialLR and ChainedScheduler,
            ``schedulers`` is a list of the same, and every number of theirs counts the interval of the whole, a step
            unless said. Milestones are whole numbers or shares of the phase such as ``20%``; functions are given by
            their import paths.
        where: What messages call it, such as ``phases[1].schedule``.

    Raises:
        UserError: If a name, key or value is wrong, a class cannot be imported, or the class refuses its arguments.
    """
    schedule = _parse(value, where)
    if schedule.class_path is not None:
        # What a later phase would refuse must be said before the first one trains.
        optimizer = _stand_in(schedule)
        scheduler = _construct(optimizer, schedule, length=_TRIAL_LENGTH, mode="min", where=where)
        _try_steps(optimizer, scheduler, schedule, where)
    return schedule


def set_rates(optimizer: Optimizer, lr_scale: float) -> None:
    """Gives every group its rate of a phase and takes out what an earlier scheduler left there.

    Args:
        optimizer: Its groups come from `groups.parameter_groups`.
        lr_scale: The phase's share of the base rates.
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
    """Gives the optimizer a phase's rates and a fresh scheduler.

    What a torch class needs to know of the phase and was not told is filled in: its length (OneCycleLR's
    ``total_steps``, ``T_max``, ``T_0``, ``total_iters``), each group's highest and lowest rate, CyclicLR's
    ``step_size_up`` for one cycle, a plateau's ``mode``; ``cycle_momentum`` is off. One number given as ``max_lr``,
    ``base_lr`` or ``swa_lr`` is the head's, and the other groups' follow in proportion.

    Args:
        optimizer: Its groups come from `groups.parameter_groups`; the same one in every phase.
        schedule: What `parse_schedule` gave.
        lr_scale: Multiplies the base rates.
        warmup: The share of the phase's steps over which the rates of a shape rise, from 0 to 1.
        steps: The number of optimizer steps in the phase.
        epochs: The number of epochs in the phase.
        mode: Which way the monitored metric gets better.

    Raises:
        UserError: If the class refuses its arguments, or is given fewer steps than the phase has.
    """
    set_rates(optimizer, lr_scale)
    if schedule.class_path is None:
        return Running(_shaped(optimizer, schedule.shape, warmup, steps), "step", plateau=False)
    length = max(steps if schedule.interval == "step" else epochs, 1)
    scheduler = _construct(optimizer, schedule, length=length, mode=mode, where="schedule")
    if isinstance(scheduler, lr_scheduler.OneCycleLR) and scheduler.total_steps < length:
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


def _parse(value: object, where: str) -> Schedule:
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
    scheduler_class = _scheduler_class(value.get("class_path"), where)
    default = "epoch" if issubclass(scheduler_class, _PER_EPOCH) else "step"
    interval = value.get("interval", default)
    if interval not in get_args(Interval):
        raise UserError(f"{where}.interval is {interval!r}; it must be step or epoch")
    arguments = value.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}.init_args is {arguments!r}; it must be a mapping of the class's arguments")
    _validate_names(scheduler_class, arguments, where)
    arguments = dict(arguments)
    if issubclass(scheduler_class, _COMPOSITE):
        arguments["schedulers"] = _parse_parts(scheduler_class, arguments["schedulers"], where)
        if issubclass(scheduler_class, lr_scheduler.SequentialLR):
            _validate_order(arguments["milestones"], len(arguments["schedulers"]), where)
    return Schedule(None, value["class_path"], arguments, interval)


def _validate_names(scheduler_class: type[LRScheduler], arguments: Mapping[str, Any], where: str) -> None:
    parameters = _parameters(scheduler_class)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if name not in parameters and not takes_any:
            raise UserError(
                f"{where}.init_args: {scheduler_class.__name__} has no argument {name!r}{nearest(name, parameters)} "
                f"(arguments: {', '.join(parameters)})"
            )
    known = {*arguments, *_fill(scheduler_class, {}, rates=[1.0], length=1, mode="min")}
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and not variadic and name not in known:
            raise UserError(f"{where}.init_args: {scheduler_class.__name__} needs {name!r}; give it")


def _parse_parts(scheduler_class: type[LRScheduler], parts: object, where: str) -> tuple[Schedule, ...]:
    whole = scheduler_class.__name__
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise UserError(f"{where}.init_args.schedulers is {parts!r}; it must be a list of schedules")
    parsed = []
    for position, part in enumerate(parts):
        here = f"{where}.init_args.schedulers[{position}]"
        if isinstance(part, Mapping) and "interval" in part:
            raise UserError(f"{here}.interval: a part counts as the whole does; give interval beside {whole}")
        schedule = _parse(part, here)
        if schedule.class_path and issubclass(_scheduler_class(schedule.class_path, here), _NO_PART):
            raise UserError(f"{here}: {schedule.class_path} cannot be a part of {whole}; give it a phase of its own")
        parsed.append(schedule)
    return tuple(parsed)


def _validate_order(milestones: object, parts: int, where: str) -> None:
    here = f"{where}.init_args.milestones"
    entries = _listed(milestones, here)
    if len(entries) != parts - 1:
        raise UserError(f"{here} is {milestones!r}; {parts} schedulers need {parts - 1} milestones between them")
    if len({type(entry) for entry in entries}) > 1:
        raise UserError(f"{here} is {milestones!r}; give whole numbers only, or shares only")
    places = [_milestone(entry, _TRIAL_LENGTH, here) for entry in entries]
    if places != sorted(set(places)):
        raise UserError(f"{here} is {milestones!r}; each must come after the one before")


def _milestone(value: object, length: int, where: str) -> int:
    """The place of a milestone within a phase: a whole number as it is, ``20%`` of the length otherwise."""
    if type(value) is int and value > 0:
        return value
    share = value[:-1] if isinstance(value, str) and value.endswith("%") else ""
    if share.replace(".", "", 1).isdecimal() and 0 < float(share) < 100:
        return max(round(float(share) / 100 * length), 1)
    raise UserError(f"{where}: {value!r} is no milestone; give a whole number above 0, or a share such as '20%'")


def _scheduler_class(class_path: object, where: str) -> type[LRScheduler]:
    if not isinstance(class_path, str):
        raise UserError(f"{where}.class_path is {class_path!r}; it must name a scheduler such as OneCycleLR")
    if "." not in class_path:
        if class_path not in TORCH_SCHEDULERS:
            known = (*SHAPES, *TORCH_SCHEDULERS)
            raise UserError(f"{where}: {class_path!r} is no schedule{nearest(class_path, known)} ({', '.join(known)})")
        return TORCH_SCHEDULERS[class_path]
    found = _imported(class_path, where)
    if not inspect.isclass(found) or not issubclass(found, LRScheduler) or found is LRScheduler:
        raise UserError(f"{where}: {class_path!r} is no scheduler; it must be a class made from torch's LRScheduler")
    return found


def _imported(path: str, where: str) -> object:
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:  # the module is the user's: whatever it raises is for its author to read
        raise UserError(f"{where}: {path!r} cannot be imported; {_one_line(error)}") from error
    if not hasattr(module, name):
        raise UserError(f"{where}: {module_name} has no {name!r}{nearest(name, dir(module))}")
    found: object = getattr(module, name)
    return found


def _function(path: object, where: str) -> Callable[..., float]:
    found = _imported(path, where) if isinstance(path, str) and "." in path else None
    if not inspect.isfunction(found):
        raise UserError(f"{where}: {path!r} is no function; give the import path of one, such as my_package.decay")
    return found


def _parameters(scheduler_class: type[LRScheduler]) -> dict[str, inspect.Parameter]:
    """What a class takes from a user: all but the optimizer, and the place to resume at, which its state has."""
    parameters = dict(inspect.signature(scheduler_class).parameters)
    first = "optimizer" if issubclass(scheduler_class, lr_scheduler.ChainedScheduler) else next(iter(parameters), "")
    return {name: parameter for name, parameter in parameters.items() if name not in (first, "last_epoch")}


def _fill(
    scheduler_class: type[LRScheduler], given: Mapping[str, Any], *, rates: Sequence[float], length: int, mode: Mode
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
    if issubclass(scheduler_class, lr_scheduler.OneCycleLR):
        if {"epochs", "steps_per_epoch"} <= given.keys():
            filled.pop("total_steps", None)  # torch would let it overrule them
        filled |= {"max_lr": list(rates), "cycle_momentum": False}
    elif issubclass(scheduler_class, lr_scheduler.CyclicLR):
        highest = given.get("max_lr", rates)
        lowest = [rate / 10 for rate in highest]
        filled |= {"max_lr": list(rates), "base_lr": lowest, "step_size_up": max(length // 2, 1)}
        filled |= {"cycle_momentum": False}
    elif issubclass(scheduler_class, ReduceLROnPlateau):
        filled |= {"mode": mode}
    return {name: value for name, value in filled.items() if name in parameters} | dict(given)


def _construct(optimizer: Optimizer, schedule: Schedule, *, length: int, mode: Mode, where: str) -> LRScheduler:
    """Builds a schedule, or a part of one, for ``length`` of its intervals."""
    if schedule.class_path is None:
        return _shaped(optimizer, schedule.shape, 0.0, length)
    scheduler_class = _scheduler_class(schedule.class_path, where)
    # Not `lr`: in a composite, the part before has changed that already.
    rates = [group["initial_lr"] for group in optimizer.param_groups]
    given = _translated(scheduler_class, schedule.init_args, rates=rates, length=length, where=where)
    if issubclass(scheduler_class, _COMPOSITE):
        milestones = given.get("milestones", [])
        parts = schedule.init_args["schedulers"]
        lengths = _segments(milestones, length) if milestones else [length] * len(parts)
        given["schedulers"] = [
            _construct(optimizer, part, length=segment, mode=mode, where=f"{where}.init_args.schedulers[{position}]")
            for position, (part, segment) in enumerate(zip(parts, lengths, strict=True))
        ]
    try:
        arguments = _fill(scheduler_class, given, rates=rates, length=length, mode=mode)
        if issubclass(scheduler_class, lr_scheduler.ChainedScheduler):
            return scheduler_class(optimizer=optimizer, **arguments)
        if issubclass(scheduler_class, lr_scheduler.CyclicLR):
            # Torch takes the first rate of a cycle from `initial_lr`, which on a fresh optimizer is `base_lr`.
            _set_initial_rates(optimizer, arguments.get("base_lr", rates))
        scheduler: LRScheduler = scheduler_class(optimizer, **arguments)
    except Exception as error:  # the class may be the user's, and torch's raise whatever their arithmetic does
        raise UserError(f"{where}: {schedule.class_path} refuses its arguments; {_one_line(error)}") from error
    if issubclass(scheduler_class, lr_scheduler.CyclicLR):
        _set_initial_rates(optimizer, rates)
    return scheduler


def _try_steps(optimizer: Optimizer, scheduler: LRScheduler, schedule: Schedule, where: str) -> None:
    """Some arguments, such as a ``step_size`` of 0, are refused only once the rates move."""
    try:
        for _ in range(2):
            optimizer.step()
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(0.0)
            else:
                scheduler.step()
    except Exception as error:  # as in `_construct`
        raise UserError(f"{where}: {schedule.class_path} refuses its arguments; {_one_line(error)}") from error


def _set_initial_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["initial_lr"] = rate


def _translated(
    scheduler_class: type[LRScheduler],
    given: Mapping[str, Any],
    *,
    rates: Sequence[float],
    length: int,
    where: str,
) -> dict[str, Any]:
    """What a configuration can say, in the terms of the class."""
    arguments = dict(given)
    if issubclass(scheduler_class, lr_scheduler.LambdaLR | lr_scheduler.MultiplicativeLR | lr_scheduler.CyclicLR):
        for name in _FUNCTIONS:
            if arguments.get(name) is not None:
                arguments[name] = _function(arguments[name], f"{where}.init_args.{name}")
    if issubclass(scheduler_class, lr_scheduler.SequentialLR | lr_scheduler.MultiStepLR):
        here = f"{where}.init_args.milestones"
        arguments["milestones"] = [_milestone(entry, length, here) for entry in _listed(arguments["milestones"], here)]
    if issubclass(scheduler_class, lr_scheduler.OneCycleLR | lr_scheduler.CyclicLR | SWALR):
        for name in ("max_lr", "base_lr", "swa_lr"):
            if _is_number(arguments.get(name)):
                arguments[name] = [arguments[name] * (rate / max(rates)) for rate in rates]
    if issubclass(scheduler_class, lr_scheduler.OneCycleLR) and _is_number(arguments.get("pct_start")):
        arguments["pct_start"] = _rising_share(float(arguments["pct_start"]), length, where)
    return arguments


def _rising_share(share: float, length: int, where: str) -> float:
    """Torch divides by the length of the rise less one, and by that of the fall; neither may be 0."""
    if share == 1:
        raise UserError(f"{where}.init_args.pct_start is 1; OneCycleLR has to fall as well: give a share below 1")
    return math.nextafter(share, 0.0) if share * length == 1 else share


def _segments(milestones: Sequence[int], length: int) -> list[int]:
    bounds = [0, *milestones, length]
    return [max(end - start, 1) for start, end in pairwise(bounds)]


def _stand_in(schedule: Schedule) -> Optimizer:
    """An optimizer to try a schedule on, with as many groups as its longest list per group asks for."""
    everyone = (schedule, *schedule.init_args.get("schedulers", ()))
    lists = [one.init_args[name] for one in everyone for name in _PER_GROUP if name in one.init_args]
    groups = max((len(values) for values in lists if isinstance(values, list | tuple)), default=1)
    optimizer = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "base_lr": 1.0} for _ in range(groups)])
    set_rates(optimizer, 1.0)
    return optimizer


def _listed(value: object, where: str) -> Sequence[object]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    raise UserError(f"{where} is {value!r}; it must be a list such as [10, 20] or ['20%']")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
