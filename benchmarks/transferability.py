"""LogME on many wide features with many classes: seconds and memory, beside the matrix products it cannot do without.

    uv run python benchmarks/transferability.py
    uv run python benchmarks/transferability.py --rows 2000 --width 256 --classes 20

Each measurement is made in a process of its own. The floor is what any solution by way of the Gram matrix computes:
X'X, and X'Y with one-hot targets, each as one product in float64 over chunks of the rows. The features are float32 in
the file system's cache (a store as ``tl rank`` reads it); the peak is that of anonymous memory.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from tl_lightning.choosing.ranking.evidence import log_me
from tl_lightning.choosing.ranking.scores import h_score
from tl_lightning.feature_cache.activation_store import ActivationStore, TensorLayout
from tl_lightning.probe.features import chunks

CHUNK = 8192  # rows that are drawn at once


def main() -> None:
    """Measures, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--watch", nargs=2, metavar=("WHAT", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = (options.rows, options.width, options.classes)
    if options.watch:
        what, cache = options.watch
        os.environ["TL_CACHE_DIR"] = cache
        print(json.dumps(watch(what, *shape)))
        return
    print(f"{shape[0]:,} x {shape[1]:,} features, {shape[2]:,} classes, {torch.get_num_threads()} threads", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), *shape[:2])
        floor = 0.0
        for what, title in (
            ("floor", "floor: X'X and X'Y with one-hot Y"),
            ("sums", "X'X's upper part and class sums"),
            ("log_me", "LogME"),
            ("h_score", "H-score"),
        ):
            found = elsewhere(what, folder, shape)
            floor = floor or found["seconds"]
            value = "" if math.isnan(found["value"]) else f", value {found['value']:.6f}"
            print(
                f"{title}: {found['seconds']:.1f} s ({found['seconds'] / floor:.2f} of the floor), "
                f"peak {found['anon_mib']:.0f} MiB above the {found['before_mib']:.0f} MiB before{value}",
                flush=True,
            )


def opened(rows: int, width: int) -> ActivationStore:
    """The store of the drawn rows."""
    identity = {"drawn": rows, "width": width}
    return ActivationStore.open(identity, rows, [TensorLayout((width,), "float32", False)], about={})


def draw(cache: Path, rows: int, width: int) -> None:
    """Fills a store with correlated features, a chunk of rows at a time."""
    os.environ["TL_CACHE_DIR"] = str(cache)
    os.environ["TL_CACHE_SIZE"] = "1PB"
    store, generator = opened(rows, width), torch.Generator().manual_seed(0)
    factors = torch.randn(64, width, generator=generator)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        part = torch.randn(count, 64, generator=generator) @ factors + torch.randn(count, width, generator=generator)
        store.write(np.arange(start, start + count), [part])
    store.commit()


def elsewhere(what: str, cache: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """Runs one measurement in a process of its own."""
    sizes = ["--rows", str(shape[0]), "--width", str(shape[1]), "--classes", str(shape[2])]
    command = [sys.executable, __file__, *sizes, "--watch", what, cache]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def watch(what: str, rows: int, width: int, classes: int) -> dict[str, float]:
    """Computes one thing, and says how long that took and how much anonymous memory it needed at most."""
    features = opened(rows, width).rows(np.arange(rows))
    labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(1))
    before, value = anonymous(), math.nan
    with peak_of_anonymous_memory() as peak:
        begun = time.perf_counter()
        if what == "log_me":
            value = log_me(features, labels, classes=classes)
        elif what == "h_score":
            value = h_score(features, labels, classes=classes)
        else:
            products(features, labels, classes=classes, one_hot=what == "floor")
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "anon_mib": max(peak[0] - before, 0.0), "before_mib": before, "value": value}


def products(features: torch.Tensor, labels: torch.Tensor, *, classes: int, one_hot: bool) -> None:
    """The matrix products alone: plainly, or as the scores make them."""
    from tl_lightning.probe.spectrum import add_gram

    width = features.shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64)
    sums = torch.zeros(classes, width, dtype=torch.float64)
    for part, rows in chunks(features):
        if one_hot:
            gram.addmm_(rows.T, rows)
            sums.addmm_(torch.nn.functional.one_hot(labels[part], classes).double().T, rows)
        else:
            add_gram(gram, rows)
            sums.index_add_(0, labels[part], rows)


def anonymous() -> float:
    """RssAnon of this process in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak_of_anonymous_memory() -> Iterator[list[float]]:
    """Watches RssAnon from a thread; its largest value, in MiB, is in the list afterwards."""
    peak, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


if __name__ == "__main__":
    main()
