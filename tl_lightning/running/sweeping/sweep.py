"""``tl sweep``: starts workers, shows what they do, and says in the end what came out."""

import hashlib
import importlib.util
import json
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live

from tl_lightning.core.console import console
from tl_lightning.core.files import user_path
from tl_lightning.core.options import OptionParser
from tl_lightning.core.processes import work_alone
from tl_lightning.core.run_folder import RunFolder, open_folder
from tl_lightning.errors import UserError
from tl_lightning.running.sweeping.best import best_trial, write_best
from tl_lightning.running.sweeping.crew import Crew
from tl_lightning.running.sweeping.importance import importance
from tl_lightning.running.sweeping.parameters import grid_size
from tl_lightning.running.sweeping.report import write_report
from tl_lightning.running.sweeping.summary import write_summary
from tl_lightning.running.sweeping.sweep_file import SweepFile, read_sweep
from tl_lightning.running.sweeping.table import finished_line, render
from tl_lightning.running.sweeping.trials import Trial

if TYPE_CHECKING:
    from tl_lightning.running.sweeping.search import Search

LOOK = 0.5  # seconds between two looks at the journal
FAILED = 1  # exit code
ENDED = ("completed", "stopped", "failed")
MADE = ("sweep.yaml", ".sweep.yaml", "trials", "leases", "workers")  # what the folder of a sweep may hold


def sweep_command(args: list[str]) -> int:
    """``tl sweep``: runs a W&B sweep file on this machine, or on several that share a folder, with no account.

    Args:
        args: The file, and options.

    Returns:
        The exit code: 0, or 1 where no trial came to its end, or some were not run.

    Raises:
        UserError: If the file or an option is wrong.
    """
    parser = OptionParser(
        "sweep",
        "Runs a W&B sweep file with no account: a grid, random or Bayesian search, weak trials ended early. "
        "Interrupted, the same command with its --run_dir goes on; started on several machines with one --storage in "
        "a folder that they share, all take part.",
    )
    parser.add_argument("file", help="such as sweeps/elpv.yaml")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time here (default: %(default)s)")
    parser.add_argument("--run_dir", help="the folder for the trials; by default a new runs/<sweep>-sweep-<n>")
    parser.add_argument("--storage", help="the journal that several machines share; its folder is that of the sweep")
    parser.add_argument("--run_cap", type=int, help="trials in all, instead of the file's run_cap")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    known = parser.parse_args(args)
    summary = sweep(
        known.file,
        workers=known.workers,
        run_dir=known.run_dir,
        storage=known.storage,
        run_cap=known.run_cap,
        seed=known.seed,
    )
    ended = sum(trial["state"] in ENDED for trial in summary["trials"])
    return 0 if summary["best"] is not None and ended >= summary["planned"] else FAILED


def sweep(
    file: str | Path,
    *,
    workers: int = 1,
    run_dir: str | None = None,
    storage: str | None = None,
    run_cap: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Runs the trials of a sweep that are missing, and writes what came out into its folder.

    Args:
        file: A W&B sweep file.
        workers: Trials at a time on this machine, 1 or more.
        run_dir: The folder for the trials; `None` for a new one.
        storage: The journal that several machines share, in a folder of the sweep's own; instead of ``run_dir``.
        run_cap: Trials in all; `None` for what the file says.
        seed: Decides what is drawn.

    Returns:
        What the folder's ``summary.json`` holds.

    Raises:
        UserError: If the file or an argument is wrong, or the folder holds something else.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("tl sweep needs Optuna: pip install 'tl_lightning[sweep]'")
    work_alone()
    for name, value in (("workers", workers), ("run_cap", 1 if run_cap is None else run_cap)):
        if value < 1:
            raise UserError(f"--{name} is {value}; it must be 1 or more")
    asked = read_sweep(file)
    planned = plan(asked, run_cap)
    journal = _open(asked, run_dir=run_dir, storage=storage, seed=seed)
    from tl_lightning.running.sweeping.search import Search

    search = Search(asked, journal, planned=planned, seed=seed)
    console.print(f"sweep      {asked.name}: {planned} trials, {asked.method}, {asked.goal} {asked.metric}")
    console.print(f"folder     {journal.parent}")
    with Crew(journal, workers=workers, planned=planned, seed=seed) as crew:
        try:
            _follow(asked, search, crew, planned)
        except KeyboardInterrupt:
            where = f"--storage {storage}" if storage is not None else f"--run_dir {journal.parent}"
            console.print(f"interrupted; the same tl sweep with {where} goes on with what is there")
            raise
    for log, line in crew.crashes().items():
        console.print(f"caution    a worker ended: {line} ({log})", style="yellow")
    return _conclude(asked, search.trials(), journal.parent, planned)


def plan(asked: SweepFile, run_cap: int | None) -> int:
    """How many trials a sweep has.

    Args:
        asked: The sweep.
        run_cap: Instead of the file's.

    Raises:
        UserError: If it would never end.
    """
    cap = asked.run_cap if run_cap is None else run_cap
    if asked.method == "grid":
        return min(grid_size(asked.parameters), cap or sys.maxsize)
    if cap is None:
        raise UserError(f"{asked.path}: {asked.method} search has no end of its own; add run_cap: 20, or --run_cap 20")
    return cap


def _open(asked: SweepFile, *, run_dir: str | None, storage: str | None, seed: int) -> Path:
    """Makes the sweep's folder, or finds it; gives the journal's path."""
    if storage is not None and run_dir is not None:
        raise UserError("--storage and --run_dir both name the sweep's folder; give one of them")
    if storage is not None and (user_path(storage).is_dir() or storage.endswith("/")):
        raise UserError(
            f"--storage {storage} is a folder; name the journal in it, such as {storage.rstrip('/')}/journal.log"
        )
    name = "journal.log" if storage is None else user_path(storage).name
    folder = open_folder(
        run_dir if storage is None else str(user_path(storage).parent),
        command="sweep",
        what="sweep",
        recipe=f"{asked.text.rstrip()}\n# --seed {seed}\n" + "".join(map(_digest, asked.configurations)),
        name=re.sub(r"[^\w.-]+", "-", asked.name).strip(".-") or "sweep",
        part=(name, *MADE),
        option="--run_dir" if storage is None else "the folder of --storage",
    )
    return folder / name


def _digest(path: Path) -> str:
    """A line that changes with a configuration, which all trials of a sweep have to share."""
    return f"# {path}: {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}\n"


def _follow(asked: SweepFile, search: "Search", crew: Crew, planned: int) -> None:
    """Shows the trials until the workers have ended."""
    known = {trial.number for trial in search.trials() if trial.state in ENDED}
    if known:
        console.print(f"going on   {len(known)} trials have ended already")
    with Live(console=console, transient=True, auto_refresh=False) as live:
        working = True
        while working:
            working = crew.is_working()  # asked first, so that the last trials are seen
            trials = search.trials()
            for trial in trials:
                if trial.number not in known and trial.state in ENDED:
                    known.add(trial.number)
                    if not console.is_terminal:
                        console.print(finished_line(asked, trial, best_trial(asked, trials)))
            if console.is_terminal:
                live.update(render(asked, trials, planned=planned), refresh=True)
            if working:
                time.sleep(LOOK)


def _conclude(asked: SweepFile, trials: list[Trial], folder: Path, planned: int) -> dict[str, Any]:
    """Scores the best trial on the test split, writes the report, and says what came out."""
    if (missing := planned - sum(trial.state in ENDED for trial in trials)) > 0:
        console.print(
            f"caution    {missing} of {planned} trials are missing; the same command goes on with them", style="yellow"
        )
    weights, best = importance(asked, trials), best_trial(asked, trials)
    if best is not None:
        _test(best.folder)
        file = write_best(asked, best, folder)
        console.print(f"best       {finished_line(asked, best, None)}")
        console.print(f"again      tl fit --config {file}")
    else:
        failed = next((trial for trial in trials if trial.state == "failed"), None)
        why = "" if failed is None else f": {failed.error} ({failed.folder.with_suffix('.log')})"
        console.print(f"no trial came to its end{why}", style="red")
    page = write_report(asked, trials, folder, importance=weights)
    console.print(f"report     {page}")
    summary: dict[str, Any] = json.loads(
        write_summary(asked, trials, folder, planned=planned, importance=weights).read_text(encoding="utf-8")
    )
    return summary


def _test(run_dir: Path) -> None:
    """Scores one run on its test split, if there is one: of all trials only the best, whose choice is made."""
    folder = RunFolder(run_dir)
    summary = folder.summary
    if summary["test"] is not None or not summary["data"]["test"]:
        return
    scored = run_dir.with_name(f".{run_dir.name}-{secrets.token_hex(4)}.json")  # several machines may end at once
    log = run_dir.with_suffix(".log")
    command = [sys.executable, "-m", "tl_lightning", "test", "--run_dir", str(run_dir), "--output", str(scored)]
    with console.status("testing the best"), log.open("ab") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if ended.returncode or not scored.is_file():
        console.print(f"caution    the best trial could not be tested ({log})", style="yellow")
        return
    scores = json.loads(scored.read_text(encoding="utf-8"))
    ledger = {**summary["ledger"], "tested": summary["data"]["test"]}
    folder.write_summary({**summary, **scores, "ledger": ledger})
    scored.unlink()
