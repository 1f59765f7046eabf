"""What every contestant measures, in the same way, and how it reports it."""

import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from peers.task import Task

MARK = "measured: "
PACKAGES = ("tl_lightning", "torch", "torchvision", "timm", "lightning", "fastai")


@dataclass
class Result:
    """What one run of a contestant took and reached.

    Attributes:
        startup_s: From the start of the process until everything is imported.
        work_s: From there until the trained model is validated: reading images, building the model, every epoch.
        parts: Seconds of `work_s` by name; they need not add up to it.
        epochs_s: Seconds of each training epoch without its validation.
        epoch_images: Images that an epoch trains on.
        passed: Images that went through the first layer of the backbone until `work_s` was over; -1 if not counted.
        peak_mib: Largest resident memory of the process until then, files that are mapped included; its workers' not.
        val_accuracy: At the end, on the validation split; `None` where nothing is learned.
        accuracy: On the test split, which no contestant saw.
        macro_f1: Likewise.
        numbers: Further numbers by name.
        versions: Of the packages that are installed.
    """

    startup_s: float = 0.0
    work_s: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    epochs_s: list[float] = field(default_factory=list)
    epoch_images: int = 0
    passed: int = -1
    peak_mib: float = 0.0
    val_accuracy: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def epoch_s(self) -> float | None:
        """The median epoch; `None` where there were none."""
        return statistics.median(self.epochs_s) if self.epochs_s else None

    @property
    def rate(self) -> float | None:
        """Images per second of the median training epoch."""
        return self.epoch_images / self.epoch_s if self.epoch_s else None


class Attempt:
    """A contestant's run under way; made once everything is imported.

    The process is started as ``python -m peers.NAME FOLDER STARTED [WORD ...]``, where STARTED is the reading of the
    system's monotonic clock at that moment.

    Attributes:
        task: What to do.
        words: Which of the ways that the contestant knows.
        result: Filled in on the way.
    """

    def __init__(self) -> None:
        folder, started, *self.words = sys.argv[1:]
        self.task = Task.read(Path(folder))
        torch.set_num_threads(self.task.threads)
        torch.manual_seed(self.task.seed)
        self.result = Result(startup_s=time.monotonic() - float(started), versions=_versions())
        self._begun = now()

    def restart(self) -> None:
        """Leaves out of the work what has been done so far."""
        self._begun = now()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times a part of the work."""
        begun = now()
        yield
        self.result.parts[name] = self.result.parts.get(name, 0.0) + now() - begun

    def done(self) -> None:
        """Ends the work; what comes after it is not counted."""
        self.result.work_s = now() - self._begun
        self.result.peak_mib = peak_memory()

    def report(self, predicted: Sequence[int] | None = None) -> None:
        """Prints the line that the benchmark reads.

        Args:
            predicted: Class of each test image, in order; `None` where nothing was learned.
        """
        if predicted is not None:
            truth = self.task.labels("test")
            self.result.accuracy, self.result.macro_f1 = scores(truth, predicted, classes=len(self.task.classes))
        print(MARK + json.dumps(asdict(self.result)), flush=True)


def now() -> float:
    """Seconds, once a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> float:
    """The largest resident memory of this process so far, in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def scores(truth: Sequence[int], predicted: Sequence[int], *, classes: int) -> tuple[float, float]:
    """Accuracy and macro F1; a class that is neither there nor predicted counts as 0.

    Args:
        truth: The class of each image.
        predicted: What was answered.
        classes: How many there are.
    """
    if len(truth) != len(predicted):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} images")
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (np.asarray(truth), np.asarray(predicted)), 1)
    hits = np.diag(confusion)
    f1 = 2 * hits / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    return float(hits.sum() / max(len(truth), 1)), float(f1.mean())


def parse(output: str) -> Result | None:
    """Reads the result out of what a contestant printed; `None` if there is none."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    return Result(**json.loads(lines[-1].removeprefix(MARK))) if lines else None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
