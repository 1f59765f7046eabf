"""What happens to a training image by chance, as a function of seed, epoch and sample alone."""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from tl_lightning.data.dataset import Sample, Transform, View
from tl_lightning.data.images.configured import Configured, ConfiguredTransform, canonical
from tl_lightning.data.images.decoding import DecodedImage
from tl_lightning.data.images.following import crop_all, followers, resize_to, turn_to
from tl_lightning.data.images.policies import randaugment, standard, trivial
from tl_lightning.data.images.preparing import resize, to_channels
from tl_lightning.errors import UserError, nearest
from tl_lightning.preprocess.image import ImagePreprocess

Augmentation = str | Configured

# The symmetries of the square among which an augmentation draws: a number of quarter turns, from 4 on mirrored.
SYMMETRIES = {"none": (0,), "flips": (0, 4), "dihedral": tuple(range(8))}


def augmentation(name: Augmentation, preprocess: ImagePreprocess, *, key: str = "data.augmentation") -> Transform:
    """Makes the function that turns stored pixels into what the model sees in training.

    Args:
        name: ``none`` is the evaluation's crop and nothing else; ``flips`` adds a left-right mirror half of the time;
            ``dihedral`` adds one of the eight symmetries of the square, for images without an up and down;
            ``standard`` is timm's training transform: a random resized crop of 50 to 100 % of the area, a left-right
            mirror, and a colour jitter of 0.4. ``randaugment`` (Cubuk et al. 2020, arXiv:1909.13719: two operations of
            magnitude 9) and ``trivial`` (TrivialAugment Wide, Müller and Hutter 2021, arXiv:2103.10158: one operation
            of any magnitude) are torchvision's, behind the same crop and mirror. Anything else by its class: a mapping
            with ``class_path`` and ``init_args``, or a list of such, see `ConfiguredTransform`. These get the stored
            image, resized but not cropped, in the model's channels; where they give it another size than it had or
            the model takes, it is resized once more, and cropped last, as any image is in evaluation.
        preprocess: What the weights expect.
        key: What an error calls the setting.

    Returns:
        A function from a sample to a sample: its ``image`` is ``uint8`` pixels ``(1 or 3, height, width)`` and becomes
        ``uint8`` ``(channels, size, size)``; boxes and masks follow, see `following`. It draws from the global
        generators; see `tl_lightning.core.randomness.seeded`.

    Raises:
        UserError: If the name is unknown, the class cannot be used, or the augmentation is for 1 or 3 channels and the
            weights take another number.
    """
    if not isinstance(name, str):
        return _configured(name, preprocess, key)
    makers: dict[str, Callable[[ImagePreprocess], Transform]] = {
        "none": evaluation,
        "flips": lambda preprocess: partial(_flip, preprocess=preprocess),
        "dihedral": lambda preprocess: partial(_turn, preprocess=preprocess),
        "standard": standard,
        "randaugment": randaugment,
        "trivial": trivial,
    }
    if name not in makers:
        raise UserError(
            f"{key} {name!r} is unknown; valid are {', '.join(makers)}, or a class_path" + nearest(name, makers)
        )
    if name not in SYMMETRIES and preprocess.channels not in (1, 3):
        raise UserError(
            f"{key} {name} is for images of 1 or 3 channels, and the model takes {preprocess.channels}; "
            f"{', '.join(SYMMETRIES)} work on any"
        )
    return makers[name](preprocess)


def title(name: Augmentation) -> str:
    """What names an augmentation in messages and keys; equal titles are equal augmentations."""
    return name if isinstance(name, str) else canonical(name)


def views(
    name: Augmentation, preprocess: ImagePreprocess, *, count: int | None, key: str = "data.augmentation"
) -> list[View]:
    """Lists fixed versions of the images that stand for an augmentation; drawing one of them is drawing from it.

    Args:
        name: An augmentation, as `augmentation` takes it.
        preprocess: What the weights expect.
        count: How many; `None` for all that there are.
        key: What an error calls the augmentation.

    Returns:
        The views, the same for every run; none where there is no end to them and no count was given.

    Raises:
        UserError: If the name is unknown, or there are not as many.
    """
    drawn = augmentation(name, preprocess, key=key)
    if not isinstance(name, str) or name not in SYMMETRIES:
        return [View(f"{title(name)}, draw {draw}", drawn, draw) for draw in range(count or 0)]
    symmetries = SYMMETRIES[name]
    if count is not None and count > len(symmetries):
        raise UserError(f"views is {count}, but {key} {name} has only {len(symmetries)}")
    return [
        View(_described(symmetry), partial(_symmetric, symmetry=symmetry, preprocess=preprocess))
        for symmetry in symmetries[:count]
    ]


def _described(symmetry: int) -> str:
    turned = f"turned by {90 * (symmetry % 4)} degrees" if symmetry % 4 else ""
    return ", ".join(filter(None, (turned, "mirrored" if symmetry >= 4 else ""))) or "plain"


def evaluation(preprocess: ImagePreprocess) -> Transform:
    """Makes the crop that validation, testing and prediction use; shapes as for `augmentation`."""
    return partial(_evaluate, preprocess=preprocess)


# Partial functions rather than closures: worker processes that are spawned get them pickled.
def _evaluate(sample: Sample, *, preprocess: ImagePreprocess) -> Sample:
    sample = crop_all(sample, preprocess)
    sample["image"] = to_channels(sample["image"], preprocess.channels)
    return sample


# numpy rather than torch, whose threads cost more than they bring for one image, the more so on a busy machine.
def _symmetric(sample: Sample, *, symmetry: int, preprocess: ImagePreprocess) -> Sample:
    sample = crop_all(sample, preprocess)
    square = np.rot90(sample["image"].numpy(), symmetry % 4, (1, 2))
    if symmetry >= 4:
        square = square[:, :, ::-1]
    sample["image"] = to_channels(torch.from_numpy(np.ascontiguousarray(square)), preprocess.channels)
    for key, follower in followers(sample).items():
        sample[key] = turn_to(follower, symmetry)
    return sample


def _flip(sample: Sample, *, preprocess: ImagePreprocess) -> Sample:
    return _symmetric(sample, symmetry=4 if random.random() < 0.5 else 0, preprocess=preprocess)


def _turn(sample: Sample, *, preprocess: ImagePreprocess) -> Sample:
    return _symmetric(sample, symmetry=random.randrange(8), preprocess=preprocess)


def _configured(configured: Configured, preprocess: ImagePreprocess, key: str) -> Transform:
    side = preprocess.resized
    transform = ConfiguredTransform(configured, channels=preprocess.channels, height=side, width=side, key=key)
    return partial(_through_configured, transform=transform, preprocess=preprocess)


def _through_configured(sample: Sample, *, transform: Transform, preprocess: ImagePreprocess) -> Sample:
    pixels = sample["image"]
    if pixels.shape[0] != preprocess.channels:
        pixels = to_channels(pixels, preprocess.channels).contiguous()  # a transform may write into it
    moved = {key: resize_to(follower, *pixels.shape[-2:]) for key, follower in followers(sample).items()}
    sample = transform({**sample, **moved, "image": pixels})
    result = sample["image"]
    if result.shape not in (pixels.shape, (preprocess.channels, preprocess.size, preprocess.size)):
        rows = result.permute(1, 2, 0).contiguous().numpy()
        height, width = rows.shape[:2]
        image = DecodedImage(rows, (width, height), (0, 0, width, height))
        result = torch.from_numpy(resize(image, preprocess).copy()).permute(2, 0, 1)
    return crop_all({**sample, "image": result}, preprocess)
