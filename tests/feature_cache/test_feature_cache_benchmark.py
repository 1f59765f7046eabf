"""The benchmark against peers compares what it says it compares, and runs."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from peers.claims import Pair, check, ratio  # noqa: E402
from peers.contestants import CONTESTS  # noqa: E402
from peers.elpv_images import divide, draw  # noqa: E402
from peers.measure import MARK, Result, parse, scores  # noqa: E402
from peers.results import HEADER, write  # noqa: E402
from peers.task import Task  # noqa: E402

HEAD, LAST2, FULL = CONTESTS


@pytest.fixture
def task(tmp_path):
    values = {"model": "test_efficientnet", "weights": "none", "size": 128, "crop_pct": 0.875, "batch": 32}
    pixels = {"interpolation": "bicubic", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    lengths = {"epochs": 10, "full_epochs": 2, "threads": 2, "reduced": True}
    made = Task(folder=tmp_path, **values, **pixels, **lengths)
    rows = {name: [(f"{name}{i}.png", "ab"[i % 2]) for i in range(count)] for name, count in (("train", 8), ("val", 2))}
    made.write({**rows, "test": [(f"test{i}.png", "ab"[i % 2]) for i in range(400)]})
    return made


def worked(seconds, accuracy=0.8, **more):
    return Result(work_s=seconds, accuracy=accuracy, **more)


def claim(runs, task, beginning):
    (found,) = [each for each in check(runs, task) if each.text.startswith(beginning)]
    return found


def test_a_task_is_read_as_it_was_written(task):
    again = Task.read(task.folder)
    assert again == task
    assert again.resized == 146
    assert again.classes == ["a", "b"]
    assert again.labels("val") == [0, 1]
    assert len(again.rows("test")) == 400


def test_scores_are_accuracy_and_the_mean_f1_of_the_classes():
    accuracy, macro_f1 = scores([0, 0, 0, 1], [0, 0, 1, 1], classes=2)
    assert accuracy == 0.75
    assert macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert scores([0, 1], [0, 0], classes=2) == (0.5, pytest.approx(1 / 3))
    with pytest.raises(ValueError, match="1 predictions for 2 images"):
        scores([0, 1], [0], classes=2)


def test_a_result_is_found_among_other_output():
    line = json.dumps({"work_s": 2.0, "epochs_s": [4.0, 1.0, 2.0], "epoch_images": 30})
    result = parse(f"starting\n{MARK}{line}\nbye\n")
    assert (result.work_s, result.epoch_s, result.rate) == (2.0, 2.0, 15.0)
    assert parse("a traceback") is None


def test_a_ratio_is_the_median_over_neighbouring_runs_not_the_ratio_of_medians():
    runs = {"limit": [Pair(worked(10), worked(20)), Pair(worked(90), worked(30)), Pair(worked(8), worked(8))]}
    assert ratio(runs, HEAD, "limit") == 1.0
    assert ratio(runs, HEAD, "fastai_head_fast") is None


def test_a_head_claim_needs_the_speed_and_the_accuracy(task):
    def found(theirs, accuracy):
        pair = Pair(worked(theirs, accuracy), worked(1.0))
        return claim(
            {"ours": [Pair(pair.ours, pair.ours)], "fastai_head_default": [pair]},
            task,
            "10 epochs of the head: fastai at",
        )

    assert found(20.0, 0.8).reached is True
    assert found(19.9, 0.8).reached is False
    within = 2 * math.sqrt(2 * 0.85 * 0.15 / 400)
    assert 0.04 < within < 0.06
    assert found(20.0, 0.85).reached is True
    assert found(20.0, 0.87).reached is False
    assert found(20.0, 0.7).reached is True  # ours is the better one
    assert found(20.0, 0.8).found == "20.00x, +0.0 points"
    assert found(20.0, 0.8).bound == "18x in equal arithmetic"  # 8 of 10 images go through twice, in 10 epochs


def test_a_second_run_must_send_nothing_through_the_backbone(task):
    for passed, seconds, reached in ((0, 4.0, True), (1, 4.0, False), (0, 5.0, False)):
        pair = Pair(worked(seconds, passed=passed), worked(9.0))
        assert claim({"again": [pair]}, task, "a second run").reached is reached


def test_epochs_are_compared_by_the_image(task):
    ours = Result(epochs_s=[2.0], epoch_images=64)
    bare = Result(epochs_s=[2.0], epoch_images=70, numbers={"prefix_operations": 6.0, "suffix_operations": 1.0})
    off = Result(epochs_s=[6.0], epoch_images=64)
    runs = {"suffix": [Pair(bare, ours)], "not_cached": [Pair(off, ours)]}
    cached = claim(runs, task, "epochs of the two top stages")
    assert (cached.found, cached.bound, cached.reached) == ("3.00x", "3.00x by operations", True)
    assert claim(runs, task, "the same against a bare loop").found == "1.09x"
    assert ratio({"bare_full": [Pair(bare, ours)]}, FULL, "bare_full") == pytest.approx(64 / 70)


def test_what_was_not_run_is_not_claimed(task):
    assert {each.reached for each in check({}, task)} == {None}


def test_a_section_takes_the_place_of_its_older_self_and_leaves_others_alone(tmp_path):
    path = tmp_path / "RESULTS.md"
    write(path, "one", "first")
    write(path, "two", "second\n\n### within\n\nmore")
    write(path, "one", "third")
    assert path.read_text() == f"{HEADER}\n## one\n\nthird\n\n## two\n\nsecond\n\n### within\n\nmore\n"


def test_drawn_images_are_divided_with_both_classes_in_every_part(tmp_path):
    draw(tmp_path / "drawn", 24)
    splits = divide(str(tmp_path / "drawn"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 15, "val": 3, "test": 6}
    assert {label for _, label in splits["test"]} == {"plain", "scratched"}
    assert len({path for rows in splits.values() for path, _ in rows}) == 24


@pytest.mark.slow
def test_the_contestants_that_need_no_fastai_run(tmp_path):
    output = tmp_path / "RESULTS.md"
    command = [sys.executable, str(BENCHMARKS / "feature_cache.py"), "--quick", "--output", str(output)]
    command += ["--weights", "test_efficientnet", "--threads", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    text = output.read_text()
    for contest in CONTESTS:
        assert f"## {contest.title}: test_efficientnet, 96 drawn images, 64 px" in text
    assert "tl fit, head solved" in text
    assert "stock Lightning, at its defaults" in text
