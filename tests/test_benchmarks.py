"""The scripts whose numbers the documentation quotes run, and find what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def printed(script, *args):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / script), *args]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_runs_that_are_killed_and_resumed_end_bit_identical():
    shown = printed("kill_and_resume.py", "--runs", "3")
    assert "twice the same: True" in shown
    assert "3 of 3 bit-identical" in shown


@pytest.mark.slow
def test_the_solved_head_is_timed_and_its_memory_watched(tmp_path):
    output = tmp_path / "RESULTS.md"
    printed("solved_head.py", "--rows", "300,600", "--many", "3000", "--no_elpv", "--output", str(output))
    text = output.read_text()
    assert "## The solved head with many rows of width 1280" in text
    assert "| logistic, 45 strengths | 600 |" in text
    assert "## 3,000 rows of width 1280, from the disk" in text
    assert "| ridge, 41 strengths and leave-one-out: three passes |" in text


@pytest.mark.slow
def test_two_processes_train_one_model():
    shown = printed("several_processes.py")
    assert "with augmentation, BatchNorm that trains and an EMA: 0.0\n" in shown
    assert shown.endswith("resumed: the same to the last bit\n")


@pytest.mark.slow
def test_two_processes_are_pre_empted_and_go_on_bit_identical():
    assert "2 of 2 ended as they should" in printed("preemption.py", "--runs", "2", "--seed", "1")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes():
    assert printed("other_ranks.py").count("the same images in every step") == 2


@pytest.mark.slow
def test_processes_and_ways_to_train_are_timed_and_processes_change_nothing():
    small = ("--size", "32", "--batch", "8", "--steps", "4", "--rounds", "1")
    lines = printed("scaling.py", *small).splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["1 process, 1 thread", "1 process, 2 threads", "2 processes"]
    assert "waiting for others" in lines[2]
    assert lines[4].startswith("efficiency: ")
    assert float(lines[5].removeprefix("largest difference of the weights after 3 steps: ")) < 1e-9
    (_, row) = printed("scaling.py", *small, "--devices", "cpu", "--ways", "fp32").splitlines()
    assert row.startswith("fp32 ") and row.endswith("% of the bare loop")


@pytest.mark.slow
def test_the_loader_is_timed_with_every_number_of_workers_and_augmentation():
    shown = printed("images.py", "--quick")
    assert [line.split()[0] for line in shown.splitlines() if "workers  " in line] == ["0", "1", "2"]
    assert [line.split()[0] for line in shown.splitlines()[-6:]][0::5] == ["none", "trivial"]


@pytest.mark.slow
def test_planted_duplicates_are_found_and_no_others():
    shown = printed("leaks.py", "--quick")
    for row in (
        "│ same pixels        │ 12     │ 100.0% │ pixels 12",
        "│ mirrored or turned │ 12     │ 100.0% │ near 12",
    ):
        assert shown.count(row) == 2
    assert "│ crop 1" in shown
    assert shown.count("false alarms among 300 images: none") == 2


@pytest.mark.slow
def test_the_verdict_is_tried_on_simulated_cases():
    shown = printed("verdicts.py", "--cases", "3")
    assert "false alarms in 3 cases without a difference, 656 images" in shown
    assert "found of true differences, 3 cases each" in shown
    assert "95 % intervals of forecasts that hold the truth, 3 cases, 656 images" in shown
