"""``tl leaks``: a list of the images that are there more than once."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.data.leaks import Duplicate
from tl_lightning.data.samples import Samples, Target
from tl_lightning.inspecting.leaks import _rows

SOURCE = ("--data.source", "table.csv", "--data.image_size", "128")  # at 32 no section can be told


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A table of nine images that do not resemble each other, three in each split."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(9):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(f"{number}.png")
    rows = [(f"{k}.png", ("cat", "dog")[k % 2], ("train", "val", "test")[k // 3]) for k in range(9)]
    write_table(rows)
    return rows


def write_table(rows):
    with Path("table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "split"), *rows])


def leaks(*options):
    assert main(["leaks", *TINY, *SOURCE, *options]) == 0
    with Path("leaks.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_planted_copies_are_listed_with_split_and_label(here, capsys):
    Image.open("0.png").save("copy.bmp")
    whole = Image.open("4.png").resize((320, 320), Image.Resampling.BICUBIC)
    whole.save("4.png")
    whole.crop((10, 20, 300, 310)).save("cut.png")
    Path("broken.png").write_bytes(b"no image")
    write_table([*here, ("copy.bmp", "dog", "test"), ("cut.png", "dog", "train"), ("broken.png", "cat", "test")])
    pixels = {
        "kind": "pixels",
        **{"path_1": "0.png", "split_1": "train", "label_1": "cat"},
        **{"path_2": "copy.bmp", "split_2": "test", "label_2": "dog"},
    }
    crop = {
        "kind": "crop",
        **{"path_1": "4.png", "split_1": "val", "label_1": "cat"},
        **{"path_2": "cut.png", "split_2": "train", "label_2": "dog"},
    }
    assert leaks() == [pixels, crop]
    assert "2 pairs written to leaks.csv" in capsys.readouterr().out
    assert leaks("--crops", "false") == [pixels]


def test_where_nothing_is_there_twice_it_says_so(here, capsys):
    assert leaks("--crops", "false") == []
    assert "no image is there more than once" in capsys.readouterr().out


def test_a_image_of_no_split_has_an_empty_cell():
    zeros = np.zeros(2, dtype=np.int64)
    samples = Samples([Path("a.png"), Path("b.png")], {"label": Target(zeros, ["cat"])}, split=None, strata=zeros)
    data = SimpleNamespace(samples=samples, splits={"train": np.array([1]), "val": np.array([], dtype=int)})
    assert _rows(data, [Duplicate(0, 1, "file")])[1] == ["file", "a.png", "", "cat", "b.png", "train", "cat"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run_dir", "run"], "--run_dir has no effect here: tl leaks makes no run folder; leave it out"),
        (["--data.on_leak=stop"], "--data.on_leak has no effect here: tl leaks lists copies and moves none"),
        (["--data.init_args.on_error", "stop"], "--data.on_error has no effect here: tl leaks leaves out images"),
        (["--output", "nowhere/leaks.csv"], "--output nowhere/leaks.csv: there is no folder nowhere"),
        (["--crops", "yes"], "--crops"),
        (["--data.source", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, words):
    assert main(["leaks", *TINY, *SOURCE, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not Path("leaks.csv").exists()
