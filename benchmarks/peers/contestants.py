"""Who takes part in which contest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peers.measure import Result


@dataclass(frozen=True)
class Contestant:
    """A script of this package and the words that it is started with.

    Attributes:
        key: Short name.
        label: For people; ``{fast}`` stands for the arithmetic of the fast variants.
        module: The script.
        words: Behind its own arguments.
        fresh: Whether the cache folder is emptied first.
        passes: Gives, from the share of images that train and the number of epochs, how often an image goes through
            the backbone, counted in forward passes; `None` where that is no bound on anything.
    """

    key: str
    label: str
    module: str
    words: tuple[str, ...]
    fresh: bool = True
    passes: Callable[[float, int], float] | None = None


@dataclass(frozen=True)
class Contest:
    """Contestants that are compared with each other.

    Attributes:
        key: Short name.
        title: For people.
        unit: What is compared.
        seconds: What is compared, as a time; less is better.
        contestants: The first is ours, the second the limit.
    """

    key: str
    title: str
    unit: str
    seconds: Callable[[Result], float]
    contestants: tuple[Contestant, ...]


def _work(result: Result) -> float:
    return result.work_s


def _per_image(result: Result) -> float:
    return 1 / result.rate if result.rate else float("nan")


def _once(share: float, epochs: int) -> float:
    return 1.0


def _every_epoch(share: float, epochs: int) -> float:
    return float(epochs)


def _through_batch_norm(share: float, epochs: int) -> float:
    """BatchNorm that trains pulls the gradient of the activations through all layers: one more pass where it trains."""
    return epochs * (1 + share)


def _peers(way: str, variants: Mapping[str, str]) -> tuple[Contestant, ...]:
    bounds = {"frozen_bn": _every_epoch} if way == "head" else {}
    usual = _through_batch_norm if way == "head" else None
    return tuple(
        Contestant(
            key=f"{name}_{way}_{variant}",
            label=f"{title}, {words}",
            module=f"with_{name}",
            words=(way, variant),
            passes=bounds.get(variant, usual),
        )
        for name, title in (("fastai", "fastai"), ("lightning", "stock Lightning"))
        for variant, words in variants.items()
    )


CONTESTS = (
    Contest(
        "head",
        "The head alone on a frozen backbone",
        "work",
        _work,
        (
            Contestant("ours", "tl fit, head solved", "ours", ("head", "auto", "0"), passes=_once),
            Contestant("limit", "the limit: decode once, one forward pass, {fast}", "bare", ("limit",), passes=_once),
            Contestant("again", "tl fit, the same cache, another seed", "ours", ("head", "auto", "1"), fresh=False),
            Contestant("epochs", "tl fit, head by epochs", "ours", ("epochs", "auto", "0"), passes=_once),
            Contestant("bare_head", "bare loop over pixels in memory, {fast}", "bare", ("head",), passes=_every_epoch),
            *_peers(
                "head",
                {
                    "default": "at its defaults",
                    "fast": "{fast}",
                    "frozen_bn": "{fast}, BatchNorm frozen as well",
                },
            ),
        ),
    ),
    Contest(
        "last2",
        "The head and the two top stages",
        "a training epoch",
        _per_image,
        (
            Contestant("cached", "tl fit, what is frozen is cached", "ours", ("last2", "auto", "0")),
            Contestant("suffix", "bare loop over activations in memory, {fast}", "bare", ("last2",)),
            Contestant("not_cached", "tl fit --cache off", "ours", ("last2", "off", "0")),
        ),
    ),
    Contest(
        "full",
        "The whole model",
        "a training epoch",
        _per_image,
        (
            Contestant("full", "tl fit", "ours", ("full", "auto", "0")),
            Contestant("bare_full", "bare loop over pixels in memory, {fast}", "bare", ("full",)),
            *_peers("full", {"default": "at its defaults", "fast": "{fast}"}),
        ),
    ),
)
