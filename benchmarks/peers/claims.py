"""What is claimed of the measurements, and whether they bear it out."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from peers.contestants import CONTESTS, Contest, Contestant
from peers.measure import Result
from peers.task import Task


@dataclass(frozen=True)
class Pair:
    """A contestant's run and our run just before it; of ours, twice the same."""

    result: Result
    ours: Result


Runs = dict[str, list[Pair]]  # by the contestant's key


@dataclass(frozen=True)
class Claim:
    """A line of the table of claims.

    Attributes:
        contest: Of which contest, by its key.
        text: What is claimed.
        target: What is to be reached.
        found: What was; empty if it was not measured.
        bound: What arithmetic allows; empty if nothing is known.
        reached: `None` if it was not measured.
    """

    contest: str
    text: str
    target: str
    found: str = ""
    bound: str = ""
    reached: bool | None = None


def median(runs: Runs, key: str, number: Callable[[Result], float | None]) -> float | None:
    """The median of a number over a contestant's runs; `None` where it has none."""
    values = [value for pair in runs.get(key, []) if (value := number(pair.result)) is not None]
    return statistics.median(values) if values else None


def ratio(runs: Runs, contest: Contest, key: str) -> float | None:
    """How many times as long as ours a contestant took: the median over pairs of neighbouring runs."""
    pairs = runs.get(key, [])
    values = [contest.seconds(pair.result) / contest.seconds(pair.ours) for pair in pairs]
    return statistics.median(values) if values else None


def bound(contestant: Contestant, task: Task) -> float | None:
    """How many times as long as one forward pass a contestant's passes take; also that of its ratio to ours."""
    if contestant.passes is None:
        return None
    train, val = len(task.labels("train")), len(task.labels("val"))
    return contestant.passes(train / (train + val), task.epochs)


def noise(accuracy: float, count: int) -> float:
    """Two standard errors of the difference of two accuracies on different draws of so many images."""
    return 2 * math.sqrt(2 * accuracy * (1 - accuracy) / max(count, 1))


def check(runs: Runs, task: Task) -> list[Claim]:
    """Goes through all claims.

    Args:
        runs: Of every contestant that took part.
        task: What they were given.
    """
    head, last2, full = CONTESTS
    named = {contestant.key: contestant for contest in CONTESTS for contestant in contest.contestants}
    claims = []
    for peer, title in (("fastai", "fastai"), ("lightning", "stock Lightning")):
        for variant, words, least in (
            ("default", "at its defaults", 20.0),
            ("fast", "in fast arithmetic", 8.0),
            ("frozen_bn", "in fast arithmetic, BatchNorm frozen as well", 8.0),
        ):
            key = f"{peer}_head_{variant}"
            text = f"{task.epochs} epochs of the head: {title} {words}"
            claims.append(
                _head_claim(runs, head, key, text=text, least=least, bound=bound(named[key], task), task=task)
            )
    claims.append(_at_most("the head against decoding once and one forward pass", runs, head, "limit", 1.2))
    claims.append(_again(runs, head))
    claims.append(_kept(runs, last2))
    claims.append(_at_most("the same against a bare loop of what is above the cut", runs, last2, "suffix", 1.15))
    for key, text, least in (
        ("bare_full", "the bare loop over pixels in memory", 0.97),
        ("fastai_full_default", "fastai at its defaults", 1.5),
        ("lightning_full_default", "stock Lightning at its defaults", 1.1),
    ):
        claims.append(_at_least(f"training the whole model, images/s against {text}", runs, full, key, least))
    return claims


def _at_least(text: str, runs: Runs, contest: Contest, key: str, least: float, bound: str = "") -> Claim:
    found = ratio(runs, contest, key)
    target = f"at least {least:g}x"
    if found is None:
        return Claim(contest.key, text, target)
    return Claim(contest.key, text, target, f"{found:.2f}x", bound, found >= least)


def _at_most(text: str, runs: Runs, contest: Contest, key: str, most: float) -> Claim:
    found = ratio(runs, contest, key)
    target = f"at most {most:g}x"
    if not found:
        return Claim(contest.key, text, target)
    return Claim(contest.key, text, target, f"{1 / found:.2f}x", "1x", 1 / found <= most)


def _head_claim(
    runs: Runs, contest: Contest, key: str, *, text: str, least: float, bound: float | None, task: Task
) -> Claim:
    claim = _at_least(text, runs, contest, key, least, f"{bound:.3g}x in equal arithmetic" if bound else "")
    theirs, ours = (median(runs, each, lambda result: result.accuracy) for each in (key, contest.contestants[0].key))
    if theirs is None or ours is None:
        return claim
    fair = ours >= theirs - noise(theirs, len(task.labels("test")))
    return Claim(
        contest.key,
        text,
        f"{claim.target}, accuracy within noise",
        f"{claim.found}, {100 * (ours - theirs):+.1f} points",
        claim.bound,
        bool(claim.reached) and fair,
    )


def _again(runs: Runs, contest: Contest) -> Claim:
    text, target = "a second run over the same cache", "no image through the backbone, under 5 s"
    if "again" not in runs:
        return Claim(contest.key, text, target)
    passed = max(pair.result.passed for pair in runs["again"])
    seconds = statistics.median(pair.result.work_s for pair in runs["again"])
    return Claim(contest.key, text, target, f"{passed:,} images, {seconds:.1f} s", "0", passed == 0 and seconds < 5)


def _kept(runs: Runs, contest: Contest) -> Claim:
    text = "epochs of the two top stages, cached against not cached"
    below, above = (
        median(runs, "suffix", lambda result, name=name: result.numbers[f"{name}_operations"])  # type: ignore[misc]
        for name in ("prefix", "suffix")
    )
    # Training is a forward and two backward passes, of activations and of weights; what is frozen goes forward only.
    most = f"{(below + 3 * above) / (3 * above):.2f}x by operations" if below and above else ""
    return _at_least(text, runs, contest, "not_cached", 3.0, most)
