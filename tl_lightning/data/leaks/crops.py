"""Pictures that are cut out of others.

Candidates are the nearest neighbours by the features of a backbone. Their cosine decides nothing: no threshold tells
crops from other pictures. On ELPV the crops of 80 % of the area have a median cosine of 0.94 with the picture they were
cut from, and two different cells have 0.97. So the verdict is the pixels': the place is looked for at which the
smaller section fits, and there it has to be the same picture.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tl_lightning.console import track
from tl_lightning.data.leaks.fingerprints import SIDE, Pixels, thumbnail
from tl_lightning.data.leaks.near import same_picture
from tl_lightning.data.leaks.neighbours import nearest, whitened

NEIGHBOURS = 5
SMALLEST = 0.8  # of the side, hence 64 % of the area
ROUGHLY = 0.75  # correlation at whole pixels of the thumbnail from which on fractions of one are tried
# Side of the whole picture, steps in pixels of the thumbnail, and the correlation that is asked for after them. Of true
# crops of ELPV and of drawn pictures 95 % reach more than 0.992 at 64 pixels; at 128 `same_picture` decides.
LEVELS = ((SIDE, (0.5, 0.25), 0.9), (2 * SIDE, (0.25, 0.125), 0.985), (4 * SIDE, (0.125, 0.06), 0.0))
_PAIRS = 1024


def crop_pairs(
    pixels: Pixels, indices: NDArray[np.int64], thumbnails: NDArray[np.uint8], features: NDArray[np.float32]
) -> Iterator[tuple[int, int]]:
    """Finds pictures of which one shows a section of the other, neither mirrored nor turned.

    Args:
        pixels: Pictures that are decoded already.
        indices: Those of the m pictures to look at, sorted.
        thumbnails: Theirs, shape ``(m, 32, 32)``.
        features: A row for each sample, shape ``(n, d)``.

    Yields:
        Pairs of places in `indices`; the second is cut out of the first.
    """
    if len(indices) < 2:
        return
    close = nearest(whitened(features, indices), min(NEIGHBOURS, len(indices) - 1))
    pairs = np.stack([np.repeat(np.arange(len(close)), close.shape[1]), close.ravel()], axis=1)
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    blocks = range(0, len(pairs), _PAIRS)
    for start in track(blocks, "looking for crops", total=len(blocks)):
        whole, part = pairs[start : start + _PAIRS].T
        edges, fit = _rough_place(thumbnails[whole], thumbnails[part])
        least = ROUGHLY
        for side, steps, next_least in LEVELS:
            kept = np.flatnonzero(fit.numpy() >= least)
            whole, part, edges, least = whole[kept], part[kept], edges[kept], next_least
            if not len(kept):
                break
            fine = np.stack([thumbnail(pixels[int(indices[row])], side) for row in whole])
            section, edges, fit = _best_section(torch.from_numpy(fine).float(), thumbnails[part], edges, steps)
        else:
            same = same_picture(section, thumbnails[part])
            yield from zip(whole[same].tolist(), part[same].tolist(), strict=True)


def _unit(pictures: Tensor) -> Tensor:
    flat = pictures.flatten(-2)
    return functional.normalize(flat - flat.mean(dim=-1, keepdim=True), dim=-1)


def _rough_place(wholes: NDArray[np.uint8], parts: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """The square of whole pixels that resembles the part most.

    Returns:
        Left, top, right and bottom edge from 0 to 1, shape ``(m, 4)``, and its correlation, shape ``(m,)``.
    """
    whole, part = torch.from_numpy(wholes).float(), torch.from_numpy(parts).float()
    best = torch.full((len(whole),), -1.0)
    edges = torch.zeros(len(whole), 4)
    for side in range(int(SMALLEST * SIDE), SIDE + 1):
        small = _unit(functional.interpolate(part[:, None], size=(side, side), mode="area")[:, 0])
        for top in range(SIDE - side + 1):
            for left in range(SIDE - side + 1):
                fit = (_unit(whole[:, top : top + side, left : left + side]) * small).sum(dim=-1)
                better = fit > best
                best = torch.where(better, fit, best)
                edges[better] = torch.tensor([left, top, left + side, top + side]) / SIDE
    return edges, best


def _best_section(
    fine: Tensor, parts: NDArray[np.uint8], edges: Tensor, steps: tuple[float, ...]
) -> tuple[NDArray[np.uint8], Tensor, Tensor]:
    """Moves the edges by ever smaller steps to where the section resembles the part most.

    Returns:
        The sections as thumbnails, their edges, and their correlations.
    """
    part = _unit(torch.from_numpy(parts).float())
    best = (_unit(_section(fine, edges)) * part).sum(dim=-1)
    for step in steps:
        for _ in range(2):
            for move in _MOVES:
                moved = (edges + step / SIDE * torch.tensor(move)).clamp(0, 1)
                fit = (_unit(_section(fine, moved)) * part).sum(dim=-1)
                better = fit > best
                best = torch.where(better, fit, best)
                edges = torch.where(better[:, None], moved, edges)
    return _section(fine, edges).round().clamp(0, 255).to(torch.uint8).numpy(), edges, best


_ONE_WAY = ((1, 0, 1, 0), (0, 1, 0, 1), (1, 1, -1, -1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
_MOVES = (*_ONE_WAY, *(tuple(-edge for edge in move) for move in _ONE_WAY))  # of left, top, right and bottom


def _section(fine: Tensor, edges: Tensor) -> Tensor:
    """Cuts out and shrinks: ``(m, 32, 32)`` of pictures ``(m, side, side)``."""
    left, top, right, bottom = (2 * edges - 1).unbind(dim=1)
    zero = torch.zeros_like(left)
    rows = [(right - left) / 2, zero, (left + right) / 2, zero, (bottom - top) / 2, (top + bottom) / 2]
    size = [len(fine), 1, *fine.shape[1:]]
    places = functional.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), size, align_corners=False)
    cut = functional.grid_sample(fine[:, None], places, padding_mode="border", align_corners=False)
    return functional.avg_pool2d(cut, fine.shape[-1] // SIDE)[:, 0]
