"""The tables for the terminal and for ``RESULTS.md``."""

import os
import platform
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.table import Table

from peers.claims import Claim, Runs, bound, ratio
from peers.contestants import Contest, Contestant
from peers.measure import Result
from peers.task import Task

COLUMNS = (
    "contestant",
    "work s",
    "start-up s",
    "images/s",
    "peak MiB",
    "test accuracy",
    "macro F1",
    "x ours",
    "x limit",
)
HEADER = """# Measured side by side

Written by `benchmarks/feature_cache.py` and `benchmarks/solved_head.py`; nothing here is edited by hand. In the first,
every contestant runs in a process of its own, one after the other, ours right before each of the others, with the same
files, weights, split, preparation, batch size, epochs and number of threads, and no augmentation.

- **work**: from the end of the imports until the trained model is validated: reading and decoding images, building
  the model, every epoch and its validation. The limit's alone leaves out building the model.
- **start-up**: the imports. **images/s**: of the median training epoch, without its validation.
- **peak**: of the process's resident memory, mapped files included, worker processes not.
- **accuracy** and **macro F1** are of test images that nobody saw; scoring them is not part of the work.
- **x ours**: how many times as long, by the median over pairs of neighbouring runs; **x limit**: by the medians.
- **passes**: what arithmetic sets: forward passes of each image through the backbone. In fastai and Lightning's
  `BackboneFinetuning` a frozen backbone's BatchNorm trains by default, which pulls the gradient through all layers and
  costs about one pass more.
- Several runs show the median and, in brackets, the range.
"""


def rows(contest: Contest, runs: Runs, task: Task) -> list[list[str]]:
    """A contest's table, one list of cells for each contestant that took part."""
    found = []
    limit = [contest.seconds(pair.result) for pair in runs.get(contest.contestants[1].key, [])]
    for contestant in contest.contestants:
        results = [pair.result for pair in runs.get(contestant.key, [])]
        if not results:
            continue
        times, passes = ratio(runs, contest, contestant.key), bound(contestant, task)
        to_limit = statistics.median(map(contest.seconds, results)) / statistics.median(limit) if limit else None
        found.append(
            [
                contestant.label.format(fast=arithmetic(task)),
                _spread(results, lambda result: result.work_s, ".1f"),
                _spread(results, lambda result: result.startup_s, ".0f"),
                _spread(results, lambda result: result.rate, ".0f"),
                _spread(results, lambda result: result.peak_mib, ".0f"),
                _spread(results, lambda result: result.accuracy, ".3f"),
                _spread(results, lambda result: result.macro_f1, ".3f"),
                "" if times is None else f"{times:.2f}",
                "" if to_limit is None else f"{to_limit:.2f}",
                "" if passes is None else f"{passes:.3g}",
            ]
        )
    return found


def columns(contest: Contest) -> list[str]:
    """The heads of a contest's table."""
    passes = ["passes"] if any(contestant.passes for contestant in contest.contestants) else []
    return [*COLUMNS[:-2], *(f"{name}, {contest.unit}" for name in COLUMNS[-2:]), *passes]


def show(contest: Contest, runs: Runs, task: Task) -> Table:
    """A contest's table for the terminal."""
    table = Table(title=contest.title)
    for place, name in enumerate(columns(contest)):
        table.add_column(name, justify="right" if place else "left")
    for cells in rows(contest, runs, task):
        table.add_row(*cells[: len(table.columns)])
    return table


def show_claims(claims: Sequence[Claim]) -> Table:
    """The table of claims for the terminal."""
    table = Table("claim", "to reach", "found", "bound", "", title="Claims")
    for claim in claims:
        table.add_row(claim.text, claim.target, claim.found, claim.bound, verdict(claim))
    return table


def verdict(claim: Claim) -> str:
    """In words."""
    return "not measured" if claim.reached is None else "reached" if claim.reached else "NOT reached"


def section(contest: Contest, runs: Runs, claims: Sequence[Claim], *, task: Task, about: str) -> str:
    """The part of ``RESULTS.md`` about one contest, without its heading.

    Args:
        contest: Which.
        runs: Its results, among others.
        claims: All that were checked.
        task: What the contestants were given.
        about: What was run, in Markdown.
    """
    versions = runs[contest.contestants[0].key][0].result.versions
    lines = [about, "", f"Machine: {machine()}, {task.threads} threads; {arithmetic(task)} where it says so.  "]
    lines += ["Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()), ""]
    lines += [*markdown(columns(contest), rows(contest, runs, task)), "", *_parts(contest, runs), ""]
    own = [claim for claim in claims if claim.contest == contest.key and claim.reached is not None]
    body = [[claim.text, claim.target, claim.found, claim.bound, verdict(claim)] for claim in own]
    return "\n".join([*lines, *markdown(["claim", "to reach", "found", "bound", ""], body)])


def write(path: Path, name: str, text: str) -> None:
    """Puts a section in the place of an older one of its name, or at the end; others stay as they are.

    Args:
        path: The file, made if need be.
        name: Heading of the section.
        text: Its body.
    """
    whole = path.read_text(encoding="utf-8") if path.is_file() else HEADER
    head, *old = re.split(r"(?m)^(?=## )", whole)
    sections = {part.partition("\n")[0].removeprefix("## "): part.rstrip() for part in old}
    sections[name] = f"## {name}\n\n{text}"
    head = HEADER if head.startswith(HEADER.partition("\n")[0]) else head
    path.write_text("\n\n".join([head.rstrip(), *sections.values()]) + "\n", encoding="utf-8")


def arithmetic(task: Task) -> str:
    """What the fast variants do."""
    return "bf16 + channels_last" if task.reduced else "channels_last (bf16 is only emulated here)"


def machine() -> str:
    """The processor, its cores and memory, and the GPU if there is one."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    name = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB{gpu}"


def _parts(contest: Contest, runs: Runs) -> list[str]:
    """Where the time of each contestant goes: medians of the parts that it names."""
    lines = []
    for contestant in contest.contestants:
        results = [pair.result for pair in runs.get(contestant.key, [])]
        names = results[0].parts if results else {}
        spent = ", ".join(f"{name} {statistics.median(each.parts[name] for each in results):.1f}" for name in names)
        if spent:
            lines.append(f"- {_short(contestant)}: {spent} s")
    return lines


def _short(contestant: Contestant) -> str:
    return contestant.label.replace("{fast}", "fast")


def _spread(results: Sequence[Result], number: Callable[[Result], float | None], style: str) -> str:
    values = [value for result in results if (value := number(result)) is not None]
    if not values:
        return ""
    middle, low, high = (f"{value:{style}}" for value in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"


def markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table of which all columns but the first are numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *body]
    return ["| " + " | ".join(cells[: len(heads)]) + " |" for cells in lines]
