"""Images of a training batch mixed with each other, and their answers with them."""

import math

from torch import Tensor

from tl_lightning.core.randomness import seeded
from tl_lightning.errors import UserError

# Keeps these draws apart from those of the images' own augmentation, whose places are (seed, epoch, index).
_STREAM = 1


def check_mixing(mixup: float, cutmix: float, batch_size: int) -> None:
    """Checks the settings of mixing.

    Args:
        mixup: The alpha of mixup; 0 for none.
        cutmix: The alpha of CutMix; 0 for none.
        batch_size: Images per batch.

    Raises:
        UserError: If an alpha is negative or not finite, or if a batch cannot be mixed for its odd size.
    """
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if not 0 <= alpha < math.inf:
            raise UserError(f"data.{name} is {alpha}; it must be 0 (off) or a positive number")
        if alpha and batch_size % 2:
            raise UserError(
                f"data.batch_size is {batch_size}; data.{name} {alpha} pairs the images of a batch: use an even one"
            )


def mix(
    image: Tensor, label: Tensor, *, classes: int, mixup: float, cutmix: float, place: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Mixes each image with the one at its place from the end of the batch, all in the same proportion.

    Mixup (Zhang et al. 2018, https://arxiv.org/abs/1710.09412) blends the two; CutMix (Yun et al. 2019,
    https://arxiv.org/abs/1905.04899) puts a rectangle of the other in place. Where both are on, each batch gets one
    of them, drawn with equal chances.

    Args:
        image: Normalised images ``(n, channels, height, width)``, n even; stays as it is.
        label: Classes ``(n,)``.
        classes: Number of classes.
        mixup: The alpha of mixup's Beta(alpha, alpha), from which the proportion is drawn; 0 for none.
        cutmix: The alpha of CutMix's; 0 for none, but not both.
        place: What the draws are a function of, as for `seeded`.

    Returns:
        The mixed images, and the answers ``(n, classes)`` as ``float32`` whose rows add up to 1.
    """
    from timm.data.mixup import Mixup

    mixer = Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=mixup, cutmix_alpha=cutmix, switch_prob=0.5, mode="batch", label_smoothing=0.0, num_classes=classes
    )
    with seeded(*place, _STREAM):
        mixed, target = mixer(image.clone(), label)  # timm writes into what it gets
    return mixed, target
