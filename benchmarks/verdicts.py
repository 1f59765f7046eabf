"""How often the verdict on transfer is wrong, what it finds, and how often a forecast's interval holds the truth.

    uv run python benchmarks/verdicts.py [--cases 400]

Simulated models predict the same images: each image is hard or easy for all, somewhat more or less so for either
strategy, and the rest is another draw for every run; all of a run may be a bit better or worse, too (training noise,
a standard deviation in points). No strategy is better in the first tables, so that every finding is a false alarm:
5 % are claimed, half of them of negative transfer. With one run per strategy the claim is about the trained models.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy import stats

from tl_lightning.choosing.comparing.curves import Estimate, forecast, gain_of
from tl_lightning.choosing.comparing.differences import Difference, metric_difference, paired_difference
from tl_lightning.choosing.comparing.power_law import fit_curve
from tl_lightning.choosing.comparing.verdict import verdict
from tl_lightning.core.console import console, track

IMAGES = 656
DRAWS = 400  # less than in use, for the time
HARDNESS, OF_STRATEGY = 0.8, 0.1  # shares of the variance of what decides whether an image is answered right
RUNS = (1, 2, 3, 5)
SETTINGS = ((0.60, 0.0), (0.60, 0.02), (0.87, 0.0), (0.87, 0.01), (0.87, 0.02), (0.99, 0.0), (0.99, 0.005))
Random = np.random.Generator
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Two strategies' predictions, ``(runs, images)`` each, 1 for right, and how far apart these models truly are."""

    one: Scores
    other: Scores
    of_models: float
    groups: NDArray[np.str_] | None = None


def simulate(
    rng: Random, accuracy: float, noise: float, runs: int, *, gain: float = 0.0, still: bool = False, group: int = 1
) -> Case:
    """Draws a case.

    Args:
        rng: The randomness.
        accuracy: Of the other strategy, 0 to 1.
        noise: Standard deviation of a run's accuracy that training adds.
        runs: Per strategy.
        gain: What the one is better by.
        still: Whether the one trains without noise, and without any other randomness.
        group: Images that come together, alike.
    """
    places = np.arange(IMAGES) // group
    count = places[-1] + 1
    hard = rng.standard_normal(count)[places] * np.sqrt(HARDNESS)
    sides, truths = [], []
    for right, moves in ((accuracy + gain, not still), (accuracy, True)):
        spread = noise / stats.norm.pdf(stats.norm.ppf(right)) if moves else 0.0
        level = stats.norm.ppf(right) * np.sqrt(1 + spread**2) + spread * rng.standard_normal((runs, 1))
        own = rng.standard_normal((runs if moves else 1, IMAGES)) * np.sqrt(1 - HARDNESS - OF_STRATEGY)
        of_strategy = rng.standard_normal(count)[places] * np.sqrt(OF_STRATEGY)
        sides.append((hard + of_strategy + own + level > 0).astype(np.float64))
        truths.append(float(stats.norm.cdf(level).mean()))
    groups = places.astype(str) if group > 1 else None
    return Case(sides[0], sides[1], truths[0] - truths[1], groups)


def by_accuracy(case: Case) -> Difference:
    """What ``tl compare`` says of accuracy."""
    return paired_difference(case.one, case.other, groups=case.groups, draws=DRAWS)


def by_macro_f1(case: Case) -> Difference:
    """Of macro F1; a third of the images are of the second class."""
    labels = (np.arange(IMAGES) % 3 == 0).astype(np.int64)
    one, other = (np.where(side > 0, labels, 1 - labels) for side in (case.one, case.other))
    return metric_difference("macro_f1", labels, one, other, classes=2, groups=case.groups, draws=DRAWS)


def images_alone(case: Case) -> Difference:
    """The paired bootstrap of the mean run, as if training had no noise."""
    one, other = (side.mean(axis=0, keepdims=True) for side in (case.one, case.other))
    return paired_difference(one, other, groups=case.groups, draws=DRAWS)


def seeds_alone(case: Case) -> Difference:
    """Student's t over the runs, as if other images would say the same."""
    apart = (case.one - case.other).mean(axis=1)
    error = float(apart.std(ddof=1)) / np.sqrt(len(apart))
    reach = float(stats.t.ppf(0.975, len(apart) - 1)) * error
    return Difference(float(apart.mean()), apart.mean() - reach, apart.mean() + reach, error)


def false_alarms(cases: int) -> None:
    """No strategy is better: how often is one called so, or negative?"""
    columns = ["runs", "accuracy", "training ± points", "what", "false alarms", "negative", "± points"]
    columns += ["images alone", "runs alone"]
    table = new_table(f"false alarms in {cases:,} cases without a difference, {IMAGES} images", columns)
    rows = [(runs, *setting, "", 1, False) for runs in RUNS for setting in SETTINGS]
    rows += [(runs, 0.87, 0.02, "one without noise", 1, True) for runs in RUNS[1:]]
    rows += [(runs, 0.87, 0.01, "groups of 16", 16, False) for runs in RUNS]
    rows += [(runs, 0.87, 0.0 if runs == 1 else 0.01, "macro F1", 1, False) for runs in RUNS]
    for runs, accuracy, noise, what, group, still in track(rows, "false alarms", total=len(rows)):
        rng = np.random.default_rng(runs)
        found = {"ours": 0, "negative": 0, "images": 0, "runs": 0}
        width = 0.0
        for _ in range(cases):
            case = simulate(rng, accuracy, noise, runs, group=group, still=still)
            difference = (by_macro_f1 if what == "macro F1" else by_accuracy)(case)
            truth = case.of_models if runs == 1 else 0.0
            found["ours"] += not difference.low <= truth <= difference.high
            found["negative"] += difference.high < truth
            width += (difference.high - difference.low) / 2
            if runs > 1:
                found["images"] += outside(images_alone(case))
                found["runs"] += outside(seeds_alone(case))
        shares = [f"{found[name] / cases:.1%}" for name in ("ours", "negative")]
        others = [f"{found[name] / cases:.1%}" if runs > 1 else "" for name in ("images", "runs")]
        words = [str(runs), f"{accuracy:.2f}", f"{100 * noise:.1f}", what]
        table.add_row(*words, *shares, f"{100 * width / cases:.1f}", *others)
    console.print(table)


def outside(difference: Difference) -> bool:
    """Whether an interval leaves 0 out."""
    return not difference.low <= 0 <= difference.high


def power(cases: int) -> None:
    """One strategy is better: how often is that said?"""
    gains = (0.01, 0.02, 0.04)
    columns = [
        "runs",
        "accuracy",
        "training ± points",
        *(f"{100 * gain:.0f} points" for gain in gains),
        "called negative",
    ]
    table = new_table(f"found of true differences, {cases:,} cases each", columns)
    rows = [(runs, accuracy, noise) for runs in RUNS for accuracy, noise in ((0.87, 0.0), (0.87, 0.01), (0.95, 0.005))]
    for runs, accuracy, noise in track(rows, "power", total=len(rows)):
        rng, helped, negative = np.random.default_rng(runs), [], 0
        for gain in gains:
            cased = [by_accuracy(simulate(rng, accuracy, noise, runs, gain=gain)) for _ in range(cases)]
            kinds = [verdict(case, seeds=runs, what="full", reference="scratch").kind for case in cased]
            helped.append(kinds.count("helped"))
            negative += kinds.count("negative")
        shares = [f"{count / cases:.0%}" for count in helped]
        table.add_row(
            str(runs), f"{accuracy:.2f}", f"{100 * noise:.1f}", *shares, f"{negative / cases / len(gains):.1%}"
        )
    console.print(table)


# The true error with n labels.
TRUTHS: dict[str, Callable[[float], float]] = {
    "5 % + n^-0.5": lambda n: 0.05 + 0.23 * (n / 100) ** -0.5,
    "0 % + n^-0.3": lambda n: 0.3 * (n / 100) ** -0.3,
    "10 % + n^-1": lambda n: 0.10 + 0.20 * (n / 100) ** -1.0,
    "13 %, whatever n": lambda n: 0.13,
    "no power law: exponential": lambda n: 0.12 + 0.2 * float(np.exp(-n / 500)),
    "no power law: S-shaped": lambda n: 0.10 + 0.3 / (1 + (n / 800) ** 1.5),
    "no power law: logarithm": lambda n: 0.35 - 0.084 * float(np.log10(n / 100)),
}
SIZES = ((490, 980, 1960), (100, 200, 490, 980, 1960), (50, 100, 200, 400, 800, 1600))


def forecasts(cases: int) -> None:
    """How often the intervals of forecasts hold the truth."""
    columns = [
        "true error",
        "sizes",
        "200 more",
        "twice as many",
        "ten times",
        "gain of 200 more",
        "± points, 200 more",
    ]
    table = new_table(f"95 % intervals of forecasts that hold the truth, {cases:,} cases, {IMAGES} images", columns)
    rows = [(name, sizes) for name in TRUTHS for sizes in SIZES]
    for name, sizes in track(rows, "forecasts", total=len(rows)):
        rng, true, held, width = np.random.default_rng(0), TRUTHS[name], np.zeros(4), 0.0
        missed, last = np.array([true(size) for size in sizes]), sizes[-1]
        noise = np.sqrt(missed * (1 - missed) / IMAGES)
        for _ in range(cases):
            curve = fit_curve(sizes, 1 - missed + noise * rng.standard_normal(len(sizes)), noise, draws=300)
            assert curve is not None
            places = (last + 200, 2 * last, 10 * last)
            said = [forecast(curve, place) for place in places]
            truths = [1 - true(place) for place in places]
            said, truths = [*said, gain_of(curve, last, 200)], [*truths, true(last) - true(last + 200)]
            held += [holds(estimate, truth) for estimate, truth in zip(said, truths, strict=True)]
            width += (said[0].high - said[0].low) / 2
        table.add_row(name, str(len(sizes)), *(f"{share:.0%}" for share in held / cases), f"{100 * width / cases:.1f}")
    console.print(table)


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether the interval does, but for rounding."""
    return estimate.low - 1e-9 <= truth <= estimate.high + 1e-9


def new_table(title: str, columns: list[str]) -> Table:
    """An empty one."""
    return Table(*columns, title=title, title_justify="left")


def main() -> None:
    """Simulates, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=400, help="per row")
    options = parser.parse_args()
    false_alarms(options.cases)
    power(options.cases)
    forecasts(options.cases)


if __name__ == "__main__":
    main()
