"""Discriminative learning rates: a real rate in a named optimizer group for every stage, from the first step on."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tl_lightning.backbones import Stage


def learning_rates(
    stages: Sequence[Stage], lr: float, *, backbone_lr_scale: float, bottom_ratio: float
) -> dict[str, float]:
    """Spreads learning rates over the depth of a model.

    Stating the ratio of bottom to top, rather than a factor per stage, gives the same rates at both ends however many
    stages a library counts in a model.

    Args:
        stages: The backbone's stages, input to output.
        lr: The head's rate.
        backbone_lr_scale: The top stage gets ``lr * backbone_lr_scale``.
        bottom_ratio: The first stage gets this share of the top stage's; between them the rates fall geometrically.

    Returns:
        The rate of every stage, input to output, and of ``head``.
    """
    steps = max(len(stages) - 1, 1)
    rates = {
        stage.name: lr * backbone_lr_scale * bottom_ratio ** ((len(stages) - 1 - depth) / steps)
        for depth, stage in enumerate(stages)
    }
    return {**rates, "head": lr}


def parameter_groups(
    backbone: nn.Module, head: nn.Module, stages: Sequence[Stage], *, rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Puts every parameter, frozen or not, into a group of its stage.

    Phases then only flip ``requires_grad``: an optimizer neither moves nor decays a parameter without a gradient, and
    no group ever has to be added while training (which breaks schedulers and resuming). Biases and normalisation
    weights are not decayed.

    Args:
        backbone: Owner of the stages' parameters.
        head: The task's head.
        stages: The backbone's stages.
        rates: What `learning_rates` gave.
        weight_decay: For the parameters that decay.

    Returns:
        Optimizer groups named ``STAGE`` and ``STAGE/no_decay``, each with its rate as ``lr`` and as ``base_lr``.
    """
    named = dict(backbone.named_parameters())
    members = {stage.name: [named[name] for name in stage.parameters] for stage in stages}
    members["head"] = list(head.parameters())
    groups = []
    for name, parameters in members.items():
        decayed = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        for suffix, chosen, decay in (("", decayed, weight_decay), ("/no_decay", others, 0.0)):
            if chosen:
                rate = {"lr": rates[name], "base_lr": rates[name]}
                groups.append({"name": name + suffix, "params": chosen, "weight_decay": decay, **rate})
    return groups
