"""The two charts of the README, drawn from measured numbers: ``python benchmarks/charts.py`` writes docs/images.

The numbers are those of RESULTS.md (speed, by feature_cache.py) and of splits_and_targets.py (trust).
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parents[1] / "docs" / "images"
OURS, OTHERS, INK = "#2563eb", "#94a3b8", "#64748b"  # ink that is read on light and on dark pages

SPEED = {  # seconds of work
    "tl fit again, images in the cache": 2.5,
    "tl fit, head solved": 7.3,
    "bare PyTorch loop, bf16, channels-last": 33.7,
    "Lightning's BackboneFinetuning, bf16, channels-last": 197.4,
    "fastai, bf16, channels-last": 250.7,
}
TRUST = {  # accuracy, its standard error, and the majority class
    "a random fifth": (0.854, 0.007, 0.687),
    "a contiguous fifth: another module": (0.767, 0.008, 0.687),
    "poly cells, trained on mono": (0.330, 0.012, 0.708),
    "mono cells, trained on poly": (0.715, 0.014, 0.656),
}


def _axes(rows: int) -> tuple[Any, Any]:
    plt.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "tl", "font.size": 11})
    figure, axes = plt.subplots(figsize=(9, 0.5 + 0.42 * rows), layout="constrained")
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    axes.xaxis.label.set_color(INK)
    return figure, axes


def speed() -> None:
    """Draws the seconds for a head on a frozen backbone."""
    figure, axes = _axes(len(SPEED))
    bars = axes.barh(list(SPEED), list(SPEED.values()), color=[OURS] * 2 + [OTHERS] * 3, height=0.62)
    axes.bar_label(
        bars,
        [f"{seconds:.0f} s" if seconds > 10 else f"{seconds} s" for seconds in SPEED.values()],
        padding=5,
        color=INK,
    )
    axes.set_xticks([])
    axes.set_xlim(0, 275)
    figure.savefig(FOLDER / "speed.svg", metadata={"Date": None})


def trust() -> None:
    """Draws the accuracy on several splits beside the majority class."""
    figure, axes = _axes(len(TRUST))
    for row, (accuracy, error, majority) in enumerate(TRUST.values()):
        axes.barh(row, accuracy, color=OURS if row == 0 else OTHERS, height=0.62)
        axes.errorbar(accuracy, row, xerr=1.96 * error, color=INK, capsize=3)
        axes.plot([majority, majority], [row - 0.4, row + 0.4], color="#dc2626", linewidth=2)
        axes.text(max(accuracy + 2 * error, majority) + 0.015, row, f"{accuracy:.3f}", va="center", color=INK)
    axes.set_yticks(range(len(TRUST)), [f"tested on {name}" for name in TRUST])
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy, 95 % interval; the red line is always naming the majority class")
    figure.savefig(FOLDER / "trust.svg", metadata={"Date": None})


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    speed()
    trust()
