"""What is done about images that are in two splits."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tl_lightning.core.console import console
from tl_lightning.data.leaks.groups import Duplicate, groups_of
from tl_lightning.data.leaks.report import LeakReport
from tl_lightning.errors import UserError

OnLeak = Literal["warn", "stop", "move", "ignore"]
Splits = dict[str, NDArray[np.int64]]


def settle_leaks(
    splits: Mapping[str, NDArray[np.int64]],
    duplicates: Sequence[Duplicate],
    *,
    report: LeakReport,
    on_leak: OnLeak,
    groups: NDArray[np.str_] | None = None,
) -> Splits:
    """Says what leaks there are, or stops for them, or moves them out of the way.

    Args:
        splits: Sample indices under ``train``, ``val`` and ``test``.
        duplicates: What `find_duplicates` found.
        report: What `report_leaks` made of it.
        on_leak: ``warn`` prints a line and leaves the splits as they are; ``stop`` raises; ``move`` prints a line and
            calls `move_leaks`; ``ignore`` says nothing.
        groups: What samples have in common, which moves together.

    Returns:
        The splits to go on with.

    Raises:
        UserError: If there are leaks and `on_leak` is ``stop``, if it is no such word, or if moving empties a split.
    """
    if on_leak not in ("warn", "stop", "move", "ignore"):
        raise UserError(f"data.on_leak {on_leak!r} is unknown; valid are warn, stop, move, ignore")
    if on_leak == "ignore" or not report.leaking:
        return dict(splits)
    if on_leak == "stop":
        raise UserError(f"{report.sentence()}; remove them, or use --data.on_leak move (or warn)")
    if on_leak == "warn":
        console.print(f"warning    {report.sentence()}; scores flatter, see --data.on_leak move")
        return dict(splits)
    moved = move_leaks(splits, duplicates, groups)
    changes = ", ".join(f"{name} {len(splits[name]):,} to {len(moved[name]):,}" for name in splits)
    console.print(f"leaks      moved, so that no image is in two splits: {changes}")
    return moved


def move_leaks(
    splits: Mapping[str, NDArray[np.int64]],
    duplicates: Sequence[Duplicate],
    groups: NDArray[np.str_] | None = None,
) -> Splits:
    """Gives every group of copies to one split: to training if that has one of them, else to validation.

    The test split only loses images: to get one it would have to be chosen for it.

    Args:
        splits: Sample indices under ``train``, ``val`` and ``test``.
        duplicates: What `find_duplicates` found.
        groups: What samples have in common, ``(n,)``: a patient whose image moves goes with all of them.

    Returns:
        Sorted indices of the same samples under the same names.

    Raises:
        UserError: If a split that had images is left without.
    """
    largest = max((int(indices.max(initial=0)) for indices in splits.values()), default=0)
    linked = [*duplicates, *_same_group(groups)]
    together = groups_of(linked, 1 + max([largest, *(link.second for link in linked)]))
    moved = {name: np.sort(indices) for name, indices in splits.items()}
    for name, sources in (("train", ("val", "test")), ("val", ("test",))):
        for source in sources:
            twins = np.isin(together[moved[source]], together[moved[name]])
            moved[name] = np.union1d(moved[name], moved[source][twins])
            moved[source] = moved[source][~twins]
    for name, indices in moved.items():
        if len(splits[name]) and not len(indices):
            raise UserError(
                f"data.on_leak move would leave the {name} split without images: each of its {len(splits[name]):,} "
                "is also in another; use another split, or --data.on_leak warn"
            )
    return moved


def _same_group(groups: NDArray[np.str_] | None) -> list[Duplicate]:
    """Links that hold each group together."""
    if groups is None:
        return []
    order = np.argsort(groups, kind="stable")
    pairs = zip(order[:-1].tolist(), order[1:].tolist(), strict=True)
    return [Duplicate(min(pair), max(pair), "file") for pair in pairs if groups[pair[0]] == groups[pair[1]]]
