"""Runs stages that nothing trains over samples, each of them once, and keeps what comes out on the disk."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_lightning.backbones import Backbone, CannotSplit, Stage
from tl_lightning.backbones.engines import (
    ROWS,
    EngineChoice,
    EngineName,
    Refused,
    Runner,
    build_engine,
    engine_key,
    pick_engine,
    say_refused,
)
from tl_lightning.core.cache_folder import cache_dir
from tl_lightning.core.cache_room import NoRoom, make_room
from tl_lightning.core.console import console, track
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.dataset import View
from tl_lightning.errors import UserError
from tl_lightning.feature_cache.activation_store import ActivationStore, TensorLayout
from tl_lightning.tasks.base import TransferTask

FORMAT = 2  # Raise it whenever the same model and sample would give other activations.
BATCH = 32  # rows at once; on a CPU larger batches are no faster
COMMIT_EVERY_S = 10.0  # so much work at most is lost to an interruption


@dataclass(frozen=True)
class Part:
    """Some of a backbone's stages, from its input up, as one function.

    Attributes:
        name: What comes out, such as the stage after which the backbone is cut.
        stages: Those that it consists of; their weights are part of the cache's key.
        run: From the backbone's inputs to a tuple of tensors, a row per sample each.
        rest: From those tensors to the backbone's features; `None` where nothing goes on from them.
    """

    name: str
    stages: tuple[Stage, ...]
    run: nn.Module
    rest: nn.Module | None = None


def below(backbone: Backbone, cut: int) -> Part:
    """The stages below a cut, with those above it as the rest.

    Args:
        backbone: Whose.
        cut: How many, from 1 to all of them; then what comes out are the features.

    Raises:
        CannotSplit: If it cannot be cut there.
    """
    split = backbone.split(cut)
    return Part(backbone.stages[cut - 1].name, backbone.stages[:cut], split.prefix, split.suffix)


def every_stage(backbone: Backbone) -> Part:
    """All stages, of which each shows the mean over positions of what it hands on; the last one the features.

    Args:
        backbone: Whose.

    Raises:
        CannotSplit: If it cannot be traced.
    """
    return Part("every stage, pooled", backbone.stages, backbone.stage_outputs())


class Extractor:
    """Computes activations in the precision of the run and on its device, shared out among its processes.

    Attributes:
        computed: How many rows were computed rather than found in the cache.

    Args:
        task: Holds the backbone that is run, in eval mode and without gradients.
        data: Holds the samples.
        trainer: Says precision and device, and which of several processes this is.
        engine: What runs the backbone.
    """

    def __init__(
        self, task: TransferTask, data: TransferDataModule, trainer: Trainer, engine: EngineChoice = "auto"
    ) -> None:
        self._task, self._data, self._trainer, self._engine = task, data, trainer, engine
        self.computed = 0

    def extract(self, part: Part, wanted: Sequence[tuple[View, NDArray[np.int64]]]) -> dict[str, ActivationStore]:
        """Runs a part of the backbone over what no earlier run has left in the cache.

        Args:
            part: What to run.
            wanted: Views of the samples, each with the indices of the samples.

        Returns:
            A store for each view, by the view's name.

        Raises:
            NoRoom: If the cache has no room for them, or cannot be written.
            CannotSplit: If the part and the rest do not make the whole.
        """
        samples, device = len(self._data.samples), self._task.device  # all of them: every command picks alike
        engine = pick_engine(self._engine, self._task.transferred, samples=samples, device=device)
        try:
            try:
                return self._extract(part, wanted, engine)
            except Refused as reason:
                if self._trainer.is_global_zero:
                    say_refused(engine, reason)
                return self._extract(part, wanted, "eager")
        except OSError as error:
            raise NoRoom(f"{error.filename or cache_dir()}: {error.strerror or error}") from error

    def _extract(
        self, part: Part, wanted: Sequence[tuple[View, NDArray[np.int64]]], engine: EngineName
    ) -> dict[str, ActivationStore]:
        stores = self._open(part, [view for view, _ in wanted], engine)
        self._runner: Runner | None = part.run if engine == "eager" else None
        for view, indices in wanted:
            self._fill(stores[view.name], part, view, indices, engine)
        return stores

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Eval mode, no gradients, the run's precision; the modes of all modules are afterwards what they were."""
        backbone = self._task.backbone
        modes = {module: module.training for module in backbone.modules()}
        if any(modes.values()):
            backbone.eval()
        try:
            with torch.no_grad(), self._trainer.precision_plugin.forward_context():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    def first_rows(self, count: int) -> list[Tensor]:
        """The first training samples, as the model wants them.

        Args:
            count: How many at most.
        """
        view = self._data.plain_view
        return self._inputs(next(iter(self._data.view_loader(view, self._data.splits["train"][:count], count))))

    def _compared_rows(self) -> list[Tensor]:
        """The first readable samples, whatever the split: all that fill a store build the same engine."""
        rows = np.setdiff1d(np.arange(len(self._data.samples)), list(self._data.store.broken))[:ROWS]
        return self._inputs(next(iter(self._data.view_loader(self._data.plain_view, rows, ROWS))))

    def _inputs(self, batch: Any) -> list[Tensor]:  # noqa: ANN401 - of a loader
        return self._task.inputs_of(self._data.normalized(move_data_to_device(batch, self._task.device)))

    def _layouts(self, part: Part) -> list[TensorLayout]:
        """How what comes out is laid out, as two samples show it; they also prove that the parts make the whole."""
        inputs = self.first_rows(2)
        with self.computing():
            outputs = part.run(*inputs)
        layouts = [layout_of(tensor) for tensor in outputs]  # before the rest, which may work in place
        if part.rest is not None:
            with self.computing():
                parts, whole = part.rest(*outputs).float(), self._task.backbone(*inputs).float()
            # Exact but for what a GPU's kernels may choose; whatever is not finite is said while computing.
            if whole.isfinite().all() and not (parts - whole).abs().max() <= 1e-2 * whole.abs().max():
                raise CannotSplit("the two parts of the backbone do not compute what the whole does")
        return layouts

    def _open(self, part: Part, views: Sequence[View], engine: EngineName) -> dict[str, ActivationStore]:
        task, data = self._task, self._data
        identity = {
            "format": FORMAT,
            "backbone": task.hparams["backbone"],
            "weights": weights_digest(task.backbone, part.stages),
            "preprocess": data.prepared,
            "inputs": data.inputs_key,
            "part": [part.name, len(part.stages)],
            "arithmetic": [
                str(self._trainer.precision),
                torch.get_float32_matmul_precision(),
                _device(task.device),
                *engine_key(engine),
            ],
            "versions": {package: version(package) for package in ("torch", *task.transferred.packages)},
            "classes": [*_foreign(task), *_foreign(data)],
        }
        about = {"backbone": task.hparams["backbone"], "cut": part.name, "source": data.source}

        rows = len(data.samples)
        known = ActivationStore.known_layouts({**identity, "view": views[0].name}, rows) or self._layouts(part)

        def opened() -> dict[str, ActivationStore]:
            stores = {}
            for view in views:
                own = {"view": view.name}
                stores[view.name] = ActivationStore.open(identity | own, rows, known, about=about | own)
            return stores

        return opened() if self._trainer.world_size == 1 else self._open_together(opened)

    def _open_together(self, opened: Callable[[], dict[str, ActivationStore]]) -> dict[str, ActivationStore]:
        """Lets the first process make the stores, and makes sure that all others see them."""
        stores: dict[str, ActivationStore] = {}
        self._agree(lambda: stores.update(opened() if self._trainer.is_global_zero else {}))
        folders = self._trainer.strategy.broadcast([str(store.folder) for store in stores.values()])
        seen = all(Path(folder).is_dir() for folder in folders)
        if not self._trainer.strategy.reduce_boolean_decision(seen, all=True):
            raise NoRoom("the processes do not share one cache folder; set TL_CACHE_DIR to one that all machines see")
        self._agree(lambda: stores.update({} if self._trainer.is_global_zero else opened()))
        return stores

    def _fill(
        self, store: ActivationStore, part: Part, view: View, indices: NDArray[np.int64], engine: EngineName
    ) -> None:
        """Computes what is missing; the first process says what that is, so that all share out the same rows."""
        strategy, first = self._trainer.strategy, self._trainer.is_global_zero
        missing = strategy.broadcast(store.missing(indices))
        if not len(missing):
            return
        with store.building(on_wait=_say_waiting) if first else nullcontext():
            missing = strategy.broadcast(store.missing(indices))  # another process may have been waited for
            share = np.array_split(missing, self._trainer.world_size)[self._trainer.global_rank]
            # An earlier run may have left the store half filled, and other things may have come since.
            self._agree(lambda: make_room(0) if first and len(missing) else None)
            runner = self._runner = self._runner or self._build(engine, part)
            self._agree(lambda: self._compute(store, runner, view, share))
        self.computed += len(missing)

    def _build(self, engine: EngineName, part: Part) -> Runner:
        """Has an engine built and compared, in all processes for the same samples; if one refuses, all do."""
        reason, runner = Refused("another process could not"), None
        try:
            with self.computing():
                runner = build_engine(engine, part.run, self._compared_rows(), say=self._trainer.is_global_zero)
        except Refused as error:
            reason = error
        everywhere = self._trainer.strategy.reduce_boolean_decision(runner is not None, all=True)
        if runner is None or not everywhere:
            raise reason
        return runner

    def _compute(self, store: ActivationStore, runner: Runner, view: View, indices: NDArray[np.int64]) -> None:
        loader = self._data.view_loader(view, indices, BATCH)
        committed = time.perf_counter()
        with self.computing():  # once for all batches, as it goes over all modules
            for batch in track(loader, "computing what is frozen", total=len(loader)):
                count = len(batch["index"])
                inputs = [filled_up(tensor) for tensor in self._inputs(batch)]
                try:
                    tensors = [tensor[:count].cpu() for tensor in runner(*inputs)]
                except torch.OutOfMemoryError as error:
                    raise NoRoom(f"{BATCH} rows at once do not fit into the device's memory") from error
                self._check_finite(tensors, batch["index"])
                store.write(batch["index"].numpy(), tensors)
                if time.perf_counter() - committed > COMMIT_EVERY_S:
                    store.commit()
                    committed = time.perf_counter()
        store.commit()

    def _check_finite(self, tensors: Sequence[Tensor], indices: Tensor) -> None:
        for tensor in tensors:
            finite = tensor.reshape(len(tensor), -1).isfinite().all(dim=1)
            if not finite.all():
                path = self._data.samples.paths[int(indices[~finite][0])]
                raise UserError(
                    f"{path}: the frozen part of the backbone gives numbers that are not finite in precision "
                    f"{self._trainer.precision}; look at the weights, or try --trainer.precision 32-true"
                )

    def _agree(self, work: Callable[[], None]) -> None:
        """Does work that may fail in one process, so that it fails in all, and in the same way."""
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # the others would wait for this process for ever
            failure = error
        strategy = self._trainer.strategy
        if strategy.reduce_boolean_decision(failure is None, all=True):
            return
        # Without room all go on from images; after anything else none does.
        mild = failure is None or isinstance(failure, NoRoom | OSError)
        if strategy.reduce_boolean_decision(mild, all=True):
            raise failure or NoRoom("another process could not write to the cache")
        raise failure if failure is not None and not mild else UserError("another process failed, and says why")


def _say_waiting() -> None:
    console.print("waiting for another process that computes the same activations")


def filled_up(tensor: Tensor) -> Tensor:
    """A batch of `BATCH` rows, as a row must not depend on how many were left to compute: the last one repeated."""
    if len(tensor) == BATCH:
        return tensor
    filled = tensor[torch.arange(BATCH).clamp(max=len(tensor) - 1)]
    return filled.contiguous(memory_format=torch.channels_last) if _is_channels_last(tensor) else filled


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _foreign(owner: object) -> list[str]:
    """The name of a class that is not the package's, and may make something else of the same images."""
    own = type(owner)
    return [] if own.__module__.startswith("tl_lightning.") else [f"{own.__module__}.{own.__qualname__}"]


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def layout_of(tensor: Tensor) -> TensorLayout:
    """How the rows of a batch's tensor are stored: as it comes, so that reading it back is exact."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorLayout(tuple(tensor.shape[1:]), dtype, channels_last=_is_channels_last(tensor))


def weights_digest(module: nn.Module, stages: Sequence[Stage]) -> str:
    """Tells apart states of the parameters and buffers of some stages; 1.3 ms per MiB on one CPU core."""
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    digest = hashlib.sha256()
    for stage in stages:
        for name in (*stage.parameters, *stage.buffers):
            tensor = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
