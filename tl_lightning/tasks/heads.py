"""What turns features into outputs."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tl_lightning.errors import UserError
from tl_lightning.tasks.by_name import ByName

HeadKind = Literal["linear", "mlp"]


@dataclass(frozen=True)
class HeadOptions:
    """What a head is.

    Attributes:
        kind: ``linear``, or ``mlp`` (one hidden layer with GELU).
        hidden: Width of the MLP's hidden layer.
        dropout: Probability, from 0 up to but not including 1, of dropping an input of the last layer.
    """

    kind: HeadKind = "linear"
    hidden: int = 512
    dropout: float = 0.0


def build_head(options: HeadOptions, num_features: int, num_outputs: int) -> nn.Module:
    """Builds a head.

    Args:
        options: What it is.
        num_features: Width of the features.
        num_outputs: Number of outputs.

    Returns:
        A module from ``(N, num_features)`` to ``(N, num_outputs)``.

    Raises:
        UserError: If the width or the probability is out of range.
    """
    if not 0 <= options.dropout < 1:
        raise UserError(f"model.head_dropout is {options.dropout}; it must be at least 0 and below 1")
    if options.kind == "linear":
        return nn.Sequential(nn.Dropout(options.dropout), nn.Linear(num_features, num_outputs))
    if options.hidden < 1:
        raise UserError(f"model.head_hidden is {options.hidden}; it must be 1 or more")
    return nn.Sequential(
        nn.Linear(num_features, options.hidden),
        nn.GELU(),
        nn.Dropout(options.dropout),
        nn.Linear(options.hidden, num_outputs),
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


@torch.no_grad()
def set_linear(head: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Sets a linear head to what was solved.

    Args:
        head: One that has a `linear_layer`.
        weight: ``(outputs, num_features)``.
        bias: ``(outputs,)``.
    """
    linear = linear_layer(head)
    assert linear is not None  # or it would have been unsolvable
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def run_heads(heads: ByName[nn.Module], features: Tensor) -> dict[str, Tensor]:
    """What each head makes of features, by its name: ``float32``, or ``float64`` where its weights are.

    Args:
        heads: From features to outputs.
        features: ``(N, num_features)``.
    """
    outputs: dict[str, Tensor] = {}
    # In full precision, which costs next to nothing here: logits rounded to bfloat16 have three digits.
    with torch.autocast(features.device.type, enabled=False):
        for name, head in heads.items():
            output: Tensor = head(features.to(next(head.parameters()).dtype))
            outputs[name] = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    return outputs
