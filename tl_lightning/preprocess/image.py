"""How an image is made into what the weights were pretrained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tl_lightning.core.frames import Frames
from tl_lightning.errors import UserError
from tl_lightning.preprocess.protocol import Preprocess

SETTINGS = ("image_size", "channels", "pixel_range", "interpolation", "frames")
"""What a data module of images may be asked to do otherwise than the weights; a preparation holds the outcome."""


@dataclass(frozen=True)
class ImagePreprocess:
    """How an image is made into what a model expects to see.

    Attributes:
        size: Side, in pixels, of the square that the model sees.
        channels: Number of colour channels that the model takes.
        crop_pct: The share of the resized image's side that the crop keeps, in (0, 1].
        crop_mode: ``center`` resizes the shorter side and crops the middle; ``squash`` resizes both sides without
            regard to the aspect ratio; ``border`` resizes the longer side and pads. The words are timm's.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
        mean: Subtracted per channel, after scaling to 0..1.
        std: Divided by per channel, after the subtraction.
        pixel_range: The numbers in a file that become 0 and 255; `None` goes by their type, see
            `tl_lightning.data.images.pixels.to_bytes`.
        frames: Which images of a file with several are looked at, see `tl_lightning.core.frames.Frames`.
    """

    kind: ClassVar[str] = "image"

    size: int
    channels: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_range: tuple[float, float] | None = None
    frames: str = "all"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImagePreprocess":
        """Reads what `to_dict` wrote, also before there were `kind`, `pixel_range` and `frames`."""
        own = {name: value for name, value in values.items() if name != "kind"}
        tuples = {name: tuple(value) for name, value in own.items() if isinstance(value, list | tuple)}
        return cls(**{**own, **tuples})

    def to_dict(self) -> dict[str, Any]:
        """The values, ``kind`` among them, as plain types that a checkpoint and JSON can hold."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": self.kind, **values}

    def example(self, n: int, device: torch.device | str) -> tuple[Tensor]:
        """Black images.

        Args:
            n: How many.
            device: Where they are made.

        Returns:
            ``float32`` ``(n, channels, size, size)`` in the channels-last memory format.
        """
        images = torch.zeros(n, self.channels, self.size, self.size, device=device)
        return (images.contiguous(memory_format=torch.channels_last),)

    def on_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Normalises the images, which cross over to the device as bytes.

        Args:
            batch: With ``image``, ``uint8`` of shape ``(n, channels, size, size)``; stays as it is.

        Returns:
            The batch with ``image`` as ``float32`` in the channels-last memory format.
        """
        image = self.normalize(batch["image"]).contiguous(memory_format=torch.channels_last)
        return {**batch, "image": image}

    def differences(self, other: Preprocess) -> list[str]:
        """Says what the model is shown otherwise than by another preparation.

        The size is left out, as most models take any, and so is the number of channels, which is never an accident.

        Args:
            other: Such as the weights' own.
        """
        if not isinstance(other, ImagePreprocess):
            return [f"{self.kind} instead of {other.kind}"]
        other = other.with_channels(self.channels)
        found = []
        for name in ("mean", "std", "interpolation", "crop_mode"):
            own, theirs = (_in_words(getattr(each, name)) for each in (self, other))
            if own != theirs:
                found.append(f"{name} {own} instead of {theirs}")
        return found

    def with_size(self, size: int | None) -> "ImagePreprocess":
        """The same preparation for another square; `None` keeps the weights' own size.

        Raises:
            UserError: If the size is not positive.
        """
        if size is None:
            return self
        if size < 1:
            raise UserError(f"data.image_size is {size}; it must be a positive number of pixels")
        return replace(self, size=size)

    def with_channels(self, channels: int | None) -> "ImagePreprocess":
        """The same preparation for images of another number of channels; `None` keeps the weights' own.

        A single channel gets the average of the weights' means, and of their standard deviations; several get them
        one after another, from the first again where they run out.

        Raises:
            UserError: If the number is not positive.
        """
        if channels is None or channels == self.channels:
            return self
        if channels < 1:
            raise UserError(f"data.channels is {channels}; it must be 1 or more")
        if channels == 1:
            mean, std = [sum(self.mean) / self.channels], [sum(self.std) / self.channels]
        else:
            mean, std = ([each[i % self.channels] for i in range(channels)] for each in (self.mean, self.std))
        return replace(self, channels=channels, mean=tuple(mean), std=tuple(std))

    def with_pixel_range(self, pixel_range: Sequence[float] | None) -> "ImagePreprocess":
        """The same preparation for files with another black and white; `None` keeps what there is.

        Args:
            pixel_range: The numbers that become 0 and 255; what lies outside is clipped.

        Raises:
            UserError: If it is not two finite numbers, the lower one first.
        """
        if pixel_range is None:
            return self
        if len(pixel_range) != 2 or not all(map(math.isfinite, pixel_range)) or pixel_range[0] >= pixel_range[1]:
            raise UserError(
                f"data.pixel_range is {list(pixel_range)}; it must be two numbers, what is black and what is white in "
                "the files, as [0, 4095]"
            )
        return replace(self, pixel_range=(float(pixel_range[0]), float(pixel_range[1])))

    def with_frames(self, frames: str | None) -> "ImagePreprocess":
        """The same preparation for other images of files with several; `None` keeps what there is.

        Args:
            frames: As `Frames.parse` reads it.

        Raises:
            UserError: If it is no such choice.
        """
        if frames is None:
            return self
        Frames.parse(frames)
        return replace(self, frames=frames)

    def with_interpolation(self, interpolation: str | None) -> "ImagePreprocess":
        """The same preparation with another way to resize; `None` keeps the weights' own.

        Args:
            interpolation: One of those listed for the class; a wrong one is said when images are decoded.
        """
        return self if interpolation is None else replace(self, interpolation=interpolation)

    @property
    def resized(self) -> int:
        """The side in pixels that an image is resized to before the crop (timm: ``floor(size / crop_pct)``)."""
        return math.floor(self.size / self.crop_pct)

    def resized_shape(self, width: int, height: int) -> tuple[int, int]:
        """The width and height in pixels that an image of some width and height has before the crop.

        The roundings are those of torchvision and timm.

        Raises:
            UserError: If the crop mode is unknown.
        """
        side = self.resized
        if self.crop_mode == "squash":
            return side, side
        if self.crop_mode == "center":
            short = min(width, height)
            return (side, int(side * height / short)) if width <= height else (int(side * width / short), side)
        if self.crop_mode == "border":
            ratio = max(width, height) / side
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        raise UserError(f"data.preprocess.crop_mode {self.crop_mode!r} is unknown; valid: center, squash, border")

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


def _in_words(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
