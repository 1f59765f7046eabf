"""What earlier versions called the weights of a task: their checkpoints load."""

from collections.abc import MutableMapping
from typing import Any

OBJECTIVE = ("loss_weights", "positive_weights", "mean", "scale", "lowest", "highest")


def rename_weights(state: MutableMapping[str, Any], target: str) -> None:
    """Gives the weights of a task from before there were several heads their names of today, in place.

    Args:
        state: A state dict, of whichever version.
        target: The name of the only head.
    """
    for name in list(state):
        if name.startswith("head."):
            state[f"heads.{target}.{name.removeprefix('head.')}"] = state.pop(name)
        elif name in OBJECTIVE:
            state[f"objectives.{target}.{name}"] = state.pop(name)
