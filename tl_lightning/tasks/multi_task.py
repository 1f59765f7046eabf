"""Several targets at once: a head for each on one backbone."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tl_lightning.data.samples import ProblemType
from tl_lightning.errors import UserError, nearest
from tl_lightning.tasks.base import HeadPlan, TransferTask
from tl_lightning.tasks.heads import HeadOptions
from tl_lightning.tasks.objectives import OBJECTIVES, Objective

HEAD = {"head": "kind", "head_hidden": "hidden", "head_dropout": "dropout"}  # keys of a head, and what they set
OWN = ("problem_type", "weight", "head_solver", *HEAD)


class MultiTask(TransferTask):
    """Several heads on one backbone, each with an objective of its own.

    The loss of each head is divided by what the best constant prediction loses on the training targets, whatever its
    kind: a head that has learned nothing stands at 1, a perfect one at 0, and equal weights mean equal say. The loss is
    the mean over the heads by their weights. That makes ``val/loss`` comparable between heads, too, so it picks the
    best weights unless ``checkpoint.monitor`` names the metric of one head, such as ``val/defect/macro_f1``.

    A sample that lacks a target (-1, or NaN) counts for the other heads only: where few samples have a target, its head
    has less say, which ``weight`` can make up for.

    Attributes:
        constant_losses: What the best constant prediction of each head loses, ``(heads,)``; part of checkpoints.
    """

    constant_losses: Tensor

    def __init__(
        self,
        backbone: str,
        classes: dict[str, list[str]],
        *,
        heads: dict[str, dict[str, Any]],
        **shared: Any,  # noqa: ANN401 - the arguments of the base, which the command line shows by name
    ) -> None:
        """Builds the model.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of what each target's outputs stand for, by the target's name; comes from the data.
            heads: For each target by its name: ``problem_type`` (multiclass, ordinal, multilabel or regression),
                ``weight`` (1 by default), and what a task of that type alone takes, such as ``head``, ``head_solver``,
                ``loss`` or ``class_weights``.
            **shared: See `TransferTask`; ``head``, ``head_hidden`` and ``head_dropout`` are for heads that do not say.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
        """
        if not heads or set(classes) != set(heads):
            raise UserError(
                f"model.heads are {', '.join(heads) or 'none'}, but the targets are {', '.join(classes) or 'none'}"
            )
        usual = {name: shared[key] for key, name in HEAD.items() if key in shared}
        planned = {name: _plan(name, spec, classes[name], usual) for name, spec in heads.items()}
        super().__init__(backbone, classes, planned=planned, **shared)
        weights = [float(spec.get("weight", 1.0)) for spec in heads.values()]
        for name, weight in zip(heads, weights, strict=True):
            if not 0 < weight < math.inf:
                raise UserError(f"model.heads.{name}.weight is {weight}; it must be above 0")
        self.shares = {name: weight / sum(weights) for name, weight in zip(heads, weights, strict=True)}
        self.register_buffer("constant_losses", torch.ones(len(heads)))

    @classmethod
    def problem_types(cls, arguments: Mapping[str, Any]) -> dict[str, ProblemType]:
        """What kind of target each head learns, by its name."""
        return {name: _objective(name, spec).problem_type for name, spec in (arguments.get("heads") or {}).items()}

    @classmethod
    def logged(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The metrics of each head behind its name, and the loss of all."""
        modes = {"loss": "min"}
        for name, spec in (arguments.get("heads") or {}).items():
            modes |= {f"{name}/{metric}": mode for metric, mode in _objective(name, spec).metrics.items()}
        return modes

    @classmethod
    def default_monitor(cls, arguments: Mapping[str, Any]) -> str:
        """The loss of all heads; see the class."""
        return "loss"

    def set_training_targets(self, targets: Tensor | Mapping[str, Tensor]) -> None:
        """Tells each objective its targets, and finds what the best constant prediction loses."""
        super().set_training_targets(targets)
        assert isinstance(targets, Mapping)
        for position, (name, objective) in enumerate(self.objectives.items()):
            given = targets[name][objective.known(targets[name])]
            constant = objective.constant_outputs(given).float().expand(len(given), -1)
            lost = float(objective.losses(constant, given).mean())
            self.constant_losses[position] = lost if lost > 0 else 1.0

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The mean over the heads, by their weights, of each sample's loss against the constant prediction's, ``(N,)``.

        Args:
            outputs: From `outputs`.
            targets: A row each, by the name of each head; -1 or NaN where a sample lacks it.
        """
        parts = []
        for (name, objective), constant in zip(self.objectives.items(), self.constant_losses, strict=True):
            losses = objective.losses(outputs[name], objective.filled(targets[name]))
            known = objective.known(targets[name])
            parts.append(torch.where(known, losses, 0.0) * (self.shares[name] / constant.to(losses.dtype)))
        return torch.stack(parts).sum(dim=0)


def _objective(name: str, spec: Any) -> type[Objective]:  # noqa: ANN401 - what a configuration says
    if not isinstance(spec, Mapping):
        raise UserError(f"model.heads.{name} is {spec!r}; give a mapping such as {{problem_type: multiclass}}")
    problem_type = spec.get("problem_type", "multiclass")
    if problem_type not in OBJECTIVES:
        known = f"{nearest(str(problem_type), OBJECTIVES)} ({', '.join(OBJECTIVES)})"
        raise UserError(f"model.heads.{name}.problem_type is {problem_type!r}{known}")
    return OBJECTIVES[problem_type]


def _plan(name: str, spec: Mapping[str, Any], classes: Sequence[str], usual: Mapping[str, Any]) -> HeadPlan:
    """The head that a configuration describes.

    Args:
        name: The target's name.
        spec: What the configuration says of it.
        classes: Names of what its outputs stand for.
        usual: Settings of heads that do not say, as `HeadOptions` calls them.
    """
    kind = _objective(name, spec)
    options = [key for key in inspect.signature(kind).parameters if key not in ("classes", "solver")]
    for key in spec:
        if key not in (*OWN, *options):
            raise UserError(f"unknown key 'model.heads.{name}.{key}'{nearest(key, (*OWN, *options))}")
    given = {HEAD[key]: value for key, value in spec.items() if key in HEAD}
    if given.get("kind", "linear") not in ("linear", "mlp"):
        raise UserError(f"model.heads.{name}.head is {given['kind']!r}; it must be linear or mlp")
    try:
        objective = kind(classes, solver=spec.get("head_solver"), **{key: spec[key] for key in options if key in spec})
    except UserError as error:
        raise UserError(str(error).replace("model.", f"model.heads.{name}.", 1)) from error
    return HeadPlan(objective, HeadOptions(**{**usual, **given}))
