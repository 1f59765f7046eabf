"""Discriminative learning rates: each stage has its own in a named optimizer group, from the first step on."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from torch import nn
from torch.optim import AdamW

from tl_lightning.backbones import Stage


def learning_rates(
    stages: Sequence[Stage], lr: float, *, backbone_lr_scale: float, bottom_ratio: float
) -> dict[str, float]:
    """Spreads learning rates over the depth of a model.

    Stating the ratio of bottom to top, rather than a factor per stage, gives the same learning rates at both ends
    however many stages a library counts in a model.

    Args:
        stages: The backbone's stages, input to output.
        lr: The head's learning rate.
        backbone_lr_scale: The top stage gets ``lr * backbone_lr_scale``.
        bottom_ratio: The first stage gets this share of the top stage's; between them they fall geometrically.

    Returns:
        The learning rate of every stage, input to output, and of ``head``.
    """
    steps = max(len(stages) - 1, 1)
    spread = {
        stage.name: lr * backbone_lr_scale * bottom_ratio ** ((len(stages) - 1 - depth) / steps)
        for depth, stage in enumerate(stages)
    }
    return {**spread, "head": lr}


def parameter_groups(
    backbone: nn.Module,
    heads: Mapping[str, nn.Module],
    stages: Sequence[Stage],
    *,
    learning_rates: Mapping[str, float],
    weight_decay: float,
    decays_embeddings: bool = False,
) -> list[dict[str, Any]]:
    """Puts every parameter, frozen or not, into a group of its stage or head.

    Phases then only flip ``requires_grad``: an optimizer neither moves nor decays a parameter without a gradient, and
    no group ever has to be added while training (which breaks schedulers and resuming). Biases, normalisation weights
    and what the model itself names (`no_weight_decay`: tokens, position embeddings and tables of relative positions,
    for which zero is no simpler than another value) are not decayed.

    Args:
        backbone: Owner of the stages' parameters.
        heads: The task's heads by the name of their group, such as ``head``.
        stages: The backbone's stages.
        learning_rates: One for each stage and head, by name.
        weight_decay: For the parameters that decay.
        decays_embeddings: Whether what the model names decays all the same, as in runs of earlier versions.

    Returns:
        Optimizer groups named ``NAME`` and ``NAME/no_decay``, each with its learning rate as ``lr`` and ``base_lr``.
    """
    named = dict(backbone.named_parameters())
    patterns = () if decays_embeddings else _undecayed(backbone)
    spared = {id(tensor) for name, tensor in named.items() if any(fnmatch(name, pattern) for pattern in patterns)}
    members = {stage.name: [named[name] for name in stage.parameters] for stage in stages}
    members |= {name: list(head.parameters()) for name, head in heads.items()}
    groups = []
    for name, parameters in members.items():
        decayed = [parameter for parameter in parameters if parameter.ndim > 1 and id(parameter) not in spared]
        others = [parameter for parameter in parameters if parameter.ndim <= 1 or id(parameter) in spared]
        for suffix, chosen, decay in (("", decayed, weight_decay), ("/no_decay", others, 0.0)):
            if chosen:
                lr = {"lr": learning_rates[name], "base_lr": learning_rates[name]}
                groups.append({"name": name + suffix, "params": chosen, "weight_decay": decay, **lr})
    return groups


def build_optimizer(
    backbone: nn.Module,
    heads: Mapping[str, nn.Module],
    stages: Sequence[Stage],
    *,
    learning_rates: Mapping[str, float],
    weight_decay: float,
    fused: bool,
    decays_embeddings: bool = False,
) -> AdamW:
    """Builds AdamW over `parameter_groups`, whose arguments it takes.

    Args:
        backbone: Owner of the stages' parameters.
        heads: The task's heads by the name of their group.
        stages: The backbone's stages.
        learning_rates: One for each stage and head, by name.
        weight_decay: For the parameters that decay.
        fused: One kernel for all tensors: six times faster than one by one on a CPU, and few launches on a GPU. A
            scaled loss forbids it where gradients are clipped.
        decays_embeddings: See `parameter_groups`.
    """
    groups = parameter_groups(
        *(backbone, heads, stages),
        learning_rates=learning_rates,
        weight_decay=weight_decay,
        decays_embeddings=decays_embeddings,
    )
    return AdamW(groups, fused=fused)


def _undecayed(backbone: nn.Module) -> tuple[str, ...]:
    own: Any = getattr(backbone, "no_weight_decay", None)  # timm's word, with wildcards
    return tuple(own()) if callable(own) else ()
