"""From facts to settings, each with its reason: pure functions, whose thresholds have their sources beside them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tl_lightning.choosing.cost import STEP, VIEWS, Plan, affordable, run_seconds
from tl_lightning.choosing.decision import MANY, NOISE, Step, Strategy, advise_strategy
from tl_lightning.choosing.facts import Facts, Model, Pictures

BIT = "BiT's rule"  # Kolesnikov et al. 2020, arXiv:1912.11370
BIT_STEPS = ((20_000, 500), (500_000, 10_000), (math.inf, 20_000))  # below so many pictures, so many steps
EPOCHS = (3, 40)  # bounds on what follows from it
AUTOGLUON = "AutoGluon's default"
FASTAI = "fastai"
JUDGEMENT = "judgement"
ELPV = "measured on ELPV"
SMALLER = 0.75  # pictures of less than this share of the weights' own size are not enlarged to it
UNEVEN = 3.0  # the most frequent class over the rarest, from which classes are weighed
VERY_UNEVEN = 20.0
OWN = "yours"
MIXED = "phases of your own"
DEFAULT_EPOCHS = 10  # of tl fit


@dataclass(frozen=True)
class Reason:
    """One setting and why.

    Attributes:
        setting: Its dotted key.
        value: As YAML has it.
        why: In words.
        number: What it rests on; empty where on nothing measured.
        source: The rule that it comes from, or ``yours``.
    """

    setting: str
    value: Any
    why: str
    number: str = ""
    source: str = ""


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


def image_size(pictures: Pictures, model: Model) -> int:
    """The side of the pictures: the weights' own, or smaller where the pictures are, down to a half.

    Args:
        pictures: How large they are.
        model: What it was trained with.
    """
    own, side = model.own_size, pictures.short_side
    if model.sizes_fixed or side is None or side >= SMALLER * own:
        return own
    return min(own, max(-(-side // STEP) * STEP, -(-own // 2 // STEP) * STEP))


def top_stages(facts: Facts) -> int:
    """How many stages ``partial`` trains: two, or all above a stage whose features are better beyond the noise."""
    probe = facts.probe
    if probe is None or probe.top_behind.value <= NOISE * probe.top_behind.error:
        return 2
    return max(2, probe.below)


def batch_size(facts: Facts) -> int:
    """Pictures per step: 32, or more where there are many and a GPU; of few pictures at least eight steps an epoch."""
    training = facts.pictures.training
    largest = 128 if facts.machine.gpu and training >= BIT_STEPS[0][0] else 32
    return min(largest, max(4, 1 << int(math.log2(max(training / 8, 1)))))


def epochs(facts: Facts, *, batch: int) -> int:
    """BiT's number of steps as epochs, within bounds: of very few pictures 500 steps would be hundreds of epochs."""
    training = facts.pictures.training
    steps = next(steps for below, steps in BIT_STEPS if training < below)
    return min(EPOCHS[1], max(EPOCHS[0], math.ceil(steps * batch / training)))


def advise(facts: Facts, *, own: Mapping[str, Any], budget: float | None = None) -> Advice:
    """Decides every setting that the user has left open.

    Args:
        facts: What is known.
        own: The user's settings by dotted key, which stay as they are.
        budget: Seconds for the whole run; `None` for no limit.
    """
    strategy, path = advise_strategy(facts)
    batch = int(own.get("data.batch_size", batch_size(facts)))
    wanted = _plan(strategy.name, facts, own, batch)
    fixed = {"image_size": "data.image_size", "epochs": "trainer.max_epochs", "strategy": "phases"}
    plan, seconds, fits = wanted, None, None
    if facts.speeds is not None:
        seconds = run_seconds(wanted, facts)
        if budget is not None:
            kept = frozenset(field for field, key in fixed.items() if key in own)
            plan, seconds, fits = affordable(wanted, facts, budget=budget, fixed=kept)
    given_up = _given_up(wanted, plan, facts)
    found = [
        *_backbone(facts),
        *_strategy(strategy, path, plan, facts, given_up, own),
        *_pictures(plan, facts, batch, given_up),
        *_rates(plan, facts),
        *_balance(facts),
        *_length(plan, facts, batch, given_up, own),
        *_rest(facts, plan, own),
    ]
    reasons = tuple(
        Reason(reason.setting, own[reason.setting], "kept as you set it", source=OWN)
        if reason.setting in own
        else reason
        for reason in found
    )
    return Advice(strategy, path, reasons, plan, seconds, fits, given_up)


def _plan(strategy: str, facts: Facts, own: Mapping[str, Any], batch: int) -> Plan:
    phases = own.get("phases", strategy)
    name = phases if isinstance(phases, str) else MIXED
    trained = {"feature_extraction": "head", "partial": f"last:{top_stages(facts)}"}
    train = trained.get(name, "all") if isinstance(phases, str) else str(phases[-1].get("train", "all"))
    if isinstance(phases, str) and name == "partial" and "phases" in own:
        train = "last:2"  # the preset as it is
    length = int(own.get("trainer.max_epochs", DEFAULT_EPOCHS if name == MIXED else epochs(facts, batch=batch)))
    chosen = own.get("data.augmentation", _augmentation(facts, name))
    size = int(own.get("data.image_size") or facts.image_size)
    return Plan(name, train, size, length, chosen if isinstance(chosen, str) else "your own")


def _given_up(wanted: Plan, plan: Plan, facts: Facts) -> tuple[str, ...]:
    changed = {
        "phases": (wanted.strategy, plan.strategy),
        "data.image_size": (wanted.image_size, plan.image_size),
        "trainer.max_epochs": (wanted.epochs, plan.epochs),
    }
    if plan.train == "head" and facts.model.solvable:
        changed.pop("trainer.max_epochs")
    return tuple(f"{key} {new} instead of {old}" for key, (old, new) in changed.items() if old != new)


def _budgeted(key: str, given_up: tuple[str, ...]) -> str:
    return next((f"; the budget asks for {text}" for text in given_up if text.startswith(key)), "")


def _backbone(facts: Facts) -> list[Reason]:
    model, probe = facts.model, facts.probe
    score = "" if probe is None else f"{probe.what} {probe.pretrained} on frozen features"
    if probe is not None and probe.random is not None:
        score += f", random weights {probe.random}, constant answer {probe.constant:.3f}"
    name = Reason("model.backbone", model.backbone, f"{model.parameters / 1e6:.1f} M parameters", score, "linear probe")
    return [name, Reason("model.weights", model.weights, "what is transferred")]


def _strategy(
    strategy: Strategy,
    path: tuple[Step, ...],
    plan: Plan,
    facts: Facts,
    given_up: tuple[str, ...],
    own: Mapping[str, Any],
) -> list[Reason]:
    number = "; ".join(step.number for step in path[2:])
    why = f"{plan.strategy}: {strategy.why}" + _budgeted("phases", given_up)
    return [Reason("phases", _phases(plan, facts, own), why, number, strategy.source)]


def _phases(plan: Plan, facts: Facts, own: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a preset's name or a list
    if plan.strategy == "lp_ft" and int(own.get("trainer.max_epochs", 2)) > 1:
        head: dict[str, Any] = {"train": "head", "epochs": 1 if facts.model.solvable else "30%"}
        return [head, {"train": "all", "bn": _batch_norm(facts)}]
    if plan.strategy == "lp_ft":
        return "full"  # one epoch is too short for two phases
    if plan.strategy == "partial" and "phases" not in own:
        return [{"train": plan.train, "bn": _batch_norm(facts)}]
    return plan.strategy


def _batch_norm(facts: Facts) -> str:
    """The statistics stay as they came, but of very many pictures (recipes).

    Measured on ELPV, which is far from the source (lite0, 64 px, lp_ft, 200 and 1,673 pictures, 3 paired runs): test
    accuracy with ``frozen`` is .025 above ``adapt`` and .051 above ``train``; of a solved head .050 above ``adapt``.
    """
    return "train" if facts.model.batch_norm and facts.pictures.training >= MANY else "frozen"


def _augmentation(facts: Facts, strategy: str) -> str:
    if strategy == "feature_extraction":
        return "none"
    return "trivial" if facts.pictures.training >= MANY else "flips"


def _pictures(plan: Plan, facts: Facts, batch: int, given_up: tuple[str, ...]) -> list[Reason]:
    side, own = facts.pictures.short_side, facts.model.own_size
    smaller = plan.image_size < own
    why = "the size that the weights know" if not smaller else "the pictures are small themselves"
    why = "the budget" if any(text.startswith("data.image_size") for text in given_up) else why
    sides = f"the weights' own is {own}" + ("" if side is None else f", the pictures' shorter side {side} (median)")
    views = VIEWS.get(plan.augmentation)
    kept = "; its versions are kept where stages are frozen" if views not in (None, 1) and plan.train != "all" else ""
    augmentations = {
        "none": "the head alone is solved on plain pictures",
        "flips": f"left-right mirrors{kept}; none where left and right differ, dihedral where there is no up and down",
        "trivial": "many pictures bear, and long training wants, stronger changes",
    }
    return [
        Reason("data.image_size", plan.image_size, why + _budgeted("data.image_size", given_up), sides, "FixRes"),
        Reason(
            "data.batch_size",
            batch,
            "enough steps in an epoch, and a gradient that is not all chance",
            f"{facts.pictures.training:,} training pictures",
            JUDGEMENT,
        ),
        Reason(
            "data.augmentation",
            plan.augmentation,
            augmentations.get(plan.augmentation, ""),
            "accuracy .019 above none, .025 above trivial" if plan.augmentation == "flips" else "",
            ELPV if plan.augmentation == "flips" else JUDGEMENT,
        ),
    ]


def _rates(plan: Plan, facts: Facts) -> list[Reason]:
    if plan.train == "head" and facts.model.solvable:
        return []  # there is no rate where the head is solved
    if plan.strategy == "scratch":
        return [Reason("model.lr", 1e-3, "the usual rate of AdamW", "", JUDGEMENT)]
    if not facts.model.convolutions:
        rates = [
            Reason("model.lr", 1e-4, "attention wants small rates", "", f"{AUTOGLUON} for a ViT"),
            Reason("model.backbone_lr_scale", 1.0, "the top stage as the head, whose rate is small", "", JUDGEMENT),
        ]
    else:
        rates = [
            Reason("model.lr", 3e-3, "of the head", "best of the rates tried with AdamW", ELPV),
            Reason("model.backbone_lr_scale", 0.3, "the top stage at 9e-4", "best of the rates tried", ELPV),
        ]
    decay, large = 1e-3, not facts.model.convolutions and facts.pictures.training >= MANY
    return [
        *rates,
        Reason(
            "model.bottom_ratio", 0.1, "the first stage at a tenth of the top's: it is the most general", "", FASTAI
        ),
        Reason(
            "model.weight_decay",
            0.05 if large else decay,
            "of everything but biases and normalisation",
            "",
            "MAE for a ViT on many pictures" if large else AUTOGLUON,
        ),
    ]


def _balance(facts: Facts) -> list[Reason]:
    pictures = facts.pictures
    if pictures.answers not in ("class",):
        return []
    number = f"the most frequent class has {pictures.imbalance:.1f} times the pictures of the rarest"
    if pictures.imbalance < UNEVEN:
        return [Reason("model.class_weights", "none", f"below {UNEVEN:g} times nothing is gained", number, JUDGEMENT)]
    if pictures.imbalance < VERY_UNEVEN:
        why = "rare classes count as much as frequent ones"
        return [Reason("model.class_weights", "balanced", why, number, JUDGEMENT)]
    why = "balanced weights would let a few pictures rule; these grow less steeply"
    return [Reason("model.class_weights", "effective", why, number, "Cui et al. 2019")]


def _length(plan: Plan, facts: Facts, batch: int, given_up: tuple[str, ...], own: Mapping[str, Any]) -> list[Reason]:
    if isinstance(own.get("phases"), list):
        return []  # the phases say it
    if plan.train == "head" and facts.model.solvable:
        return [Reason("trainer.max_epochs", 1, "the head is solved in one", "", "logistic regression has one optimum")]
    solved = plan.strategy == "lp_ft" and "trainer.max_epochs" not in own
    steps = math.ceil(facts.pictures.training / batch) * plan.epochs
    why = f"{plan.epochs} epochs of training" + _budgeted("trainer.max_epochs", given_up)
    number = f"about {steps:,} steps" + (", and one look at the solved head" if solved else "")
    patience = max(5, plan.epochs // 2)
    return [
        Reason("trainer.max_epochs", plan.epochs + solved, why, number, BIT),
        Reason(
            "early_stopping.patience",
            patience,
            "half the run: under a cosine schedule the best comes late",
            f"{plan.epochs} epochs",
            JUDGEMENT,
        ),
    ]


def _rest(facts: Facts, plan: Plan, own: Mapping[str, Any]) -> list[Reason]:
    machine = facts.machine
    precision = Reason(
        "trainer.precision", machine.precision, f"what {machine.device} does fast", f"{machine.cores} cores", "hardware"
    )
    if plan.train == "head":
        return [precision]
    measured = "macro F1 changed by -.002 ± .007 over 21 paired runs"
    return [
        precision,
        Reason("ema", None, "a running mean of the weights did not help", measured, ELPV),
        Reason("soup", 0, "an average over epochs, off unless you ask for it", "", JUDGEMENT),
    ]
