"""``tl check_preprocessing``: the same images in other preparations, beside the right one."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, write_tiny
from torch.nn import functional

from tl_lightning.cli import main
from tl_lightning.inspecting.preprocessing_check.check import Checked, Result, paired_errors
from tl_lightning.inspecting.preprocessing_check.command import worst
from tl_lightning.inspecting.preprocessing_check.preparations import prepared_batches, variants
from tl_lightning.metrics.noise import bootstrap
from tl_lightning.preprocess.image import ImagePreprocess
from tl_lightning.tasks import ClassificationTask

OWN = ImagePreprocess(32, 3, 0.8, "center", "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ImagePreprocess(32, 3, 0.8, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NAMES = [
    "as trained",
    "ImageNet's mean/std",
    "mean and std of 0.5",
    "only scaled to 0..1",
    "raw 0..255",
    "BGR instead of RGB",
    "greyscale",
    "squashed to square",
    "without the crop",
    "nearest resizing",
    "bilinear resizing",
    "24 x 24 pixels",
    "40 x 40 pixels",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("fitted"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TL_CACHE_DIR", str(folder / "cache"))
        fit()
    return folder


@pytest.fixture
def trained(tmp_path, monkeypatch, fitted):
    """A folder of one's own with the same run in it."""
    shutil.copytree(fitted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def fit(*options):
    assert main(["fit", *TINY, "--phases", "feature_extraction", "--run_dir", "run", *options]) == 0


def check(*options):
    assert main(["check_preprocessing", "--run_dir", "run", "--output", "check.json", *options]) == 0
    return json.loads(Path("check.json").read_text())


def validate(split="validation"):
    command = "validate" if split == "validation" else split
    assert main([command, "--run_dir", "run", "--output", "scores.json"]) == 0
    return json.loads(Path("scores.json").read_text())[split]


def write_table(answers):
    paths = sorted(Path("images").glob("*/*.png"))
    with Path("table.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([("image", "label"), *zip(paths, answers, strict=True)])


def turn_grey():
    for path in Path("images").glob("*/*.png"):
        Image.open(path).convert("L").save(path)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_first_row_is_what_an_evaluation_says_and_every_preparation_has_a_row(trained, capsys, split):
    found = check("--split", split)
    assert found["results"][0]["metrics"] == pytest.approx(validate(split), abs=1e-6)
    assert (found["results"][0]["name"], found["results"][0]["verdict"]) == ("as trained", "right")
    assert (found["split"], found["metric"], found["broken"]) == (split, "accuracy", 0)
    assert sorted(result["name"] for result in found["results"]) == sorted(NAMES)
    assert found["images"] == json.loads(Path("run/summary.json").read_text())["data"][split]
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)
    verdicts = {result["name"]: result["verdict"] for result in found["results"]}
    assert verdicts["ImageNet's mean/std"] == "the same"
    assert verdicts["BGR instead of RGB"] != "the same"


def test_rows_come_from_the_worst_to_those_that_are_the_same(here):
    turn_grey()
    fit()
    results = check()["results"][1:]
    verdicts = [result["verdict"] for result in results]
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict == "the same")
    costs = [result["cost"] for result in results]
    assert costs == sorted(costs, key=lambda cost: -cost) or "better" in verdicts
    same = {result["name"] for result in results if result["verdict"] == "the same"}
    assert {"BGR instead of RGB", "greyscale"} <= same
    assert "raw 0..255" not in same


def test_costs_are_those_of_the_accuracy_and_what_is_larger_than_two_errors_is_no_noise(here):
    fit("--data.val_fraction", "0.5", "--data.test_fraction", "0")
    found = check()
    right = found["results"][0]["metrics"]["accuracy"]
    compared = [result for result in found["results"][1:] if result["verdict"] != "the same"]
    assert any(result["cost"] > 0 for result in compared)
    for result in compared:
        assert result["cost"] == pytest.approx(right - result["metrics"]["accuracy"])
        assert abs(result["cost"]) <= result["changed"] + 1e-6
        noise = abs(result["cost"]) <= 2 * result["standard_error"] or result["cost"] == 0
        assert (result["verdict"] == "within the noise") == noise


def test_the_noise_is_that_of_the_difference_on_the_same_images():
    task = ClassificationTask("timm/test_efficientnet", ["a", "b"], weights="none")
    rows, labels = 400, torch.zeros(400, dtype=torch.int64)
    right, other = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64)
    right[:160] = 1  # 60 % are right
    other[:200] = 1  # and of these 40 images more are wrong
    answers = {"right": functional.one_hot(right, 2).float(), "other": functional.one_hot(other, 2).float()}
    errors = paired_errors(task.objective, answers, labels, "accuracy", None)
    assert errors["right"] == 0
    assert errors["other"] == pytest.approx((0.1 * 0.9 / rows) ** 0.5, rel=0.15)  # unpaired it were 0.035
    pairs = np.repeat(np.arange(200), 2).astype(str)  # neighbours are alike: half as many independent images
    grouped = paired_errors(task.objective, answers, labels, "accuracy", pairs)
    assert grouped["other"] == pytest.approx((0.1 * 0.9 / 200) ** 0.5, rel=0.15)


@pytest.mark.parametrize(
    ("task", "answers", "figure"),
    [
        ("OrdinalTask", ["1", "2", "3"] * 8, "mean_absolute_error"),
        ("MultiLabelTask", ["a", "b", "a|b", ""] * 6, "mean_average_precision"),
        ("RegressionTask", [k * 10 + j for k in range(2) for j in range(12)], "r2"),
    ],
)
def test_every_task_has_its_own_figure(here, capsys, task, answers, figure):
    write_table(answers)
    fit("--data.source", "table.csv", "--model", task, "--data.val_fraction", "0.4", "--trainer.max_epochs", "1")
    found = check()
    assert found["metric"] == figure
    assert found["results"][0]["metrics"] == pytest.approx(validate(), abs=1e-5)
    raw = next(result for result in found["results"] if result["name"] == "raw 0..255")
    worse = found["results"][0]["metrics"][figure] - raw["metrics"][figure]
    assert raw["cost"] == pytest.approx(-worse if figure == "mean_absolute_error" else worse, abs=1e-6)


def test_a_model_of_fixed_size_says_so(here):
    fit("--model.backbone", "timm/test_vit", "--model.weights", "none", "--data.image_size", "null")
    results = check("--limit", "2")["results"]
    assert [result["verdict"] for result in results[-2:]] == [
        "the model takes no 120 x 120 pixels",
        "the model takes no 200 x 200 pixels",
    ]
    assert results[-1]["metrics"] == {}


def test_a_limit_draws_the_same_images_each_time_and_nothing_is_kept(trained, monkeypatch):
    monkeypatch.setenv("TL_CACHE_DIR", "other")
    first = check("--limit", "2")
    assert first["images"] == 2
    assert check("--limit", "2") == first
    assert not list(Path("other").rglob("*.bin"))


def test_broken_images_are_left_out(here, capsys):
    fit("--data.val_fraction", "0.5", "--data.test_fraction", "0")
    before = check()["images"]
    Path("images/cat/3.png").write_bytes(b"")
    Path("images/cat/4.png").write_bytes(b"")
    Path("images/dog/5.png").write_bytes(b"")
    found = check()
    assert found["images"] + found["broken"] == before
    assert f"{found['broken']} images that cannot be read were left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run_dir", "nowhere"], "there is no run folder nowhere"),
        ([], "--run_dir"),
        (["--run_dir", "images"], "images is not a run folder"),
        (["--run_dir", "nowhere", "--limit", "0"], "--limit is 0; it must be 1 or more"),
        (["--run_dir", "nowhere", "--model.lr", "1"], "--model.lr has no effect here"),
        (["--run_dir", "nowhere", "--output", "no/where.json"], "there is no folder no"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, words):
    assert main(["check_preprocessing", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_another_split_of_the_same_images_is_refused(trained, capsys):
    assert main(["check_preprocessing", "--run_dir", "run", "--data.split_seed", "7"]) == 2
    assert "the run trained on" in capsys.readouterr().err


def numbers(name, pixels, own=OWN):
    way = next(way for way in variants(own) if way.name == name)
    return way.numbers({way.pixels: pixels})


def test_what_the_model_is_given():
    pixels = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(1, 3, 4, 4) * 5
    assert torch.allclose(numbers("raw 0..255", pixels), pixels.float(), atol=1e-4)
    assert torch.allclose(numbers("only scaled to 0..1", pixels), pixels / 255)
    assert torch.allclose(numbers("mean and std of 0.5", pixels), pixels / 255 * 2 - 1, atol=1e-6)
    assert torch.equal(numbers("as trained", pixels), OWN.normalize(pixels))
    assert torch.equal(numbers("ImageNet's mean/std", pixels, HALF), OWN.normalize(pixels))
    assert torch.equal(numbers("BGR instead of RGB", pixels), OWN.normalize(pixels[:, [2, 1, 0]]))
    red, green, blue = numbers("greyscale", pixels, HALF)[0]
    assert torch.equal(red, green)
    assert torch.equal(green, blue)


def test_other_pixels_are_decoded_once_for_all_that_share_them():
    ways = {way.name: way for way in variants(OWN)}
    shared = {"as trained", "ImageNet's mean/std", "raw 0..255", "BGR instead of RGB", "greyscale"}
    assert len({ways[name].pixels for name in shared}) == 1
    assert len({way.pixels for way in ways.values()}) == 7
    assert ways["without the crop"].preprocess == replace(OWN, crop_pct=1.0)
    assert ways["24 x 24 pixels"].preprocess == replace(OWN, size=24)
    border = replace(OWN, crop_mode="border")  # whose border has the mean's colour
    assert len({way.pixels for way in variants(border)[:3]}) == 2
    grey = ImagePreprocess(32, 1, 0.8, "center", "bilinear", (0.5,), (0.5,))
    assert not {"BGR instead of RGB", "greyscale"} & {way.name for way in variants(grey)}


def test_batches_are_in_order_and_lack_what_is_broken(here):
    paths = sorted(Path("images").glob("*/*.png"))
    for broken in (0, 1, 5):
        paths[broken].write_bytes(b"")
    batches = list(prepared_batches(paths, np.arange(7), [OWN], batch_size=2))
    assert [rows.tolist() for rows, _ in batches] == [[], [2, 3], [4], [6]]
    assert [len(pixels.get(OWN, ())) for _, pixels in batches] == [0, 2, 1, 1]


def result(name, verdict, value, cost):
    return Result(name, verdict, {"accuracy": value}, cost)


def test_the_worst_in_a_sentence():
    right = result("as trained", "right", 0.9, 0.0)
    noise, bad = result("x", "within the noise", 0.7, 0.2), result("raw 0..255", "worse", 0.777, 0.123)
    checked = Checked("accuracy", 10, 0, [right, noise, bad])
    assert worst(checked, points=True) == "raw 0..255 would cost 12.3 points of accuracy: 0.777 instead of 0.900"
    assert worst(checked, points=False) == "raw 0..255 would cost 0.123 in accuracy: 0.777 instead of 0.900"
    nothing = Checked("accuracy", 10, 0, [right, noise])
    assert worst(nothing, points=True) == "no other preparation of the images would cost more than the noise"


def test_fewer_draws_of_the_bootstrap():
    drawn = []
    bootstrap(lambda times: drawn.append(1) or {"a": 0.0}, 5, draws=150)
    assert len(drawn) == 150
