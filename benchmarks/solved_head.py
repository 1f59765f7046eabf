"""The solved head: beside scikit-learn on ELPV's features, and in memory and time as the rows become many.

    uv run python benchmarks/solved_head.py
    uv run python benchmarks/solved_head.py --rows 2000,20000 --many 0

Writes its sections of ``benchmarks/RESULTS.md``. With a million rows it needs 5 GB on the disk for a while.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from peers import results
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from tl_lightning.core.console import console
from tl_lightning.core.quiet import quiet
from tl_lightning.data.cached import CachedDataset
from tl_lightning.data.dataset import Targets
from tl_lightning.data.loader import as_it_is
from tl_lightning.data.sampling import EpochSampler
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.feature_cache.activation_store import ActivationStore, TensorLayout
from tl_lightning.feature_cache.extractor import Extractor, below
from tl_lightning.probe import STRENGTHS, Features, logistic_path, ridge_classifier, score_path

HERE = Path(__file__).parent
WIDTH = 1280
CHUNK = 8192  # rows that are drawn at once
EPOCH_BATCH = 256


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="2000,20000,200000", help="sizes at which memory is watched; empty for none")
    parser.add_argument("--many", type=int, default=1_000_000, help="rows that are streamed from the disk; 0 for none")
    parser.add_argument("--no_elpv", action="store_true", help="leaves the comparison with scikit-learn out")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--watch", nargs=3, metavar=("SOLVER", "ROWS", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        solver, rows, cache = options.watch
        os.environ["TL_CACHE_DIR"] = cache
        print(json.dumps(watch(solver, int(rows))))
        return
    quiet()
    if not options.no_elpv:
        write(options.output, "The solved head beside scikit-learn: lite0, ELPV, 224 px", beside_scikit_learn())
    if options.rows:
        sizes = [int(size) for size in options.rows.split(",")]
        write(options.output, f"The solved head with many rows of width {WIDTH}", growing(sizes))
    if options.many:
        write(options.output, f"{options.many:,} rows of width {WIDTH}, from the disk", streamed(options.many))


def write(path: Path, name: str, table: Table) -> None:
    """Shows a table, and puts it into the file of results."""
    console.print(table)
    heads = [str(column.header) for column in table.columns]
    body = list(zip(*(column.cells for column in table.columns), strict=True))
    command = shlex.join(["python", "benchmarks/solved_head.py", *sys.argv[1:]])
    lines = [f"`{command}`", "", f"Machine: {results.machine()}, {torch.get_num_threads()} threads.", ""]
    lines += results.markdown(heads, [[str(cell) for cell in row] for row in body])
    results.write(path, name, "\n".join(lines))


# ELPV, beside scikit-learn


def beside_scikit_learn() -> Table:
    """Solves the same 45 problems with both."""
    with tempfile.TemporaryDirectory() as folder:
        training, labels, held_out, targets = elpv_features(Path(folder))
    begun = time.perf_counter()
    path = logistic_path(training, labels, classes=2)
    scores = score_path(path, held_out, targets)
    ours = time.perf_counter() - begun
    mean, scale = training.double().mean(0), training.double().std(0, correction=0)
    prepared, held = ((rows.double() - mean) / scale for rows in (training, held_out))
    table = Table(title="45 strengths of logistic regression on the features of ELPV")
    for name in ("", "seconds", "objective over the least", "chosen C", "validation loss", "validation accuracy"):
        table.add_column(name)
    paths = {"tl_lightning": (ours, path.objectives, scores.losses)}
    accuracies = {next(iter(paths)): scores.accuracies}
    for title, settings in (
        ("scikit-learn, lbfgs at its default tolerance, warm-started", {"tol": 1e-4, "warm_start": True}),
        ("scikit-learn, newton-cholesky to 1e-10", {"solver": "newton-cholesky", "tol": 1e-10}),
    ):
        seconds, objectives, losses, right = by_scikit_learn(prepared, labels, held, targets, settings)
        paths[title] = (seconds, objectives, losses)
        accuracies[title] = right
    least = torch.stack([objectives for _, objectives, _ in paths.values()]).min(0).values
    for title, (seconds, objectives, losses) in paths.items():
        above = float(((objectives - least) / least).max())  # at the strength where it is largest
        chosen = int(losses.argmin())
        cells = [f"{seconds:.1f}", f"{above:.1e}", f"{STRENGTHS[chosen]:.2g}", f"{losses[chosen]:.4f}"]
        table.add_row(title, *cells, f"{accuracies[title][chosen]:.4f}")
    return table


def elpv_features(cache: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features and labels of the training and the validation images, as ``tl fit`` caches them."""
    os.environ["TL_CACHE_DIR"] = str(cache)
    configuration = Configuration(["--config", str(HERE.parent / "configs/elpv_feature_extraction.yaml")], folder=None)
    task, data = configuration.model, configuration.datamodule
    data.prepare_data()
    data.setup("fit")
    extractor = Extractor(task, data, configuration.trainer)
    part = below(task.transferred, len(task.stages))
    wanted = [(data.plain_view, np.union1d(data.splits["train"], data.splits["val"]))]
    (store,) = extractor.extract(part, wanted).values()
    labels = torch.from_numpy(data.samples.labels)
    train, val = data.splits["train"], data.splits["val"]
    return store.read(train)[0].float(), labels[train], store.read(val)[0].float(), labels[val]


def by_scikit_learn(
    features: Tensor, labels: Tensor, held_out: Tensor, targets: Tensor, settings: dict[str, object]
) -> tuple[float, Tensor, Tensor, Tensor]:
    """Seconds, objectives, validation losses and accuracies of every strength, on standardised features."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=10_000, **settings)
    objectives, losses, right, seconds = [], [], [], 0.0
    for strength in STRENGTHS:
        model.C = strength
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge is seen in the objective
            model.fit(features.numpy(), labels.numpy())
        seconds += time.perf_counter() - begun
        weights, bias = torch.from_numpy(model.coef_[0]), float(model.intercept_[0])
        loss = functional.binary_cross_entropy_with_logits(features @ weights + bias, labels.double())
        objectives.append(loss + weights.square().sum() / (2 * strength * len(labels)))
        logits = held_out @ weights + bias
        losses.append(functional.binary_cross_entropy_with_logits(logits, targets.double()))
        right.append(((logits > 0) == targets.bool()).double().mean())
    return seconds, torch.stack(objectives), torch.stack(losses), torch.stack(right)


# Memory and time


def growing(sizes: list[int]) -> Table:
    """Solves ever more rows, each in a process of its own."""
    table = Table(title="Anonymous memory and time as the rows become more")
    for name in ("solver", "rows", "seconds", "microseconds a row", "peak RssAnon, MiB", "by the smallest"):
        table.add_column(name)
    for solver in ("logistic, 45 strengths", "ridge, 41 strengths"):
        first = None
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder:
                draw(Path(folder), rows)
                found = elsewhere(solver.partition(",")[0], rows, folder)
            first = first or found["anon_mib"]
            per_row = 1e6 * found["seconds"] / rows
            cells = [f"{found['seconds']:.1f}", f"{per_row:.0f}", f"{found['anon_mib']:.0f}"]
            table.add_row(solver, f"{rows:,}", *cells, f"{found['anon_mib'] / first:.2f}")
    return table


def streamed(rows: int) -> Table:
    """Goes through rows that are not in the system's cache, by ridge and by an epoch of SGD."""
    table = Table(title="From the disk")
    for name in ("what", "seconds", "MiB/s", "by the disk", "peak RssAnon, MiB"):
        table.add_column(name)
    with tempfile.TemporaryDirectory() as folder:
        store = draw(Path(folder), rows)
        file = store.folder / "tensor0.bin"
        size = file.stat().st_size / 2**20
        forget(file)
        disk = size / read_through(file)
        table.add_row("reading the file once, in order", f"{size / disk:.1f}", f"{disk:.0f}", "1.00", "")
        for solver, title, passes in (
            ("moments", "mean and deviation of the columns, as the solvers read", 1),
            ("ridge", "ridge, 41 strengths and leave-one-out: three passes", 3),
            ("epoch", f"one epoch of SGD, batches of {EPOCH_BATCH} in a shuffled order", 1),
        ):
            forget(file)
            found = elsewhere(solver, rows, folder)
            rate = passes * size / found["seconds"]
            cells = [f"{found['seconds']:.1f}", f"{rate:.0f}", f"{rate / disk:.2f}", f"{found['anon_mib']:.0f}"]
            table.add_row(title, *cells)
    return table


def opened(rows: int) -> ActivationStore:
    """The store of the drawn rows."""
    return ActivationStore.open({"drawn": rows}, rows, [TensorLayout((WIDTH,), "float32", False)], about={})


def draw(cache: Path, rows: int) -> ActivationStore:
    """Fills a store with correlated features, as a chunk of rows at a time."""
    os.environ["TL_CACHE_DIR"] = str(cache)
    os.environ["TL_CACHE_SIZE"] = "1PB"
    store, generator = opened(rows), torch.Generator().manual_seed(0)
    factors = torch.randn(64, WIDTH, generator=generator)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        part = torch.randn(count, 64, generator=generator) @ factors + torch.randn(count, WIDTH, generator=generator)
        store.write(np.arange(start, start + count), [part])
    store.commit()
    return store


def labels_of(features: Features) -> Tensor:
    """Two classes, of which the first feature and chance decide."""
    rows = features.shape[0]
    chance = torch.randn(rows, generator=torch.Generator().manual_seed(1))
    first = torch.cat([features[start : start + CHUNK][:, 0].clone() for start in range(0, rows, CHUNK)])
    return (first / 8 + chance > 0).long()


def elsewhere(solver: str, rows: int, cache: str) -> dict[str, float]:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, __file__, "--watch", solver, str(rows), cache]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def watch(solver: str, rows: int) -> dict[str, float]:
    """Solves, and says how long that took and how much anonymous memory the process had at most."""
    store = opened(rows)
    features = store.rows(np.arange(rows))
    labels = torch.zeros(rows, dtype=torch.long) if solver in ("moments", "epoch") else labels_of(features)
    labels[0] = 1
    if (file := store.folder / "tensor0.bin").stat().st_size > 2**32:
        forget(file)
    with peak_of_anonymous_memory() as peak:
        begun = time.perf_counter()
        if solver == "moments":
            from tl_lightning.probe.features import moments

            moments(features)
        elif solver == "ridge":
            ridge_classifier(features, labels, classes=2)
        elif solver == "epoch":
            epoch(store, labels)
        else:
            assert logistic_path(features, labels, classes=2).converged.all()
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "anon_mib": peak[0]}


def epoch(store: ActivationStore, labels: Tensor) -> None:
    """One epoch of a linear head on cached features, as the data module serves them."""
    sampler = EpochSampler(np.arange(len(labels)), shuffle=True, seed=0, batch_size=EPOCH_BATCH)
    data = CachedDataset([store], Targets(labels))
    loader = DataLoader(data, sampler=sampler, batch_size=EPOCH_BATCH, collate_fn=as_it_is)
    head = torch.nn.Linear(WIDTH, 2)
    optimizer = torch.optim.AdamW(head.parameters(), fused=True)
    for batch in loader:
        functional.cross_entropy(head(batch["activations"][0]), batch["label"]).backward()
        optimizer.step()
        optimizer.zero_grad()


@contextmanager
def peak_of_anonymous_memory() -> Iterator[list[float]]:
    """Watches RssAnon from a thread (Linux); its largest value, in MiB, is in the list afterwards."""
    peak, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            lines = Path("/proc/self/status").read_text().splitlines()
            now = next(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
            peak[0] = max(peak[0], now)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def forget(file: Path) -> None:
    """Drops a file from the system's cache, so that reading it means reading the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def read_through(file: Path) -> float:
    """Seconds that reading a file once takes."""
    buffer, begun = bytearray(8 * 2**20), time.perf_counter()
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
