"""Images that are cut out of others.

Candidates are the nearest neighbours by the features of a backbone. Their cosine decides nothing: no threshold tells
crops from other images. On ELPV the crops of 80 % of the area have a median cosine of 0.94 with the image they were
cut from, and two different cells have 0.97. So the verdict is the pixels': the place is looked for at which the
smaller section fits, and there it has to be the same image.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tl_lightning.core.console import track
from tl_lightning.data.leaks.fingerprints import SIDE, Pixels, thumbnail
from tl_lightning.data.leaks.near import same_image
from tl_lightning.data.leaks.neighbours import nearest, whitened

NEIGHBOURS = 5
SMALLEST = 0.8  # of the side, hence 64 % of the area
LARGEST = (
    0.98  # of the area; what is shifted by a pixel only is no crop, and solar cells of one module fit each other so
)
ROUGHLY = 0.75  # correlation at whole pixels of the thumbnail from which on fractions of one are tried
# Side of the whole image, rounds, and the correlation that is asked for after them. Of true crops of ELPV and of
# drawn images 95 % reach 0.91 at 32 pixels and 0.991 at 64; at 128 `same_image` decides.
LEVELS = ((SIDE, 4, 0.9), (2 * SIDE, 3, 0.985), (4 * SIDE, 3, 0.0))
_PAIRS = 1024


def crop_pairs(
    pixels: Pixels, indices: NDArray[np.int64], thumbnails: NDArray[np.uint8], features: NDArray[np.float32]
) -> Iterator[tuple[int, int]]:
    """Finds images of which one shows a section of the other, neither mirrored nor turned.

    Args:
        pixels: Images that are decoded already.
        indices: Those of the m images to look at, sorted.
        thumbnails: Small versions of the same images, ``(m, 32, 32)``.
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
        for side, rounds, next_least in LEVELS:
            kept = np.flatnonzero(fit.numpy() >= least)
            whole, part, edges, least = whole[kept], part[kept], edges[kept], next_least
            if not len(kept):
                break
            fine = np.stack([thumbnail(pixels[int(indices[row])], side) for row in whole])
            section, edges, fit = _best_section(torch.from_numpy(fine).float(), thumbnails[part], edges, rounds)
        else:
            area = ((edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])).numpy()
            same = same_image(section, thumbnails[part]) & (area <= LARGEST)
            yield from zip(whole[same].tolist(), part[same].tolist(), strict=True)


def _unit(images: Tensor) -> Tensor:
    flat = images.flatten(-2)
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
    fine: Tensor, parts: NDArray[np.uint8], edges: Tensor, rounds: int
) -> tuple[NDArray[np.uint8], Tensor, Tensor]:
    """Moves the edges to where the section resembles the part most, by Gauss-Newton (Lucas and Kanade 1981).

    Returns:
        The sections as thumbnails, their edges, and their correlations.
    """
    part = torch.from_numpy(parts).float()
    goal = _unit(part)
    section = _section(fine, edges)
    best = (_unit(section) * goal).sum(dim=-1)
    for _ in range(rounds):
        moved = (edges + _step(section, part, edges)).clamp(0, 1)
        tried = _section(fine, moved)
        fit = (_unit(tried) * goal).sum(dim=-1)
        better = fit > best
        best, edges = torch.where(better, fit, best), torch.where(better[:, None], moved, edges)
        section = torch.where(better[:, None, None], tried, section)
    return section.round().clamp(0, 255).to(torch.uint8).numpy(), edges, best


def _step(section: Tensor, part: Tensor, edges: Tensor) -> Tensor:
    """How far each edge should move, where contrast and brightness are free, too; shape ``(m, 4)``."""
    down, right = torch.gradient(section, dim=(1, 2))
    extent = SIDE / (edges[:, 2:] - edges[:, :2]).clamp(min=0.5)
    right, down = right * extent[:, :1, None], down * extent[:, 1:, None]
    share = (torch.arange(SIDE) + 0.5) / SIDE
    slopes = [right * (1 - share), down * (1 - share)[:, None], right * share, down * share[:, None]]
    columns = torch.stack([*slopes, section, torch.ones_like(section)], dim=-1).flatten(1, 2)
    normal = columns.mT @ columns
    normal += 1e-4 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2) + 1e-3)
    answer = torch.linalg.solve(normal, columns.mT @ part.flatten(1)[:, :, None])[:, :, 0]
    contrast = answer[:, 4:5].clamp(min=0.3)
    step: Tensor = (answer[:, :4] / contrast).clamp(-2 / SIDE, 2 / SIDE)
    return step


def _section(fine: Tensor, edges: Tensor) -> Tensor:
    """Cuts out and resizes: ``(m, 32, 32)`` of images ``(m, side, side)``."""
    left, top, right, bottom = (2 * edges - 1).unbind(dim=1)
    zero = torch.zeros_like(left)
    rows = [(right - left) / 2, zero, (left + right) / 2, zero, (bottom - top) / 2, (top + bottom) / 2]
    size = [len(fine), 1, *fine.shape[1:]]
    places = functional.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), size, align_corners=False)
    cut = functional.grid_sample(fine[:, None], places, padding_mode="border", align_corners=False)
    return functional.avg_pool2d(cut, fine.shape[-1] // SIDE)[:, 0]
