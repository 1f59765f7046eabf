"""From facts to an advice: what the rules say, what the user has said, and what the budget leaves of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tl_lightning.choosing.advising import settings
from tl_lightning.choosing.advising.cost import STEP, Plan, affordable, run_seconds
from tl_lightning.choosing.advising.decision import Step, Strategy, advise_strategy, better_below
from tl_lightning.choosing.advising.facts import Facts, Images, Model
from tl_lightning.choosing.advising.reasons import OWN, Reason
from tl_lightning.finetuning.phases import GRADUAL

STEPS = 500  # of BiT below 20,000 images, whose steps are of larger batches
EPOCHS = (8, 40)  # bounds on what follows from it; what we measured on ELPV took 6 to 60
SCRATCH_LONGER = 3  # random weights have everything to learn
LARGE_SET = 20_000  # training images from which a GPU gets larger batches
SMALLER = 0.75  # images of less than this share of the weights' own size are not enlarged to it
MIXED = "phases of your own"
DEFAULT_EPOCHS = 10  # of tl fit


@dataclass(frozen=True)
class Advice:
    """What to run, and why.

    Attributes:
        strategy: The preset that the rule ends at, before any budget.
        path: The way to it.
        reasons: A setting each; those of the user's own have the source ``yours``.
        plan: What it comes down to.
        seconds: The estimate of a whole run; `None` where nothing was timed.
        fits: Whether that is within the budget; `None` without one.
        given_up: What the budget cost, in words.
    """

    strategy: Strategy
    path: tuple[Step, ...]
    reasons: tuple[Reason, ...]
    plan: Plan
    seconds: float | None
    fits: bool | None
    given_up: tuple[str, ...]


def image_size(images: Images, model: Model) -> int:
    """The side of the images: the weights' own, or smaller where the images are, down to a half.

    Args:
        images: How large they are.
        model: What it was trained with.
    """
    own, side = model.own_size, images.short_side
    if model.sizes_fixed or side is None or side >= SMALLER * own:
        return own
    return min(own, max(-(-side // STEP) * STEP, -(-own // 2 // STEP) * STEP))


def top_stages(facts: Facts) -> int:
    """How many stages ``partial`` trains: two, or all above a stage whose features are better beyond the noise."""
    return max(2, facts.probe.below) if facts.probe is not None and better_below(facts) else 2


def batch_size(facts: Facts) -> int:
    """Images per step: 32, or more where there are many and a GPU; of few images at least eight steps an epoch."""
    training = facts.images.training
    largest = 128 if facts.machine.gpu and training >= LARGE_SET else 32
    return min(largest, max(4, 1 << int(math.log2(max(training / 8, 1)))))


def epochs(facts: Facts, strategy: str, *, batch: int) -> int:
    """BiT's number of steps as epochs, within bounds: of very few images 500 steps would be hundreds of epochs.

    Args:
        facts: How many images there are.
        strategy: From random weights it takes longer.
        batch: Images per step.
    """
    longer = SCRATCH_LONGER if strategy == "scratch" else 1
    return longer * min(EPOCHS[1], max(EPOCHS[0], math.ceil(STEPS * batch / facts.images.training)))


def advise(facts: Facts, *, own: Mapping[str, Any], budget: float | None = None) -> Advice:
    """Decides every setting that the user has left open.

    Args:
        facts: What is known.
        own: The user's settings by dotted key, which stay as they are.
        budget: Seconds for the whole run; `None` for no limit.
    """
    given = own.get("model.weights", "none") != "none"
    strategy, path = advise_strategy(replace(facts, model=replace(facts.model, named=given)))
    batch = int(own.get("data.batch_size", batch_size(facts)))
    wanted = _plan(strategy.name, facts, own, batch)
    fixed = {"image_size": "data.image_size", "epochs": "trainer.max_epochs", "strategy": "phases"}
    plan, seconds, fits = wanted, None, None
    if facts.speeds is not None:
        seconds = run_seconds(wanted, facts)
        if budget is not None:
            kept = {field for field, key in fixed.items() if key in own}
            kept |= {"epochs"} if isinstance(own.get("phases"), list) else set()  # the phases say it
            plan, seconds, fits = affordable(wanted, facts, budget=budget, fixed=frozenset(kept))
    given_up = _given_up(wanted, plan, facts)
    found = [
        *settings.backbone(plan, facts),
        *settings.phases((strategy, path), plan, facts, own),
        *settings.images(plan, facts, batch, given_up),
        *settings.learning_rates(plan, facts),
        *settings.balance(facts, own),
        *settings.length(plan, facts, batch, given_up, own),
        *settings.rest(plan, facts),
    ]
    reasons = tuple(_yours(reason, own[reason.setting]) if reason.setting in own else reason for reason in found)
    return Advice(strategy, path, reasons, plan, seconds, fits, given_up)


def _yours(reason: Reason, value: object) -> Reason:
    kept = reason.why if reason.setting == "phases" and "yours" in reason.why else "kept as you set it"
    return Reason(reason.setting, value, kept, source=OWN)


def _plan(strategy: str, facts: Facts, own: Mapping[str, Any], batch: int) -> Plan:
    phases = own.get("phases", strategy)
    name = phases if isinstance(phases, str) else MIXED
    trained = {"feature_extraction": "head", "partial": f"last:{top_stages(facts)}"}
    train = trained.get(name, "all") if isinstance(phases, str) else str(phases[-1].get("train", "all"))
    train = "all" if train == GRADUAL else train
    if isinstance(phases, str) and name == "partial" and "phases" in own:
        train = "last:2"  # the preset as it is
    length = int(own.get("trainer.max_epochs", DEFAULT_EPOCHS if name == MIXED else epochs(facts, name, batch=batch)))
    chosen = own.get("data.augmentation", settings.augmentation(facts, name))
    size = int(own.get("data.image_size") or facts.image_size)
    return Plan(name, train, size, length, chosen if isinstance(chosen, str) else "your own")


def _given_up(wanted: Plan, plan: Plan, facts: Facts) -> tuple[str, ...]:
    changed = {
        "phases": (wanted.strategy, plan.strategy),
        "data.image_size": (wanted.image_size, plan.image_size),
        "epochs": (wanted.epochs, plan.epochs),
    }
    if plan.train == "head" and facts.model.solvable:
        changed.pop("epochs")
    return tuple(f"{key} {new} instead of {old}" for key, (old, new) in changed.items() if old != new)
