"""Runs on splits of one image, and what cannot be measured or trained, which is said before the training."""

import csv
import json
from pathlib import Path

import pytest
from tiny import TINY, write_tiny

from tl_lightning.cli import main


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("degenerate"))


@pytest.fixture
def here(images, monkeypatch, request):
    monkeypatch.chdir(images)
    return request.node.name


def stated(name, held_out):
    """Four dogs and four cats train; what is held out is written beside them."""
    rows = [[f"images/{kind}/{k}.png", kind, "train"] for kind in ("cat", "dog") for k in range(4)]
    rows += [[f"images/{kind}/{k}.png", kind, split] for split, kind, k in held_out]
    with Path(f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "split"], *rows])
    return f"{name}.csv"


def test_a_test_split_of_one_image_is_scored(here):
    source = stated("one", [("val", "cat", 5), ("val", "dog", 5), ("test", "cat", 6)])
    args = ["--data.source", source, "--trainer.max_epochs", "1", "--run_dir", "one"]
    assert main(["fit", *TINY, *args]) == 0
    summary = json.loads(Path("one/summary.json").read_text())
    assert summary["test"]["auroc"] is None
    assert summary["test"]["accuracy"] in (0, 1)


@pytest.mark.parametrize(
    ("held_out", "args", "words"),
    [
        (
            [("val", "cat", 5), ("val", "cat", 6)],
            ["--checkpoint.monitor", "val/auroc"],
            "val/auroc, which has no value",
        ),
        (
            [("val", "cat", 5), ("val", "dog", 5)],
            ["--phases", "full", "--data.batch_size", "1"],
            "single value per channel",
        ),
    ],
)
def test_what_cannot_be_is_one_line_before_the_training(here, capsys, held_out, args, words):
    source = stated("refused", held_out)
    bn = ["--phases", "[{train: all, bn: train}]"] if "--phases" in args else []
    assert main(["fit", *TINY, "--data.source", source, "--run_dir", "refused", *args, *bn]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not Path("refused").exists()
