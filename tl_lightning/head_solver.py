"""The head alone on kept features: solved at the start of its phase, not trained."""

import csv
import io
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tl_lightning.activations import ActivationStore
from tl_lightning.console import console
from tl_lightning.data.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.keeping import Keeping
from tl_lightning.plots import can_draw, new_figure, save_figure
from tl_lightning.probe import Features, choose, path_until_it_rises, ridge_classifier
from tl_lightning.run_folder import write_text
from tl_lightning.tasks.classification import ClassificationTask


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
    """Solves the head where a phase's plan says so; stands before whatever keeps or averages weights.

    Attributes:
        solution: What was solved last, as plain data for the summary.

    Args:
        keeping: Its plan says whether, its stores hold the features.
        data: Says which rows train and which choose the strength.
        report: Where the path is written: a path without ending, such as ``runs/x/head-1``; `None` for nowhere.
    """

    def __init__(self, keeping: Keeping, data: ImageDataModule, report: Callable[[], Path | None]) -> None:
        self._keeping, self._data, self._report = keeping, data, report
        self.solution: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Solves; of several processes the first one does, and tells the others."""
        if not getattr(pl_module, "solved", False) or trainer.fit_loop.done:
            return
        assert isinstance(pl_module, ClassificationTask)  # no other task says that its head can be solved
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
        weight, bias, self.solution = solved
        pl_module.set_linear_head(weight, bias)

    def _solve(self, task: ClassificationTask) -> tuple[Tensor, Tensor, dict[str, Any]]:
        begun = time.perf_counter()
        splits, labels = self._data.splits, torch.from_numpy(self._data.samples.labels)
        kept = self._keeping.kept
        assert kept is not None
        training = Stacked([_rows(store, splits["train"]) for store in kept.training])
        answers = labels[splits["train"]].repeat(len(kept.training))
        weights = task.loss_weights.double().cpu() if task.weighted else None
        classes = len(task.classes)
        if task.head_solver == "ridge":
            ridge = ridge_classifier(training, answers, classes=classes, class_weights=weights)
            strength, columns = ridge.strengths[ridge.chosen], {"leave_one_out_error": list(ridge.errors)}
            path, chosen, weight, bias = ridge.strengths, ridge.chosen, ridge.weight, ridge.bias
            said = f"leave-one-out error {ridge.errors[chosen]:.4f}"
        else:
            held_out = _rows(kept.evaluation, splits["val"])
            solved, scores = path_until_it_rises(
                training, answers, held_out, labels[splits["val"]], classes=classes, class_weights=weights
            )
            chosen, path = choose(scores), solved.strengths
            strength, weight, bias = path[chosen], solved.weights[chosen], solved.biases[chosen]
            columns = {
                "training_loss": solved.losses.tolist(),
                "validation_loss": scores.losses.tolist(),
                "validation_accuracy": scores.accuracies.tolist(),
                "iterations": solved.iterations.tolist(),
            }
            said = f"validation loss {scores.losses[chosen]:.4f}"
            said += "" if solved.converged[chosen] else f", not converged in {solved.iterations[chosen]} passes"
        seconds = time.perf_counter() - begun
        word = "lambda" if task.head_solver == "ridge" else "C"
        console.print(f"head       solved for {len(path)} strengths in {seconds:.1f} s: {word} {strength:.2g}, {said}")
        columns = {"strength": list(path), **columns}
        self._write(columns, chosen, word)
        solution = {"solver": task.head_solver, "strength": strength, "seconds": seconds}
        return weight, bias, solution | {name: values[chosen] for name, values in columns.items() if name != "strength"}

    def _write(self, columns: dict[str, list[float]], chosen: int, word: str) -> None:
        """Writes the path as a table and, where matplotlib is installed, as a picture."""
        report = self._report()
        if report is None:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        write_text(report.with_suffix(".csv"), text.getvalue())
        if can_draw():
            draw_path(columns, chosen, report.with_suffix(".png"), word=word)


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
