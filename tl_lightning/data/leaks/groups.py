"""Links between images and the groups that they add up to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["file", "pixels", "near", "crop"]
KINDS: tuple[Kind, ...] = ("file", "pixels", "near", "crop")  # the surer comes first


@dataclass(frozen=True)
class Duplicate:
    """Two samples that show the same image.

    Of many copies each is linked to one other, not to all: see `groups_of`.

    Attributes:
        first: Index of a sample.
        second: Index of another; the larger one.
        kind: ``file``: the same bytes. ``pixels``: the same pixels in another file. ``near``: re-encoded, resized,
            brightened, mirrored or turned. ``crop``: one is cut out of the other.
    """

    first: int
    second: int
    kind: Kind


class Groups:
    """Union-find over sample indices; a group is named by its smallest member."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, index: int) -> int:
        """The smallest member of the group that a sample is in."""
        parent = self._parent
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    def join(self, first: int, second: int) -> bool:
        """Makes one group of two; false if they were one before."""
        small, large = sorted((self.root(first), self.root(second)))
        self._parent[large] = small
        return small != large

    def roots(self) -> NDArray[np.int64]:
        """The smallest member of each sample's group, shape ``(n,)``."""
        return np.array([self.root(index) for index in range(len(self._parent))], dtype=np.int64)


def groups_of(duplicates: Iterable[Duplicate], count: int, *, kinds: Sequence[Kind] = KINDS) -> NDArray[np.int64]:
    """Follows the links, so that copies of copies are in one group.

    Args:
        duplicates: What `find_duplicates` found.
        count: Number of samples, n.
        kinds: The links to follow.

    Returns:
        The smallest index of each sample's group, shape ``(n,)``; its own where it has no twin.
    """
    groups = Groups(count)
    for duplicate in duplicates:
        if duplicate.kind in kinds:
            groups.join(duplicate.first, duplicate.second)
    return groups.roots()
