"""How long a run would take, from what an image costs; and what can be given up to fit a budget."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tl_lightning.choosing.advising.facts import Facts
from tl_lightning.errors import UserError

UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
VIEWS = {"none": 1, "flips": 2, "dihedral": 8}  # versions that are all there are, and can be cached
START_S = 5.0  # building the model, reading the list of images, writing checkpoints
STEP = 32  # by which images are made smaller; what networks halve five times
FEWEST_EPOCHS = 3


@dataclass(frozen=True)
class Plan:
    """The part of an advice that decides what it costs.

    Attributes:
        strategy: A preset of phases.
        train: What its last phase trains besides the head.
        image_size: Side of the images.
        epochs: How long that phase trains; a head that is solved has none.
        augmentation: What that phase trains with.
    """

    strategy: str
    train: str
    image_size: int
    epochs: int
    augmentation: str


def parse_budget(text: str) -> float:
    """Seconds that ``30s``, ``10min``, ``2h`` or ``1h30min`` mean.

    Raises:
        UserError: If it is none of these, or 0.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd])", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if re.sub(r"\s", "", text) != "".join(number + unit for number, unit in parts) or not seconds:
        raise UserError(f"--budget {text!r} is no length of time; give one such as 30s, 10min, 2h or 1h30min")
    return seconds


def run_seconds(plan: Plan, facts: Facts) -> float:
    """The estimated length of a whole ``tl fit``, its test included.

    Args:
        plan: What is to be run; its ``train`` is one of the selections that were timed, or ``head``.
        facts: With speeds, measured at any size: costs grow with the area.
    """
    speeds, images = facts.speeds, facts.images
    assert speeds is not None
    scale = (plan.image_size / speeds.size) ** 2
    forward, training, validation = speeds.forward * scale, images.training, images.validation
    seconds = START_S + (validation + images.test) * forward  # the last evaluation
    if plan.strategy in ("feature_extraction", "lp_ft"):  # one pass, and the head is solved
        solving = 0.0 if facts.probe is None else facts.probe.seconds
        seconds += (training + validation) * forward + solving
    if plan.train == "head":
        return seconds
    step = speeds.train.get(plan.train, max(speeds.train.values()))  # at most that of what was not timed
    views = VIEWS.get(plan.augmentation)
    if plan.train in speeds.cached and views is not None and views < plan.epochs:
        seconds += (views * training + validation) * forward
        # A forward pass is about a third of a training step.
        return seconds + plan.epochs * (training + validation / 3) * speeds.cached[plan.train] * scale
    return seconds + plan.epochs * (training * step * scale + validation * forward)


def affordable(plan: Plan, facts: Facts, *, budget: float, fixed: frozenset[str]) -> tuple[Plan, float, bool]:
    """Gives up what has to be given up, the dearest last: epochs, then size, then what trains.

    Args:
        plan: What would be best.
        facts: With speeds.
        budget: Seconds.
        fixed: Fields of `Plan` that are the user's own.

    Returns:
        The plan, its estimated seconds, and whether they are within the budget; the quickest plan where none is.
    """
    quickest, least = plan, math.inf
    for candidate in _concessions(plan, facts, fixed):
        seconds = run_seconds(candidate, facts)
        if seconds <= budget:
            return candidate, seconds, True
        if seconds < least:
            quickest, least = candidate, seconds
    return quickest, least, False


def _concessions(plan: Plan, facts: Facts, fixed: frozenset[str]) -> Iterator[Plan]:
    fewest = min(FEWEST_EPOCHS, plan.epochs)
    lengths = [plan.epochs] if "epochs" in fixed else [plan.epochs, max(fewest, plan.epochs // 2), fewest]
    smallest = -(-facts.model.own_size // 2 // STEP) * STEP  # below half their size the weights have not seen things
    sizes = list(range(plan.image_size, min(smallest, plan.image_size) - 1, -STEP))
    sizes = sizes[:1] if "image_size" in fixed or facts.model.sizes_fixed else sizes
    for strategy, train in _simpler(plan, fixed):
        # Half the epochs first: BiT's rule is generous. The shortest only once the images are at their smallest.
        for epochs in lengths[:2]:
            yield replace(plan, strategy=strategy, train=train, epochs=epochs)
        for size in sizes[1:]:
            yield replace(plan, strategy=strategy, train=train, image_size=size, epochs=lengths[:2][-1])
        yield replace(plan, strategy=strategy, train=train, image_size=sizes[-1], epochs=lengths[-1])


def _simpler(plan: Plan, fixed: frozenset[str]) -> Iterator[tuple[str, str]]:
    yield plan.strategy, plan.train
    if "strategy" in fixed or plan.strategy == "scratch":
        return
    if plan.train == "all":
        yield "partial", "last:2"
    if plan.train != "head":
        yield "feature_extraction", "head"
