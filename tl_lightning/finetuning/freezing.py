"""Frozen means frozen: no gradient, no moving statistics, no dropout, the same features in train and eval mode."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from tl_lightning.backbones import Stage
from tl_lightning.core.private import BatchNorm


def freeze_all_but(backbone: nn.Module, trainable: Collection[str]) -> None:
    """Makes exactly the named parameters of a backbone trainable.

    Args:
        backbone: The module that owns them.
        trainable: Names in ``backbone.named_parameters()``.
    """
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in trainable)
        if not parameter.requires_grad:
            parameter.grad = None  # a gradient left from the phase before would still be applied


def set_training_modes(backbone: nn.Module, *, bn: str) -> None:
    """Puts the parts that train into train mode and everything else into eval mode.

    A module trains if it owns or holds a trainable parameter; one without parameters (dropout, stochastic depth) does
    as the module around it. Only eval mode keeps a frozen BatchNorm's statistics and a frozen stage's dropout still:
    clearing ``requires_grad`` does neither.

    Args:
        backbone: Its parameters' ``requires_grad`` say what trains.
        bn: ``train`` lets BatchNorm layers that train follow the batches; any other mode keeps their statistics.
    """

    def visit(module: nn.Module, inherited: bool) -> None:
        parameters = list(module.parameters())
        trains = any(parameter.requires_grad for parameter in parameters) if parameters else inherited
        module.training = trains and (bn == "train" or not isinstance(module, BatchNorm))
        for child in module.children():
            visit(child, trains)

    visit(backbone, False)


@dataclass(frozen=True)
class StageRow:
    """What one stage does in a phase; the heads are the last rows.

    Attributes:
        name: The stage.
        parameters: How many numbers it has.
        trainable: How many of them train.
        learning_rate: The peak learning rate of the phase; `None` where nothing is trained by steps.
        batch_norm: ``frozen``, ``train``, ``adapt``, or an empty string where the stage has none.
    """

    name: str
    parameters: int
    trainable: int
    learning_rate: float | None
    batch_norm: str


def stage_rows(
    backbone: nn.Module,
    heads: Mapping[str, nn.Module],
    stages: Sequence[Stage],
    *,
    rates: Mapping[str, float],
    bn: str,
) -> list[StageRow]:
    """Describes what trains now, stage by stage, as the parameters themselves say it.

    Args:
        backbone: The module that owns the stages.
        heads: The task's heads by the name of their group.
        stages: The backbone's stages.
        rates: The phase's peak learning rate per stage and of each head.
        bn: The phase's BatchNorm mode.
    """
    named = dict(backbone.named_parameters())
    members = {stage.name: [named[name] for name in stage.parameters] for stage in stages}
    members |= {name: list(head.parameters()) for name, head in heads.items()}
    with_norm = {stage.name for stage in stages if _has_batch_norm(backbone, stage)}
    rows = []
    for name, parameters in members.items():
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        rows.append(
            StageRow(
                name=name,
                parameters=sum(parameter.numel() for parameter in parameters),
                trainable=trainable,
                learning_rate=rates[name] if trainable else None,
                batch_norm="" if name not in with_norm else bn if trainable or bn == "adapt" else "frozen",
            )
        )
    return rows


def _has_batch_norm(backbone: nn.Module, stage: Stage) -> bool:
    owners = {name.rpartition(".")[0] for name in stage.parameters}
    return any(isinstance(backbone.get_submodule(owner), BatchNorm) for owner in owners)
