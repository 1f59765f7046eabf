"""Has a SLURM cluster pre-empt jobs at random moments, and compares what they end with to a run that was left alone.

    uv run python benchmarks/preemption_on_slurm.py --runs 10

Each job is one `tl submit` of two nodes. It gets SIGUSR1 at a random moment since it began to run, the import of torch
and the rendezvous included, ends, is queued again by its own script, and has to complete with the same weights,
optimizer, schedule and rows to the last bit. To be run where `tl submit` runs, in a folder that the nodes share.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from kill_and_resume import CONFIG, compare, write_images

TIMEOUT = 600.0  # seconds after which a job counts as hanging
ENDED = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE"}


def ask(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def submit(run: str) -> str:
    """Queues a run on two nodes, and gives the job's number."""
    tl = [sys.executable, "-m", "tl_lightning", "submit", "slurm", "--nodes", "2", "--time", "30", "--job_name", run]
    said = ask(*tl, "--", "fit", "--config", "run.yaml", "--config", "longer.yaml", "--run_dir", run)
    found = re.search(r"scancel (\d+) ends", said)
    assert found is not None, said
    return found[1]


def look(job: str) -> tuple[str, int]:
    """The state of a job, and how often it was queued again."""
    shown = ask("scontrol", "show", "job", "--oneliner", job)
    words = dict(word.split("=", 1) for word in shown.split() if "=" in word)
    return words["JobState"], int(words["Restarts"])


def wait(job: str, *, running: bool = False) -> tuple[str, float]:
    """Waits until a job runs, or else until it has ended; gives its state and the seconds that this took."""
    begun = time.monotonic()
    while (state := look(job)[0]) not in ENDED and not (running and state == "RUNNING"):
        if time.monotonic() - begun > TIMEOUT:
            ask("scancel", job)
            return "hung", TIMEOUT
        time.sleep(0.2)
    return state, time.monotonic() - begun


def pre_empt(run: str, moment: float) -> tuple[bool, str]:
    """Submits a run that is pre-empted once.

    Returns:
        Whether it ended as it should, and what became of it in words.
    """
    job = submit(run)
    if wait(job, running=True)[0] != "RUNNING":
        return False, "never ran"
    time.sleep(moment)
    ask("scancel", "--signal=USR1", job)
    begun = time.monotonic()
    while not look(job)[1] and look(job)[0] not in ENDED and time.monotonic() - begun < TIMEOUT:
        time.sleep(0.2)
    ended = time.monotonic() - begun
    state, _ = wait(job)
    log = Path(f"slurm/{run}-{job}.log").read_text()
    if state != "COMPLETED":
        return False, f"{state}: {log[-2000:]}"
    if look(job)[1] != 1:
        return False, f"queued again {look(job)[1]} times: {log[-2000:]}"
    gone_on = re.findall(r"^resuming +(.*)", log, re.MULTILINE)
    place = gone_on[0] if gone_on else "before there was a checkpoint"
    found = compare(Path("whole"), Path(run))
    return not found, f"queued again in {ended:4.1f} s, {place}: {'the same' if not found else found[:4]}"


def main() -> int:
    """Prints a line per run, and how many were the same; exits with 1 if one was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=80, help="long enough beside the start (default: %(default)s)")
    parser.add_argument("--at_once", type=int, default=2, help="jobs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        os.chdir(folder)
        os.environ["TL_CACHE_DIR"] = f"{folder}/cache"
        write_images(Path("images"))
        Path("run.yaml").write_text(json.dumps(CONFIG))
        longer = {"early_stopping": {"patience": 1000}, "trainer": {"max_epochs": options.epochs, "accelerator": "cpu"}}
        Path("longer.yaml").write_text(json.dumps(longer))
        job = submit("whole")
        wait(job, running=True)
        state, seconds = wait(job)
        if state != "COMPLETED":
            sys.exit(f"{state}: {Path(f'slurm/whole-{job}.log').read_text()}")
        print(f"left alone: {seconds:.0f} s", flush=True)
        moments = [dice.uniform(0.1, 0.9) * seconds for _ in range(options.runs)]
        names = [f"run-{number}" for number in range(1, options.runs + 1)]
        same = 0
        with ThreadPoolExecutor(options.at_once) as pool:
            for name, moment, (well, told) in zip(names, moments, pool.map(pre_empt, names, moments), strict=True):
                same += well
                print(f"{name:>6}  SIGUSR1 after {moment:4.1f} s, {told}", flush=True)
    print(f"{same} of {options.runs} bit-identical to the run that was left alone")
    return int(same < options.runs)


if __name__ == "__main__":
    sys.exit(main())
