"""Augmentations that libraries make: a random crop, a mirror and operations on colour and shape, on 1 or 3 channels."""

from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image
from torch import Tensor

from tl_lightning.data.dataset import Sample, Transform
from tl_lightning.data.images.following import followers
from tl_lightning.data.images.preparing import to_channels
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

# Of the image's area. timm's 0.08 suits training from scratch; on small sets it often cuts away what the label says.
CROP_SCALE = (0.5, 1.0)
COLOR_JITTER = 0.4


def standard(preprocess: ImagePreprocess) -> Transform:
    """The training transform of timm: a random resized crop, a left-right mirror, a colour jitter."""
    from timm.data.transforms_factory import create_transform

    chain = create_transform(
        input_size=preprocess.size,
        is_training=True,
        scale=CROP_SCALE,
        hflip=0.5,
        color_jitter=COLOR_JITTER,
        interpolation=preprocess.interpolation,
        normalize=False,
    )
    return partial(_through_pil, chain=chain, channels=preprocess.channels)


def randaugment(preprocess: ImagePreprocess) -> Transform:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719) with torchvision's two operations of magnitude 9."""
    from torchvision.transforms import InterpolationMode, v2

    return _cropped_and(v2.RandAugment(interpolation=InterpolationMode.BILINEAR), preprocess)


def trivial(preprocess: ImagePreprocess) -> Transform:
    """TrivialAugment Wide (Müller and Hutter 2021, arXiv:2103.10158): one operation of any magnitude."""
    from torchvision.transforms import InterpolationMode, v2

    return _cropped_and(v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR), preprocess)


def _cropped_and(policy: Callable[[Tensor], Tensor], preprocess: ImagePreprocess) -> Transform:
    from torchvision.transforms import InterpolationMode, v2

    # Tensors know no lanczos.
    interpolation = "bicubic" if preprocess.interpolation == "lanczos" else preprocess.interpolation
    cropped = v2.RandomResizedCrop(preprocess.size, scale=CROP_SCALE, interpolation=InterpolationMode(interpolation))
    return partial(_in_a_row, chain=[cropped, v2.RandomHorizontalFlip(), policy], channels=preprocess.channels)


# Partial functions rather than closures: worker processes that are spawned get them pickled.
def _in_a_row(sample: Sample, *, chain: Sequence[Callable[[Tensor], Tensor]], channels: int) -> Sample:
    _check_alone(sample)
    pixels: Tensor = sample["image"]
    for transform in chain:
        pixels = transform(pixels)
    # Last: the operations know grey, and one channel is a third of the work.
    return {**sample, "image": to_channels(pixels, channels)}


def _through_pil(sample: Sample, *, chain: Callable[[Image.Image], Tensor], channels: int) -> Sample:
    _check_alone(sample)
    image = Image.fromarray(sample["image"].permute(1, 2, 0).squeeze(-1).contiguous().numpy())
    return {**sample, "image": to_channels(chain(image), channels)}


def _check_alone(sample: Sample) -> None:
    if found := followers(sample):
        raise UserError(
            "data.augmentation standard, randaugment and trivial move the image alone, and here are "
            f"{', '.join(found)} in it: use none, flips or dihedral, or one of torchvision.transforms.v2 by class_path"
        )
