"""The range test: the loss while one factor on all learning rates rises, and the factor that it suggests."""

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tl_lightning.core.console import track

DIVERGED = 4.0  # times the best smoothed loss, as fastai and Lightning have it


CLEAR = 5.0  # times the mean's own noise; of curves that are nothing but noise about one in twenty falls as far


@dataclass(frozen=True)
class Curve:
    """The loss while one factor on all learning rates rises.

    Attributes:
        factors: The factor of each optimizer step, rising geometrically.
        losses: The loss of each step's batch, before the step was taken; all finite.
        smoothed: The bias-corrected exponential mean of the losses.
        window: How many steps the mean looks back over, a tenth of the whole test.
        end: ``complete``, ``diverged`` (the smoothed loss exceeded `DIVERGED` times its best) or ``not_finite``.
    """

    factors: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    window: int
    end: Literal["complete", "diverged", "not_finite"]

    @property
    def best(self) -> int:
        """The step with the lowest smoothed loss."""
        return min(range(len(self.smoothed)), key=self.smoothed.__getitem__)


def range_test(step: Callable[[float], float], *, steps: int, lowest: float, highest: float) -> Curve:
    """Trains while the learning rate rises, and records the loss (Smith 2017, arXiv:1506.01186).

    The mean forgets by ``1 - 10 / steps`` per step (0.9 in 100 steps), so that it looks back over a tenth of the range
    however many steps are taken. fastai's 0.98 looks back over half of its 100 steps: the curve would show a fall
    decades of learning rate after it happened.

    Args:
        step: Takes one optimizer step at a factor times the learning rates; returns the loss before it.
        steps: At most how many steps to take, at least 2.
        lowest: The first step's factor.
        highest: The last step's factor.
    """
    window = max(steps // 10, 1)
    decay = 1 - 1 / window
    factors: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    end: Literal["complete", "diverged", "not_finite"] = "complete"
    rising = (lowest * (highest / lowest) ** (number / (steps - 1)) for number in range(steps))
    for number, factor in enumerate(track(rising, "learning rates", total=steps), 1):
        loss = step(factor)
        if not math.isfinite(loss):
            end = "not_finite"
            break
        mean = decay * mean + (1 - decay) * loss
        factors.append(factor)
        losses.append(loss)
        smoothed.append(mean / (1 - decay**number))
        # The mean of less than a window is little more than one batch's luck.
        if number > window and smoothed[-1] > DIVERGED * min(smoothed):
            end = "diverged"
            break
    return Curve(tuple(factors), tuple(losses), tuple(smoothed), window, end)


def suggestion(curve: Curve) -> float | None:
    """Picks the factor half-way, on a log scale, between the steepest fall of the smoothed loss and its minimum.

    Steepness is the fall over a whole window: from one step to the next the noise of the batches outweighs the fall
    (Lightning's ``suggestion`` takes the steepest single step). Of the steepest window its start is taken, because the
    mean trails the losses by nearly a window. The minimum itself is bold: the loss goes on falling, on the strength of
    all the steps so far, at learning rates at which longer training would diverge. A tenth of it, fastai's ``minimum``
    rule, was measured to be timid here: of three learning rates tried for fine-tuning on ELPV with AdamW (one seed
    each), five times the minimum's did best, the minimum's next, a tenth of it worst. fastai's ``valley``, the middle
    of the longest falling sequence, moves with every chance fall at learning rates too low to matter.

    Args:
        curve: From `range_test`.

    Returns:
        The factor; `None` where the smoothed loss does not fall by `CLEAR` times its noise: the median jump from batch
        to batch, over the square root of the number of batches that an exponential mean is worth.
    """
    window, smoothed = curve.window, curve.smoothed
    first = window - 1  # the first mean that a whole window stands behind
    starts = range(first, curve.best - window + 1) if smoothed else range(0)
    if not starts:
        return None
    jumps = [abs(after - before) for before, after in itertools.pairwise(curve.losses[: curve.best + 1])]
    noise = statistics.median(jumps) / math.sqrt(2 * window - 1)
    if smoothed[first] - smoothed[curve.best] <= CLEAR * noise:
        return None
    steepest = max(starts, key=lambda start: smoothed[start] - smoothed[start + window])
    return math.sqrt(curve.factors[steepest] * curve.factors[curve.best])
