"""Cautions about the field's known mistakes: what a configuration risks, in one line each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tl_lightning.errors import UserError, nearest
from tl_lightning.finetuning.phases import Phase
from tl_lightning.preprocess import ImagePreprocess, Preprocess

KEYS = (
    "backbone_lr",
    "random_frozen",
    "not_head_only",
    "no_early_stopping",
    "input_size",
    "preprocessing",
    "full_on_few",
    "balanced_twice",
    "few_drawn_often",
)

# AdamW from scratch: 1e-3 at a batch of 1024 for DeiT (arXiv:2012.12877), 4e-3 at 4096 for ConvNeXt (arXiv:2201.03545).
FROM_SCRATCH_LR = 1e-3
FEW_TO_OVERFIT = 1000
LONG_PHASE = 20
FEW_FOR_ALL = 500
OFTEN = 10  # times that an image comes in an epoch
HEAD_ONLY_NAME = re.compile(r"(^|_)(feature_extraction|linear_probe|probe|head_only|frozen)(_|$)")


@dataclass(frozen=True)
class Caution:
    """A choice that is probably a mistake; it stops nothing.

    Attributes:
        key: One of `KEYS`, by which it is silenced.
        text: One line: what is risked, with the numbers, and how to silence it.
    """

    key: str
    text: str


def cautions(
    *,
    name: str,
    phases: Sequence[Phase],
    pretrained: bool,
    top_lr: float,
    preprocess: Preprocess,
    own_preprocess: Preprocess,
    training_images: int,
    patience: float,
    sampler: str = "shuffled",
    class_weights: str = "none",
    class_counts: Mapping[str, int] | None = None,
) -> list[Caution]:
    """Looks for known mistakes in what is about to be trained.

    Args:
        name: The run's or its configuration's name.
        phases: What trains and for how long, with the epochs of each phase filled in.
        pretrained: Whether the weights are anything but random.
        top_lr: The base learning rate of the backbone's top stage, the highest of the backbone.
        preprocess: The preparation in force.
        own_preprocess: The preparation that the weights were pretrained with.
        training_images: How many images are trained on.
        patience: Epochs without an improvement that end a phase, where the phase has no patience of its own; infinite
            for never.
        sampler: How training images are drawn.
        class_weights: How the loss weighs the classes.
        class_counts: Training images of each class, where there are classes.

    Returns:
        A caution for every mistake found, in the order of `KEYS`.
    """
    found = {
        "backbone_lr": _backbone_lr(phases, pretrained, top_lr),
        "random_frozen": _random_frozen(phases, pretrained),
        "not_head_only": _not_head_only(phases, name),
        "no_early_stopping": _no_early_stopping(phases, training_images, patience),
        "input_size": _input_size(preprocess, own_preprocess, pretrained),
        "preprocessing": _preprocessing(preprocess, own_preprocess, pretrained),
        "full_on_few": _full_on_few(phases, pretrained, training_images),
        "balanced_twice": _balanced_twice(sampler, class_weights),
        "few_drawn_often": _few_drawn_often(sampler, class_counts or {}),
    }
    return [Caution(key, f"{text} (--silence {key} if you mean it)") for key, text in found.items() if text]


def check_silenced(keys: Sequence[str]) -> None:
    """Checks that only cautions that exist are silenced.

    Args:
        keys: What the user silences.

    Raises:
        UserError: If one of them is not in `KEYS`.
    """
    for key in keys:
        if key not in KEYS:
            raise UserError(f"silence: {key!r} is no caution{nearest(key, KEYS)} (cautions: {', '.join(KEYS)})")


def _backbone_lr(phases: Sequence[Phase], pretrained: bool, top_lr: float) -> str | None:
    training = [phase for phase in phases if _trains_backbone(phase)]
    if not pretrained or not training:
        return None
    fastest = max(training, key=lambda phase: phase.lr_scale)
    lr = top_lr * fastest.lr_scale
    if lr < FROM_SCRATCH_LR:
        return None
    return (
        f"phase {_called(phases, fastest)} trains the pretrained backbone at a learning rate of up to {lr:.3g}, "
        f"and from {FROM_SCRATCH_LR:g} on that is what training from scratch uses: it overwrites what the weights "
        "know; lower model.lr or model.backbone_lr_scale"
    )


def _random_frozen(phases: Sequence[Phase], pretrained: bool) -> str | None:
    if pretrained or any(_trains_backbone(phase) for phase in phases):
        return None
    return (
        "the backbone's weights are random and no phase trains them: the head learns on random features; give "
        "model.weights, or a phase that trains the backbone"
    )


def _not_head_only(phases: Sequence[Phase], name: str) -> str | None:
    words = "_".join(re.findall(r"[a-z0-9]+", name.lower()))
    training = next((phase for phase in phases if _trains_backbone(phase)), None)
    if HEAD_ONLY_NAME.search(words) is None or training is None:
        return None
    return (
        f"the run is called {name!r}, but phase {_called(phases, training)} trains the backbone too: its result would "
        "pass for a head's; train: head, or another name"
    )


def _no_early_stopping(phases: Sequence[Phase], training_images: int, patience: float) -> str | None:
    longest = max(phases, key=lambda phase: phase.epochs or 0)
    epochs = longest.epochs or 0
    allowed = patience if longest.patience is None else longest.patience
    if training_images >= FEW_TO_OVERFIT or epochs < LONG_PHASE or allowed < epochs:
        return None
    return (
        f"phase {_called(phases, longest)} goes {epochs} times over {training_images} training images, and a "
        f"patience of {allowed:g} epochs never ends it early: it may learn them by heart; lower the patience below "
        f"{epochs}"
    )


def _input_size(preprocess: Preprocess, own: Preprocess, pretrained: bool) -> str | None:
    if not pretrained or not isinstance(preprocess, ImagePreprocess) or not isinstance(own, ImagePreprocess):
        return None
    if own.size / 2 <= preprocess.size <= 2 * own.size:
        return None
    change = "less than half" if preprocess.size < own.size else "more than double"
    return (
        f"images are made {preprocess.size} pixels wide, {change} the {own.size} that the weights were trained with: "
        "things appear at a scale that they have not seen; set data.image_size closer to it"
    )


def _preprocessing(preprocess: Preprocess, own: Preprocess, pretrained: bool) -> str | None:
    changed = preprocess.differences(own)
    if not pretrained or not changed:
        return None
    return f"inputs are not prepared as the weights expect: {', '.join(changed)}; the features suffer without any error"


def _full_on_few(phases: Sequence[Phase], pretrained: bool, training_images: int) -> str | None:
    full = next((phase for phase in phases if phase.train in ("all", "layers::")), None)
    if not pretrained or full is None or training_images >= FEW_FOR_ALL:
        return None
    return (
        f"phase {_called(phases, full)} trains the whole backbone on {training_images} images, fewer than "
        f"{FEW_FOR_ALL}: it may learn them by heart; try --phases feature_extraction or --phases partial"
    )


def _balanced_twice(sampler: str, class_weights: str) -> str | None:
    if sampler != "balanced" or class_weights == "none":
        return None
    return (
        f"data.sampler balanced and model.class_weights {class_weights} both make up for rare classes, which together "
        "is too much; use one of them"
    )


def _few_drawn_often(sampler: str, class_counts: Mapping[str, int]) -> str | None:
    counts = {name: count for name, count in class_counts.items() if count}
    if sampler != "balanced" or not counts:
        return None
    rarest = min(counts, key=counts.__getitem__)
    times = sum(counts.values()) / len(counts) / counts[rarest]
    if times < OFTEN:
        return None
    return (
        f"data.sampler balanced shows each of the {counts[rarest]} training images of {rarest!r} {times:.0f} times "
        "in every epoch: it may learn them by heart; model.class_weights effective asks for less"
    )


def _trains_backbone(phase: Phase) -> bool:
    return phase.train != "head"


def _called(phases: Sequence[Phase], phase: Phase) -> str:
    return f"{phases.index(phase) + 1} ({phase.name or phase.train})"
