"""What every kind of preparation can do, so that nobody else has to know which kind it is."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from tl_lightning.errors import UserError


class Preprocess(Protocol):
    """How inputs are made into what a backbone was pretrained on: plain data that travels with every checkpoint.

    A new kind is a frozen dataclass in a file of its own, which `tl_lightning.preprocess.KINDS` names.
    """

    @property
    def kind(self) -> str:
        """The kind of input, by which `from_dict` finds the class: ``image``, later ``text`` or ``audio``."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Reads what `to_dict` of any kind wrote; values without a ``kind`` are an image's, as there was no other.

        Args:
            values: Plain data, of a checkpoint.

        Raises:
            UserError: If this version knows no such kind.
        """
        from tl_lightning.preprocess import KINDS

        kind = values.get("kind", "image")
        if kind not in KINDS:
            raise UserError(f"preprocess.kind is {kind!r}; this version knows {', '.join(KINDS)}")
        return KINDS[kind].from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """The values, ``kind`` among them, as plain types that a checkpoint and JSON can hold."""

    def example(self, n: int, device: torch.device | str) -> tuple[Tensor, ...]:
        """Inputs that a backbone takes, of no meaning: the only source of such; also without memory, on ``meta``.

        Args:
            n: Rows.
            device: Where they are made.

        Returns:
            A tensor for each of the backbone's inputs, in their order, ``n`` rows each.
        """

    def on_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The last step, which is taken where the model is, as from bytes to normalised numbers.

        Args:
            batch: As the loaders make it; stays as it is.

        Returns:
            The batch as the model wants it.
        """

    def differences(self, other: "Preprocess") -> list[str]:
        """Says what is done otherwise than by another preparation, a phrase each; empty where nothing is.

        Args:
            other: What it is compared with, such as the weights' own.
        """
