"""Pre-empts runs of two processes at random moments, resumes them, and compares them with one that was left alone.

    uv run python benchmarks/preemption.py --runs 10

As a cluster does, SIGUSR1 comes to all processes at once, or at slightly different moments, or to one alone; all of
them have to end with exit code 138 and ``interrupted`` in the summary, and the resumed run has to end with the same
weights, optimizer, schedule and rows to the last bit. Then SIGTERM (143), and SIGKILL of one process: how long until
the other ends. Runs on CPUs (gloo), in forked children, since importing takes longer than the runs.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from kill_and_resume import CONFIG, compare, write_images

from tl_lightning.cli import main as tl
from tl_lightning.experiment.experiment import resume  # noqa: F401 - imported here, it need not be in every child

TIMEOUT = 240.0  # seconds after which a run counts as hanging
EPOCHS = {"trainer": {"max_epochs": 8, "accelerator": "cpu", "devices": 2}}
CODES = {signal.SIGUSR1: 138, signal.SIGTERM: 143, signal.SIGKILL: 1}


def start(*args: str, log: str) -> list[int]:
    """Starts ``tl`` as two processes that a cluster's launcher would start: neither knows the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in ("0", "1"):
        child = os.fork()
        if child:
            started.append(child)
            continue
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", NODE_RANK="0")
        os.environ.update(RANK=rank, LOCAL_RANK=rank)
        sink = os.open(f"{log}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        code = 1
        try:
            code = tl(list(args))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return started


def ended(processes: list[int]) -> list[int | str]:
    """The exit codes; ``hung`` for what had to be killed."""
    codes: list[int | str] = []
    deadline = time.monotonic() + TIMEOUT
    for process in processes:
        while not (found := os.waitpid(process, os.WNOHANG))[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        if found[0]:
            codes.append(os.waitstatus_to_exitcode(found[1]))
        else:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            codes.append("hung")
    return codes


def finish(*args: str, log: str) -> float:
    """Runs ``tl`` to its end; gives the seconds that it took."""
    begun = time.monotonic()
    codes = ended(start(*args, log=log))
    if codes != [0, 0]:
        sys.exit(f"tl {' '.join(args)} ended with {codes}:\n{Path(f'{log}-0.log').read_text()[-3000:]}")
    return time.monotonic() - begun


def status(run: str) -> str:
    """What the summary says; empty where there is none."""
    summary = Path(run, "summary.json")
    return str(json.loads(summary.read_text())["status"]) if summary.is_file() else ""


def where(run: str, log: str) -> str:
    """What the run was doing, by what it left behind."""
    if not Path(run, "config.yaml").is_file():
        return "starting"
    if not Path(run, "checkpoints", "last.ckpt").is_file():
        return "preparing"
    said = Path(f"{log}-0.log").read_text(errors="replace").splitlines()
    return next((line.split(",")[0] for line in reversed(said) if line.startswith(("epoch", "phase"))), "training")


def pre_empt(run: str, args: list[str], signum: int, to: str, moment: float) -> tuple[str, list[int | str], float]:
    """Starts a run and ends it by a signal.

    Returns:
        Where it was, the exit codes, and the seconds until all had ended.
    """
    processes = start(*args, log=run)
    time.sleep(moment)
    place = where(run, run)
    targets = {"both": [0, 1], "apart": [0, 1], "first": [0], "second": [1]}[to]
    for target in targets:
        os.kill(processes[target], signum)  # until it is waited for, there is somebody to hear it
        if to == "apart":
            time.sleep(0.1)
    begun = time.monotonic()
    codes = ended(processes)
    return place, codes, time.monotonic() - begun


def main() -> int:
    """Prints a line per run, and how many were the same; exits with 1 if one was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a child that is forked cannot use its parent's threads
    dice = random.Random(options.seed)
    same = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["TL_CACHE_DIR"] = f"{folder}/cache"
        write_images(Path("images"))
        Path("run.yaml").write_text(json.dumps(CONFIG))
        Path("two.yaml").write_text(json.dumps(EPOCHS))
        fit = ["fit", "--config", "run.yaml", "--config", "two.yaml"]
        seconds = finish(*fit, "--run_dir", "whole", log="whole")
        print(f"left alone: {seconds:.0f} s", flush=True)
        print(f"{'':>3}  {'signal':8} {'to':7} {'after':>6}  {'where':24} {'codes':12} {'ended in':>8}  resumed")
        for number in range(1, options.runs + 1):
            run, args = f"run-{number}", [*fit, "--run_dir", f"run-{number}"]
            last = options.runs - number
            signum = signal.SIGKILL if last == 0 else signal.SIGTERM if last == 1 else signal.SIGUSR1
            to = "second" if last == 0 else dice.choice(("both", "both", "apart", "first", "second"))
            # Before the handler is there nobody could note anything; and who is alone when another is lost at the start
            # waits for it until the rendezvous's time is over.
            moment = dice.uniform(0.55 if last == 0 or to in ("first", "second") else 0.1, 0.95) * seconds
            place, codes, took = pre_empt(run, args, signum, to, moment)
            wanted: list[int | str] = [CODES[signum]] * 2 if signum != signal.SIGKILL else [1, -9]
            # The first process needs the second no more once it writes what came of the run.
            completed = codes[0] == 0 and status(run) == "completed"
            said = "completed before" if completed else ""
            if codes != wanted and not completed:
                said = f"expected {wanted}, {status(run)}"
            elif not completed and Path(run, "config.yaml").is_file():
                finish("resume", "--run_dir", run, log=run)
            elif not completed:  # nothing had been made
                finish(*args, log=run)
            found = [said] if said.startswith("expected") else compare(Path("whole"), Path(run))
            same += not found
            told = said or ("the same" if not found else str(found[:4]))
            name = signal.Signals(signum).name
            timed = f"{moment:5.1f}s  {place:24} {codes!s:12} {took:7.1f}s"
            print(f"{number:>3}  {name:8} {to:7} {timed}  {told}", flush=True)
    print(f"{same} of {options.runs} ended as they should and bit-identical to the run that was left alone")
    return int(same < options.runs)


if __name__ == "__main__":
    sys.exit(main())
