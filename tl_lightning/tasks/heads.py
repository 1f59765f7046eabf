"""What turns features into answers."""

from typing import Literal

from torch import nn

from tl_lightning.errors import UserError

HeadKind = Literal["linear", "mlp"]


def build_head(kind: HeadKind, num_features: int, num_outputs: int, *, hidden: int, dropout: float) -> nn.Module:
    """Builds a head.

    Args:
        kind: ``linear``, or ``mlp`` (one hidden layer with GELU).
        num_features: Width of the features.
        num_outputs: Number of outputs.
        hidden: Width of the MLP's hidden layer.
        dropout: Probability, from 0 up to but not including 1, of dropping an input of the last layer.

    Returns:
        A module from ``(N, num_features)`` to ``(N, num_outputs)``.

    Raises:
        UserError: If the width or the probability is out of range.
    """
    if not 0 <= dropout < 1:
        raise UserError(f"model.head_dropout is {dropout}; it must be at least 0 and below 1")
    if kind == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_outputs))
    if hidden < 1:
        raise UserError(f"model.head_hidden is {hidden}; it must be 1 or more")
    return nn.Sequential(
        nn.Linear(num_features, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, num_outputs)
    )


def linear_layer(head: nn.Module) -> nn.Linear | None:
    """The layer that is all of a head but for dropout; `None` where a head is more than that.

    Args:
        head: Such as `build_head` makes.
    """
    if isinstance(head, nn.Sequential) and [type(part) for part in head] == [nn.Dropout, nn.Linear]:
        layer = head[1]
        return layer if isinstance(layer, nn.Linear) else None
    return None
