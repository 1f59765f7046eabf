"""Two pretrainings with known effects: one that helps, one after which features are gone; what does tl compare say?

    python benchmarks/negative_transfer.py --folder runs/negative_transfer

The target are striped images of two directions under noise. The useful weights were trained on other such images,
ten degrees off, and are tried with few labels and epochs. The harmful ones were trained on those images with labels
at random under strong weight decay: there is nothing to learn, so that the decay empties the features; they are tried
with all labels, from which training from scratch learns. Both are ordinary runs of tl fit.
"""

import argparse
import csv
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from tl_lightning.cli import main as tl

SHARED = [
    *("--data.image_size", "32", "--data.augmentation", "none", "--data.batch_size", "8"),
    *("--model.backbone", "timm/test_efficientnet", "--data.on_leak", "ignore"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
]
STEPWISE = ["--model.backbone_lr_scale", "1", "--model.bottom_ratio", "1"]


def draw_stripes(folder: Path, angles: tuple[float, float], *, count: int, seed: int) -> None:
    """Writes images of stripes with random widths, places and contrasts, and a table of them.

    Args:
        folder: Gets ``images.csv``, with a column of labels and one of the same labels at random.
        angles: Of the two classes, in degrees.
        count: Images per class.
        seed: Of the drawing.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    rows = []
    for number in range(2 * count):
        angle = np.deg2rad(angles[number % 2])
        phase = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.6, 1.2) + rng.uniform(0, 2 * np.pi)
        pixels = 128 + rng.uniform(20, 60) * np.sin(phase) + rng.normal(0, 40, (32, 32))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB").save(folder / f"{number}.png")
        rows.append([f"{number}.png", f"class{number % 2}"])
    by_chance = rng.permutation([label for _, label in rows])
    with (folder / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "by_chance"])
        table.writerows([*row, label] for row, label in zip(rows, by_chance, strict=True))


def make_weights(folder: Path) -> None:
    """Makes the images, and the runs ``useful`` and ``harmful`` in a new folder."""
    draw_stripes(folder / "target", (0, 90), count=100, seed=0)
    draw_stripes(folder / "source", (10, 100), count=300, seed=1)
    fit = ["fit", *SHARED, *STEPWISE, "--model.weights", "none", "--phases", "scratch"]
    useful = ["--data.source", str(folder / "source/images.csv"), "--trainer.max_epochs", "6", "--model.lr", "0.005"]
    harmful = ["--data.source", str(folder / "source/images.csv"), "--data.label_column", "by_chance"]
    harmful += ["--trainer.max_epochs", "2", "--model.lr", "0.01", "--model.weight_decay", "50"]
    harmful += ["--phases", "[{train: all, bn: frozen}]"]
    for name, options in (("useful", useful), ("harmful", harmful)):
        if tl([*fit, *options, "--run_dir", str(folder / name)]):
            raise SystemExit(f"the {name} weights could not be made")


TARGET = {"useful": ("0.2", "3"), "harmful": ("1.0", "6")}  # share of the labels, and epochs


def compare(folder: Path, weights: str, *, seeds: int = 2) -> tuple[int, str, str]:
    """Compares training from scratch with a head on the features of some weights.

    Args:
        folder: Of `make_weights`.
        weights: ``useful`` or ``harmful``.
        seeds: Runs of each.

    Returns:
        The exit code with ``--fail_on_negative_transfer``, the kind of the verdict, and its text.
    """
    run = folder / f"compare-{weights}"
    args = ["compare", *SHARED, "--data.source", str(folder / "target/images.csv"), "--run_dir", str(run)]
    args += ["--model.weights", str(folder / weights), "--strategies", "scratch,feature_extraction"]
    fraction, epochs = TARGET[weights]
    args += ["--seeds", str(seeds), "--trainer.max_epochs", epochs, "--model.lr", "0.005"]
    args += ["--data.labelled_fraction", fraction]
    code = tl([*args, "--fail_on_negative_transfer"])
    verdict = json.loads((run / "summary.json").read_text())["verdict"]
    return code, verdict["kind"], verdict["text"]


def main() -> None:
    """Makes both weights and prints both verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/negative_transfer"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("TL_CACHE_DIR", str(options.folder / "cache"))
    make_weights(options.folder)
    results = {weights: compare(options.folder, weights, seeds=options.seeds) for weights in ("useful", "harmful")}
    for weights, (code, kind, text) in results.items():
        print(f"{weights}: exit code {code}, {kind}: {text}")


if __name__ == "__main__":
    main()
