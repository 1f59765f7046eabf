"""The head alone on cached features: solved at the start of its phase, not trained."""

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tl_lightning.core.console import console
from tl_lightning.core.files import write_csv
from tl_lightning.core.plots import can_draw, new_figure, save_figure
from tl_lightning.data.base import TransferDataModule
from tl_lightning.errors import UserError
from tl_lightning.feature_cache.activation_store import ActivationStore
from tl_lightning.feature_cache.phase_cache import PhaseCache
from tl_lightning.probe import Features
from tl_lightning.tasks.base import TransferTask


class Stacked:
    """Several sets of features of the same width, one below the other; nothing is copied.

    Args:
        parts: At least one.
    """

    def __init__(self, parts: Sequence[Features]) -> None:
        self._parts = parts
        self._ends = list(accumulate(part.shape[0] for part in parts))
        self.shape = (self._ends[-1], parts[0].shape[1])

    def __getitem__(self, rows: slice) -> Tensor:
        """The rows of a slice with step 1."""
        start, stop, _ = rows.indices(self.shape[0])
        pieces = []
        while start < stop:
            number = bisect_right(self._ends, start)
            begin = self._ends[number] - self._parts[number].shape[0]
            end = min(stop, self._ends[number])
            pieces.append(self._parts[number][start - begin : end - begin])
            start = end
        if len(pieces) == 1:
            return pieces[0]
        return torch.cat(pieces) if pieces else self._parts[0][0:0]


class HeadSolver(Callback):
    """Solves the head where a phase's plan says so; stands before whatever stores or averages weights.

    Attributes:
        solution: What was solved last, as plain data for the summary.

    Args:
        cache: The phases' cache, whose plan says whether the head is solved, and whose stores hold the features.
        data: Says which rows train and which choose the strength.
        report: Where the path is written: a path without ending, such as ``runs/x/head-1``; `None` for nowhere.
    """

    def __init__(self, cache: PhaseCache, data: TransferDataModule, report: Callable[[], Path | None]) -> None:
        self._cache, self._data, self._report = cache, data, report
        self.solution: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Solves; of several processes the first one does, and tells the others."""
        if not getattr(pl_module, "solved", False) or trainer.fit_loop.done:
            return
        assert isinstance(pl_module, TransferTask)
        solved: Any = None
        failure: Exception | None = None
        if trainer.is_global_zero:
            try:
                with console.status("solving the head"):
                    solved = self._solve(pl_module)
            except Exception as error:  # the others would wait for ever
                failure = error
        solved = trainer.strategy.broadcast(solved)
        if solved is None:
            raise failure or UserError("the first process could not solve the head, and says why")
        heads, self.solution = solved
        for name, (weight, bias) in heads.items():
            pl_module.set_linear_head(name, weight, bias)

    def _solve(self, task: TransferTask) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Any]]:
        heads, solutions = {}, {}
        for name in task.objectives:
            weight, bias, solutions[name] = self._solve_one(task, name)
            heads[name] = weight, bias
        return heads, solutions if len(solutions) > 1 else next(iter(solutions.values()))

    def _solve_one(self, task: TransferTask, name: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
        begun = time.perf_counter()
        cached, splits = self._cache.cached, self._data.splits
        assert cached is not None
        objective, several, views = task.objectives[name], len(task.objectives) > 1, len(cached.training)
        training, held_out = self._data.targets("train"), self._data.targets("val")
        labels, held_out_labels = (_labels(part, name) for part in (training, held_out))
        # The rows that lack this target say nothing about its head.
        known = objective.known(labels) if several else torch.ones(len(labels), dtype=torch.bool)
        held_known = objective.known(held_out_labels) if several else torch.ones(len(held_out_labels), dtype=torch.bool)
        solved = objective.solve(
            Stacked([_rows(store, splits["train"][known.numpy()]) for store in cached.training]),
            torch.cat([labels[known]] * views),
            _rows(cached.evaluation, splits["val"][held_known.numpy()]),
            held_out_labels[held_known],
            None if training.weights is None else training.weights[known].repeat(views),
        )
        assert solved is not None  # or it would have been unsolvable
        seconds = time.perf_counter() - begun
        strengths, chosen = solved.columns["strength"], solved.chosen
        console.print(
            f"{name if several else 'head':<10} solved for {len(strengths)} strengths in {seconds:.1f} s: "
            f"{solved.word} {strengths[chosen]:.2g}, {solved.said}"
        )
        self._write(solved.columns, chosen, solved.word, f"-{name}" if several else "")
        figures = {name: values[chosen] for name, values in solved.columns.items()}
        return solved.weight, solved.bias, {"solver": objective.solver, "seconds": seconds, **figures}

    def _write(self, columns: dict[str, list[float]], chosen: int, word: str, suffix: str) -> None:
        """Writes the path as a table and, where matplotlib is installed, as an image."""
        report = self._report()
        if report is None:
            return
        report = report.with_name(report.name + suffix)
        write_csv(report.with_suffix(".csv"), [columns, *zip(*columns.values(), strict=True)])
        if can_draw():
            draw_path(columns, chosen, report.with_suffix(".png"), word=word)


def _labels(targets: Any, name: str) -> Tensor:  # noqa: ANN401 - of one target a tensor, of several a mapping
    labels: Tensor = targets.labels[name] if isinstance(targets.labels, Mapping) else targets.labels
    return labels


def _rows(store: Any, indices: Any) -> Features:  # noqa: ANN401 - the data module names them by protocol
    assert isinstance(store, ActivationStore)
    return store.rows(indices)


def draw_path(columns: dict[str, list[float]], chosen: int, file: Path, *, word: str) -> None:
    """Draws losses against the strength.

    Args:
        columns: ``strength`` and one column per curve; those whose name ends with loss or error are drawn.
        chosen: Which strength was chosen.
        file: The PNG to write.
        word: What the strength is called.
    """
    figure, axes = new_figure()
    strengths = columns["strength"]
    curves = {name: values for name, values in columns.items() if name.endswith(("loss", "error"))}
    for name, values in curves.items():
        axes.plot(strengths, values, label=name.replace("_", " "))
    # Without regularisation the loss grows without end, and what is worth seeing would be a flat line.
    axes.set_ylim(0, 1.1 * max(max(values[0], values[chosen]) for values in curves.values()))
    axes.axvline(strengths[chosen], color="grey", linestyle=":", label=f"chosen: {word} {strengths[chosen]:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel(f"{word}: the regularisation {'grows' if word == 'lambda' else 'falls'} to the right")
    axes.set_ylabel(" and ".join(name.replace("_", " ") for name in curves))
    axes.set_title("the solved head, for every strength of regularisation")
    axes.legend()
    save_figure(figure, file)
