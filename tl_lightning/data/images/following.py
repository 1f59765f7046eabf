"""Boxes and masks go where their image goes: those that are torchvision's own tensors, ``BoundingBoxes`` and ``Mask``.

They are in a sample under any key. torchvision is imported only where there are any.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tl_lightning.data.dataset import Sample
from tl_lightning.data.images.preparing import crop, place_of_square
from tl_lightning.preprocess.image import ImagePreprocess

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes


def followers(sample: Sample) -> dict[str, Tensor]:
    """The parts of a sample that have a place in its image: tensors of torchvision's, other than a plain one."""
    return {key: value for key, value in sample.items() if type(value) is not Tensor and isinstance(value, Tensor)}


def crop_all(sample: Sample, preprocess: ImagePreprocess) -> Sample:
    """Cuts the square that the model sees out of the middle of the image and of what follows it.

    Args:
        sample: With ``image``, see `crop`. What follows and has another size, as that of the file, is resized first.
        preprocess: Says the size.

    Returns:
        The sample with ``image`` ``(channels, size, size)``. A padded border is 0 in a mask; a box that reaches out of
        the square ends at its edge, and one outside has no area left.
    """
    pixels: Tensor = sample["image"]
    result = {**sample, "image": crop(pixels, preprocess)}
    if found := followers(sample):
        from torchvision.transforms.v2 import functional

        height, width = pixels.shape[-2:]
        top, left = place_of_square(height, width, preprocess.size)
        for key, follower in found.items():
            resized = resize_to(follower, height, width)
            result[key] = functional.crop(resized, top, left, preprocess.size, preprocess.size)
    return result


def resize_to(follower: Tensor, height: int, width: int) -> Tensor:
    """Resizes a mask (to the nearest pixel) or boxes (as floating-point numbers) to the size of their image."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import InterpolationMode, functional

    if tuple(functional.get_size(follower)) == (height, width):
        return follower
    if isinstance(follower, tv_tensors.BoundingBoxes) and not follower.is_floating_point():
        follower = tv_tensors.wrap(follower.float(), like=follower)  # whole numbers would be cut off
    resized: Tensor = functional.resize(follower, [height, width], interpolation=InterpolationMode.NEAREST_EXACT)
    return resized


def turn_to(follower: Tensor, symmetry: int) -> Tensor:
    """Turns a mask or boxes by a symmetry of the square: a number of quarter turns, from 4 on mirrored afterwards.

    Raises:
        TypeError: If it is another kind of tensor.
    """
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    if isinstance(follower, tv_tensors.BoundingBoxes):
        for _ in range(symmetry % 4):
            follower = _quarter_turn(follower)
    elif isinstance(follower, tv_tensors.Mask):
        follower = tv_tensors.wrap(torch.rot90(follower, symmetry % 4, (-2, -1)), like=follower)
    else:
        raise TypeError(f"{type(follower).__name__} cannot follow an image that is turned")
    mirrored: Tensor = functional.horizontal_flip(follower) if symmetry >= 4 else follower
    return mirrored


def _quarter_turn(boxes: "BoundingBoxes") -> "BoundingBoxes":
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    height, width = boxes.canvas_size
    corners = functional.convert_bounding_box_format(boxes, new_format=tv_tensors.BoundingBoxFormat.XYXY)
    left, top, right, bottom = corners.as_subclass(Tensor).unbind(-1)
    turned = tv_tensors.BoundingBoxes(
        torch.stack([top, width - right, bottom, width - left], dim=-1),
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(width, height),
    )
    result: BoundingBoxes = functional.convert_bounding_box_format(turned, new_format=boxes.format)
    return result
