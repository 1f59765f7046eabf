"""Whether a head on cached features can be solved, and why not."""

from collections.abc import Mapping, Sequence

from torch import nn

from tl_lightning.tasks.by_name import ByName
from tl_lightning.tasks.heads import HeadOptions, linear_layer
from tl_lightning.tasks.objectives import Objective


def replaced(instance: object, owner: type, names: Sequence[str]) -> str | None:
    """Says which of a class's methods a subclass has its own version of; `None` for none.

    Args:
        instance: An object of the class or of a subclass.
        owner: The class, which knows what its own methods do.
        names: What the methods are called.
    """
    own = [name for name in names if getattr(type(instance), name) is not getattr(owner, name)]
    return f"{type(instance).__name__} has its own {own[0]}" if own else None


def unsolvable_head(
    objectives: ByName[Objective], options: Mapping[str, HeadOptions], heads: ByName[nn.Module]
) -> str | None:
    """Why one of the heads of a task has to be trained; `None` where all can be solved.

    Args:
        objectives: What each head learns.
        options: What each head is.
        heads: From features to outputs.
    """
    for name, head in heads.items():
        if type(objectives[name]).solve is Objective.solve:
            return f"{type(objectives[name]).__name__} has no solver"
        if reason := _unsolvable(objectives[name], options[name], head):
            return reason if len(heads) == 1 else f"{name}: {reason}"
    return None


def _unsolvable(objective: Objective, options: HeadOptions, head: nn.Module) -> str | None:
    reasons = {
        "model.head mlp has more than one optimum": options.kind == "mlp",
        "its head is not one linear layer": linear_layer(head) is None,
        "model.head_dropout is above 0": options.dropout > 0,
    }
    return objective.unsolvable or next((reason for reason, holds in reasons.items() if holds), None)
