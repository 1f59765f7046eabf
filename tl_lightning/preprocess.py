"""What the weights were pretrained with: plain data that travels with every checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tl_lightning.errors import UserError


@dataclass(frozen=True)
class Preprocess:
    """How a picture is made into what a model expects to see.

    Attributes:
        size: Side, in pixels, of the square that the model sees.
        channels: Number of colour channels that the model takes.
        crop_pct: The share of the resized picture's side that the crop keeps, in (0, 1].
        crop_mode: ``center`` resizes the shorter side and crops the middle; ``squash`` resizes both sides without
            regard to the aspect ratio; ``border`` resizes the longer side and pads. The words are timm's.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
        mean: Subtracted per channel, after scaling to 0..1.
        std: Divided by per channel, after the subtraction.
    """

    size: int
    channels: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Reads what `to_dict` wrote."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def to_dict(self) -> dict[str, Any]:
        """The values themselves, as plain types that a checkpoint and JSON can hold."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def with_size(self, size: int | None) -> "Preprocess":
        """The same preparation for another square; `None` keeps the weights' own size.

        Raises:
            UserError: If the size is not positive.
        """
        if size is None:
            return self
        if size < 1:
            raise UserError(f"data.image_size is {size}; it must be a positive number of pixels")
        return replace(self, size=size)

    @property
    def resized(self) -> int:
        """The side in pixels that a picture is resized to before the crop (timm: ``floor(size / crop_pct)``)."""
        return math.floor(self.size / self.crop_pct)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turns pixels into the numbers that the model expects.

        Args:
            pixels: ``uint8`` of shape ``(..., channels, height, width)``.

        Returns:
            ``float32`` of the same shape, on the same device.
        """
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device).view(-1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=pixels.device)
        return pixels * scale + shift.view(-1, 1, 1)
