"""Every setting with its reason: pure functions of facts, the numbers and their sources beside them."""

import math
from collections.abc import Mapping
from typing import Any

from tl_lightning.choosing.advising.cost import VIEWS, Plan
from tl_lightning.choosing.advising.decision import MANY, Step, Strategy
from tl_lightning.choosing.advising.facts import Facts
from tl_lightning.choosing.advising.reasons import Reason
from tl_lightning.experiment.cautions import FEW_FOR_ALL
from tl_lightning.tasks.objectives import OBJECTIVES

BIT = "BiT's 500 steps, 8 to 40 epochs"  # Kolesnikov et al. 2020, arXiv:1912.11370; the bounds are ours
AUTOGLUON = "AutoGluon's default"
FASTAI = "fastai"
FIXRES = "FixRes"  # Touvron et al. 2019, arXiv:1906.06423: what is trained at one scale wants to be tested at it
JUDGEMENT = "judgement"
ELPV = "measured on ELPV"
UNEVEN = 3.0  # the most frequent class over the rarest, from which classes are weighed
VERY_UNEVEN = 20.0


def backbone(plan: Plan, facts: Facts) -> list[Reason]:
    """The backbone and its weights."""
    model, probe = facts.model, facts.probe
    score = "" if probe is None else f"{probe.what} {probe.pretrained} on frozen features"
    if probe is not None and probe.random is not None:
        score += f", random weights {probe.random}, baseline {probe.baseline:.3f}"
    name = Reason("model.backbone", model.backbone, f"{model.parameters / 1e6:.1f} M parameters", score, "linear probe")
    if plan.strategy == "scratch":
        return [name, Reason("model.weights", "none", "from scratch")]
    return [name, Reason("model.weights", model.weights, "what is transferred")]


def phases(
    advised: tuple[Strategy, tuple[Step, ...]], plan: Plan, facts: Facts, own: Mapping[str, Any]
) -> list[Reason]:
    """What trains, in which order.

    Args:
        advised: By the strategy rule, with the way to it.
        plan: What the user and the budget have made of that.
        facts: What is known.
        own: The user's settings.
    """
    strategy, path = advised
    why = f"{strategy.name}: {strategy.why}"
    if plan.strategy != strategy.name:
        by = "yours" if "phases" in own else "the budget's choice"
        why = f"{plan.strategy} is {by}; the rule says {why}"
    few = facts.images.training < FEW_FOR_ALL and plan.train == "all" and plan.strategy != "scratch"
    number = "; ".join(step.number for step in path[2:])
    found = [Reason("phases", _phases(plan, facts, own), why, number, strategy.source)]
    if few and "phases" not in own:
        found.append(Reason("silence", ["full_on_few"], "that is meant: these images are far from the source"))
    return found


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
    """The statistics stay as they came, but of very many images (recipes).

    Measured on ELPV, which is far from the source (lite0, 64 px, lp_ft, 200 and 1,673 images, 3 paired runs): test
    accuracy with ``frozen`` is .025 above ``adapt`` and .051 above ``train``; of a solved head .050 above ``adapt``.
    """
    return "train" if facts.model.batch_norm and facts.images.training >= MANY else "frozen"


def augmentation(facts: Facts, strategy: str) -> str:
    """The augmentation of a strategy."""
    if strategy == "feature_extraction":
        return "none"
    return "trivial" if facts.images.training >= MANY else "flips"


def images(plan: Plan, facts: Facts, batch: int, given_up: tuple[str, ...]) -> list[Reason]:
    """Size, batches and augmentation."""
    side, own = facts.images.short_side, facts.model.own_size
    smaller = plan.image_size < own
    why = "the size that the weights know" if not smaller else "the images are small themselves"
    why = "the budget" if any(text.startswith("data.image_size") for text in given_up) else why
    sides = f"the weights' own is {own}" + ("" if side is None else f", the images' shorter side {side} (median)")
    views = VIEWS.get(plan.augmentation)
    cached = (
        "; its versions are cached where stages are frozen" if views not in (None, 1) and plan.train != "all" else ""
    )
    augmentations = {
        "none": "the head alone is solved on plain images",
        "flips": f"left-right mirrors{cached}; none where left and right differ, dihedral where up and down do not",
        "trivial": "many images bear, and long training wants, stronger changes",
    }
    return [
        Reason("data.image_size", plan.image_size, why + _budgeted("data.image_size", given_up), sides, FIXRES),
        Reason(
            "data.batch_size",
            batch,
            "enough steps in an epoch, and a gradient that is not all chance",
            f"{facts.images.training:,} training images",
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


def learning_rates(plan: Plan, facts: Facts) -> list[Reason]:
    """Learning rates and weight decay."""
    if plan.train == "head" and facts.model.solvable:
        return []  # there is no learning rate where the head is solved
    if plan.strategy == "scratch":
        return [Reason("model.lr", 1e-3, "the usual learning rate of AdamW", "", JUDGEMENT)]
    if not facts.model.convolutions:
        found = [
            Reason("model.lr", 1e-4, "attention wants small learning rates", "", f"{AUTOGLUON} for a ViT"),
            Reason(
                "model.backbone_lr_scale", 1.0, "the top stage as the head, whose learning rate is small", "", JUDGEMENT
            ),
        ]
    else:
        found = [
            Reason("model.lr", 3e-3, "of the head", "the learning rates of our measured strategies", ELPV),
            Reason("model.backbone_lr_scale", 0.3, "the top stage at 9e-4", "likewise", ELPV),
        ]
    decay, large = 1e-3, not facts.model.convolutions and facts.images.training >= MANY
    return [
        *found,
        Reason(
            "model.bottom_ratio", 0.1, "the first stage at a tenth of the top's: it is the most general", "", FASTAI
        ),
        Reason(
            "model.weight_decay",
            0.05 if large else decay,
            "of everything but biases and normalisation",
            "",
            "MAE for a ViT on many images" if large else AUTOGLUON,
        ),
    ]


def balance(facts: Facts, own: Mapping[str, Any]) -> list[Reason]:
    """What is done about rare classes."""
    if not OBJECTIVES[facts.images.problem_type].weighs_classes:
        return []
    imbalance = facts.images.imbalance
    number = f"the most frequent class has {imbalance:.1f} times the images of the rarest"
    if own.get("data.sampler") == "balanced":
        return [Reason("model.class_weights", "none", "your sampler makes up for rare classes", number)]
    if imbalance < UNEVEN:
        return [Reason("model.class_weights", "none", f"even enough, below {UNEVEN:g} times", number, JUDGEMENT)]
    if imbalance < VERY_UNEVEN:
        why = "rare classes count as much as frequent ones"
        return [Reason("model.class_weights", "balanced", why, number, JUDGEMENT)]
    why = "balanced weights would let a few images rule; these grow less steeply"
    return [Reason("model.class_weights", "effective", why, number, "Cui et al. 2019")]


def length(plan: Plan, facts: Facts, batch: int, given_up: tuple[str, ...], own: Mapping[str, Any]) -> list[Reason]:
    """How long it trains, and when it stops early."""
    if isinstance(own.get("phases"), list):
        return []  # the phases say it
    if plan.train == "head" and facts.model.solvable:
        why = "the head is solved in one; so many only where there is no room to cache features"
        return [Reason("trainer.max_epochs", plan.epochs, why, "", BIT)]
    solved = plan.strategy == "lp_ft" and "trainer.max_epochs" not in own
    steps = math.ceil(facts.images.training / batch) * plan.epochs
    why = f"{plan.epochs} epochs of training" + _budgeted("epochs", given_up)
    number = f"about {steps:,} steps" + (", and one look at the solved head" if solved else "")
    patience = max(5, plan.epochs // 2)
    return [
        Reason("trainer.max_epochs", plan.epochs + solved, why, number, BIT),
        Reason(
            "early_stopping.patience",
            patience,
            "half the run, five at least: under a cosine schedule the best comes late",
            f"{plan.epochs} epochs",
            JUDGEMENT,
        ),
    ]


def rest(plan: Plan, facts: Facts) -> list[Reason]:
    """Precision, and what is left off."""
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


def _budgeted(key: str, given_up: tuple[str, ...]) -> str:
    return next((f"; the budget asks for {text}" for text in given_up if text.startswith(key)), "")
