"""The ELPV set: 2,624 grey 300 x 300 px images of solar cells in electroluminescence (Deitsch et al. 2019).

The images come as a package under CC BY-NC-SA 4.0.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tl_lightning.data.listing import Listing
from tl_lightning.errors import UserError, nearest

LEVELS = ["0%", "33%", "67%", "100%"]
TYPES = ["mono", "poly"]
TARGETS = {"defect": ["functional", "defective"], "level": LEVELS, "type": TYPES, "probability": None}


def read_elpv(*, targets: Sequence[str]) -> Listing:
    """Lists the images of the package ``elpv-dataset``.

    Args:
        targets: One or several of ``defect`` (defective where the experts' probability is above 0.5), ``level`` (their
            four levels), ``type`` (mono- or polycrystalline) and ``probability`` (that of a defect, as a number).

    Returns:
        The images in the order of their numbers. The strata are level x type and the domains the type, whatever the
        target, so that one seed gives the same test rows for each of them.

    Raises:
        UserError: If the package is missing or the target unknown.
    """
    for target in targets:
        if target not in TARGETS:
            raise UserError(
                f"data.target {target!r} is unknown to elpv; it has {', '.join(TARGETS)}" + nearest(target, TARGETS)
            )
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise UserError("data.source elpv needs a package that is missing: pip install 'tl_lightning[demo]'")
    # The package's own loader reads every image into memory; the table beside it is all that is wanted.
    folder = Path(spec.origin).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    levels = [round(float(probability) * (len(LEVELS) - 1)) for _, probability, _ in rows]
    types = [kind for _, _, kind in rows]
    cells = {
        "defect": ["defective" if float(probability) > 0.5 else "functional" for _, probability, _ in rows],
        "level": [LEVELS[level] for level in levels],
        "type": types,
        "probability": [probability for _, probability, _ in rows],
    }
    strata = [level * len(TYPES) + TYPES.index(kind) for level, kind in zip(levels, types, strict=True)]
    return Listing(
        source="elpv",
        paths=[folder / path for path, _, _ in rows],
        targets={target: cells[target] for target in targets},
        place=lambda index: rows[index][0],
        known={target: classes for target in targets if (classes := TARGETS[target])},
        ordered=frozenset({"level"}),
        strata=np.array(strata, dtype=np.int64),
        domains=types,
    )
