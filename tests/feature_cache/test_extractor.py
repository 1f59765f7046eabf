"""The frozen part of a backbone over images: each once, and the same numbers whoever computes them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback
from tiny import TINY, write_tiny
from torch import nn

from tl_lightning.backbones import engines
from tl_lightning.core.quiet import quiet
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.feature_cache import extractor as extraction
from tl_lightning.feature_cache.activation_store import ActivationStore
from tl_lightning.feature_cache.extractor import Extractor, below, layout_of


class Dump(Callback):
    """Writes down what each process ends a phase with."""

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), f"rank-{trainer.global_rank}-{trainer.world_size}.pt")


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A task, its data, and what computes, for a configuration of the tiny model."""
    monkeypatch.chdir(write_tiny(tmp_path))
    quiet()

    def make(*options):
        configuration = Configuration([*TINY, *options], folder=None)
        data = configuration.datamodule
        data.prepare_data()
        data.setup("fit")
        return configuration.model, data, Extractor(configuration.model, data, configuration.trainer)

    return make


def extract(task, data, extractor, indices, *, cut=3):
    part = below(task.transferred, cut)
    return extractor.extract(part, [(data.plain_view, np.asarray(indices))])[data.plain_view.name], part


def test_what_is_kept_are_the_activations_to_the_last_bit(configured):
    task, data, extractor = configured()
    indices = np.arange(len(data.samples))
    store, part = extract(task, data, extractor, indices)
    assert extractor.computed == len(indices) == 24
    (batch,) = data.view_loader(data.plain_view, indices, 24)
    images = data.normalized(batch)["image"]
    with extractor.computing():
        (expected,) = part.run(torch.cat([images, images[-1:].expand(8, -1, -1, -1)]))
        whole = task.backbone(images)
    (kept,) = store.read(indices)
    assert torch.equal(kept, expected[:24])
    with extractor.computing():
        torch.testing.assert_close(part.rest(kept), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_row_does_not_depend_on_which_rows_were_left_to_compute(configured, precision, monkeypatch):
    whole = extract(*configured("--trainer.precision", precision), np.arange(24))[0].read(np.arange(24))
    monkeypatch.setenv("TL_CACHE_DIR", str(Path("elsewhere").absolute()))
    task, data, extractor = configured("--trainer.precision", precision)
    for indices, computed in (([5, 2, 11], 3), ([2, 7], 4), (np.arange(24), 24)):
        store, _ = extract(task, data, extractor, indices)
        assert extractor.computed == computed
    assert all(torch.equal(one, other) for one, other in zip(whole, store.read(np.arange(24)), strict=True))
    assert store.layouts[0].dtype == ("float32" if precision == "32-true" else "bfloat16")


def test_an_engine_computes_them_alike_and_has_a_store_of_its_own(configured, capsys):
    eager, _ = extract(*configured("--engine", "eager"), np.arange(24))
    task, data, extractor = configured("--engine", "openvino")
    extractor = Extractor(task, data, extractor._trainer, "openvino")
    store, _ = extract(task, data, extractor, np.arange(24))
    assert store.folder != eager.folder and extractor.computed == 24
    assert capsys.readouterr().out.count("engine     openvino in float32") == 1
    (made,), (right,) = store.read(np.arange(24)), eager.read(np.arange(24))
    assert (made.dtype, made.stride()) == (right.dtype, right.stride())
    torch.testing.assert_close(made, right, rtol=1e-4, atol=1e-5)
    again = Extractor(task, data, extractor._trainer, "openvino")
    extract(task, data, again, np.arange(24))
    assert again.computed == 0 and "engine" not in capsys.readouterr().out  # nothing is built for nothing


def test_an_engine_is_compared_on_the_same_samples_whatever_the_split(configured, monkeypatch):
    seen = []
    real = extraction.build_engine
    monkeypatch.setattr(
        extraction, "build_engine", lambda *args, **options: seen.append(args[2][0]) or real(*args, **options)
    )
    monkeypatch.setattr(ActivationStore, "missing", lambda self, indices: indices)  # as if nothing were there yet
    for seed in ("0", "1"):
        task, data, extractor = configured("--data.split_seed", seed)
        extract(task, data, Extractor(task, data, extractor._trainer, "openvino"), data.splits["train"])
    assert len(seen) == 2 and torch.equal(*seen)


def test_an_engine_that_computes_something_else_leaves_the_work_to_eager(configured, monkeypatch, capsys):
    monkeypatch.setitem(engines.ROUNDING, torch.float32, -1.0)  # nothing is near enough
    task, data, extractor = configured()
    store, _ = extract(task, data, Extractor(task, data, extractor._trainer, "openvino"), np.arange(24))
    assert "engine     not openvino: what it computes is" in capsys.readouterr().out
    assert store.folder == extract(*configured("--engine", "eager"), np.arange(24))[0].folder


def test_an_interruption_keeps_what_was_done(configured, monkeypatch):
    monkeypatch.setattr(extraction, "BATCH", 4)
    monkeypatch.setattr(extraction, "COMMIT_EVERY_S", 0.0)
    task, data, extractor = configured()
    real, written = ActivationStore.write, []

    def write(self, indices, tensors):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(indices)
        real(self, indices, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(ActivationStore, "write", write)
        with pytest.raises(KeyboardInterrupt):
            extract(task, data, extractor, np.arange(24))
    again = Extractor(task, data, extractor._trainer)
    extract(task, data, again, np.arange(24))
    assert again.computed == 12


def test_computing_leaves_the_modes_of_all_modules_as_they_were(configured):
    task, _, extractor = configured()
    task.train()
    before = {module: module.training for module in task.modules()}
    assert set(before.values()) == {True, False}
    with pytest.raises(ZeroDivisionError), extractor.computing():
        assert not any(module.training for module in task.backbone.modules())
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert {module: module.training for module in task.modules()} == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_layout_gives_back_shape_type_and_memory_format(channels):
    tensor = torch.zeros(2, channels, 4, 5, dtype=torch.bfloat16)
    assert layout_of(tensor) == extraction.TensorLayout((channels, 4, 5), "bfloat16", channels_last=False)
    assert layout_of(tensor[:, :, 0, 0].float()).dtype == "float32"
    last = nn.functional.pad(tensor, (1, 0)).contiguous(memory_format=torch.channels_last)
    assert layout_of(last).channels_last == (channels > 1)


def run(processes, *args):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = os.pathsep.join(map(str, Path(__file__).parents[:2]))
    children = []
    for rank in range(processes):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
        if processes > 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
        command = [sys.executable, "-m", "tl_lightning", "fit", *TINY, *args, "--trainer.devices", str(processes)]
        with Path(f"rank-{rank}.log").open("w") as log:
            children.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    codes = [child.wait(timeout=500) for child in children]
    assert codes == [0] * processes, "\n".join(path.read_text()[-3000:] for path in Path().glob("rank-*.log"))


@pytest.mark.slow
def test_two_processes_fill_the_cache_together_and_solve_the_head_that_one_solves(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    args = ["--phases", "feature_extraction", "--trainer.max_epochs", "2", f"--trainer.callbacks+={__name__}.Dump"]
    cache = os.environ["TL_CACHE_DIR"]
    run(2, *args, "--run_dir", "two")
    (store,) = (path for path in Path(cache, "activations").iterdir() if path.is_dir())
    assert np.fromfile(store / "done.bin", dtype=np.uint8).sum() == 18  # training and validation, shared out
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "another"))
    run(1, *args, "--run_dir", "one")
    first, second, alone = (torch.load(f"rank-{name}.pt", weights_only=True) for name in ("0-2", "1-2", "0-1"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], alone[name]) for name in first)
    (other,) = (path for path in Path(tmp_path, "another", "activations").iterdir() if path.is_dir())
    assert (store / "tensor0.bin").read_bytes() == (other / "tensor0.bin").read_bytes()
