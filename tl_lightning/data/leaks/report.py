"""What duplicates mean for an experiment: images that were seen in training, and images under two labels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.leaks.groups import KINDS, Duplicate, Kind, groups_of
from tl_lightning.data.samples import SPLITS
from tl_lightning.errors import shown

ACROSS = (("val", "train"), ("test", "train"), ("test", "val"))


@dataclass(frozen=True)
class Example:
    """Two images that are one.

    Attributes:
        kind: The weakest of the links that connect them.
        first: Path of an image.
        first_in: The split of the first image, or its label where two labels are the matter.
        second: Path of its twin.
        second_in: The split, or the label, of the second.
    """

    kind: Kind
    first: str
    first_in: str
    second: str
    second_in: str


@dataclass(frozen=True)
class LeakReport:
    """Counts of images that are there more than once.

    An image counts once in each place, under the surest kind that leads to a twin.

    Attributes:
        across: By ``val in train``, ``test in train`` and ``test in val``: how many images of the first split have a
            twin in the second, by kind.
        within: By split: how many of its images are further copies of one in it, by kind; no leak, but they weigh
            more than others.
        relabelled: How many images have a twin of another label, by kind, wherever they are.
        leaks: Examples of the first, the surest first.
        contradictions: Examples of images under two labels.
    """

    across: dict[str, dict[Kind, int]]
    within: dict[str, dict[Kind, int]]
    relabelled: dict[Kind, int]
    leaks: list[Example]
    contradictions: list[Example]

    @property
    def leaking(self) -> int:
        """Images of validation and test with a twin where they must have none; in both places counts twice."""
        return sum(sum(kinds.values()) for kinds in self.across.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``summary.json``."""
        return asdict(self)

    def contradiction(self) -> str:
        """The first examples of one image under two labels, in one line; empty where there are none."""
        return ", ".join(_in_words(example) for example in self.contradictions[:3])

    def sentence(self) -> str:
        """The leaks in one line: how many, of which kinds, and the first examples; empty where there are none."""
        parts = []
        for place, kinds in self.across.items():
            if kinds:
                named = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
                total, (here, there) = sum(kinds.values()), place.split(" in ")
                counted = f"1 image of {here} is" if total == 1 else f"{total:,} images of {here} are"
                parts.append(f"{counted} also in {there} ({named})")
        named = ", ".join(_in_words(example) for example in self.leaks[:3])
        return f"{'; '.join(parts)}, such as {named}" if parts else ""


def _in_words(example: Example) -> str:
    return f"{example.first} ({example.first_in}) = {example.second} ({example.second_in})"


def report_leaks(
    duplicates: Sequence[Duplicate],
    splits: Mapping[str, NDArray[np.int64]],
    *,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    paths: Sequence[Path],
    most: int = 10,
) -> LeakReport:
    """Counts what duplicates there are across splits, within them and under two labels.

    Args:
        duplicates: What `find_duplicates` found.
        splits: Sample indices under ``train``, ``val`` and ``test``.
        labels: ``int64`` class of each sample, shape ``(n,)``.
        classes: Names of the classes.
        paths: The file of each sample.
        most: The largest number of examples of each sort.
    """
    place = np.full(len(paths), -1)
    for number, name in enumerate(SPLITS):
        place[splits[name]] = number
    used = np.flatnonzero(place >= 0)
    across: dict[str, dict[Kind, int]] = {f"{a} in {b}": {} for a, b in ACROSS}
    within: dict[str, dict[Kind, int]] = {name: {} for name in SPLITS}
    relabelled: dict[Kind, int] = {}
    leaks: list[Example] = []
    contradictions: list[Example] = []
    known: dict[str, NDArray[np.int64]] = {}

    def fresh(key: str, found: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pairs of images that no surer kind has led to."""
        before = known.get(key, found[:0])
        known[key] = np.union1d(before, found)
        return np.setdiff1d(found, before)

    for number, kind in enumerate(KINDS):
        groups = groups_of(duplicates, len(paths), kinds=KINDS[: number + 1])
        for a, b in ACROSS:
            key = f"{a} in {b}"
            found = fresh(key, np.sort(splits[a][np.isin(groups[splits[a]], groups[splits[b]])]))
            if len(found):
                across[key][kind] = len(found)
            for index in found[: max(0, most - len(leaks))]:
                twin = splits[b][np.argmax(groups[splits[b]] == groups[index])]
                leaks.append(Example(kind, shown(paths[index]), a, shown(paths[twin]), b))
        for name in SPLITS:
            _, first = np.unique(groups[np.sort(splits[name])], return_index=True)
            count = len(splits[name]) - len(first) - sum(within[name].values())
            if count:
                within[name][kind] = count
        several = _groups_of_two_labels(groups[used], labels[used])
        found = fresh("label", used[np.isin(groups[used], several)])
        if len(found):
            relabelled[kind] = len(found)
        for group in np.unique(groups[found])[: max(0, most - len(contradictions))]:
            members = used[groups[used] == group]
            other = members[np.argmax(labels[members] != labels[members[0]])]
            names = [classes[labels[index]] for index in (members[0], other)]
            contradictions.append(Example(kind, shown(paths[members[0]]), names[0], shown(paths[other]), names[1]))
    return LeakReport(across, within, relabelled, leaks, contradictions)


def _groups_of_two_labels(groups: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    pairs = np.unique(np.stack([groups, labels], axis=1), axis=0)
    names, counts = np.unique(pairs[:, 0], return_counts=True)
    several: NDArray[np.int64] = names[counts > 1]
    return several
