"""What a source says of its samples, as text, before anything is made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a source and what it says of each, whatever is to be learned from it.

    Attributes:
        source: What messages call the source.
        paths: One file per sample.
        targets: One or more columns by name, each with the cell of every sample; a blank cell says nothing.
        place: Says in words where the sample of an index was found.
        known: The source's own order of the classes of a column; without one, those that occur are sorted.
        ordered: The columns whose order is one of levels, lowest first.
        split: ``train``, ``val`` or ``test`` of each sample; `None` where the source states none.
        strata: What a stratified split keeps in proportion, ``int64`` ``(n,)``; `None` leaves it to the targets.
        domains: The domain of each sample; `None` where the source has none.
        groups: What each sample has in common with others; `None` where the source has no groups.
        weights: How much each sample counts in training, above 0; `None` for all the same.
        times: When each sample was taken, as numbers that can be put in order; `None` where the source does not say.
        notes: What a user should know of how it was listed, a line each, such as which files were left out.
    """

    source: str
    paths: list[Path]
    targets: dict[str, Sequence[str]]
    place: Callable[[int], str]
    known: dict[str, list[str]] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()
    split: Sequence[str] | None = None
    strata: NDArray[np.int64] | None = None
    domains: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    weights: Sequence[float] | None = None
    times: Sequence[float] | None = None
    notes: Sequence[str] = ()
