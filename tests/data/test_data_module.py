"""What every data module does, shown on one whose samples are numbers: no image, no file is read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.dataset import Sample, Store, Transform
from tl_lightning.data.leaks import Duplicate
from tl_lightning.errors import UserError
from tl_lightning.preprocess import KINDS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
]


class LengthStore:
    """Sequences as long as the number in the file's name."""

    key = "lengths"
    broken: ClassVar[dict[int, str]] = {}

    def __init__(self, paths: list[Path]) -> None:
        self.folder = paths[0].parent
        self._lengths = [int(path.stem) for path in paths]

    def __len__(self) -> int:
        return len(self._lengths)

    def sample(self, index: int) -> Sample:
        return {"tokens": torch.full((self._lengths[index],), self._lengths[index])}


def doubled(sample: Sample) -> Sample:
    return {**sample, "tokens": 2 * sample["tokens"]}


class AsItIs:
    """A preparation that leaves batches as they are."""

    kind = "sequence"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AsItIs":
        return cls()

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def on_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return dict(batch)


@pytest.fixture(autouse=True)
def sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "sequence", AsItIs)  # type: ignore[arg-type]


class Sequences(TransferDataModule):
    """A data module of another modality: its batches are padded."""

    def __init__(self, source: str, **shared: Any) -> None:
        super().__init__(
            source, {"kind": "sequence"}, input_column="file", **{"num_workers": 0, "batch_size": 4, **shared}
        )
        self.twins: list[Duplicate] = []

    def open_store(self) -> LengthStore:
        return LengthStore(self.samples.paths)

    def transform(self, view: Literal["training", "plain"]) -> Transform:
        return doubled if view == "training" else dict

    def find_duplicates(self, store: Store, indices: Any, features: Any) -> list[Duplicate]:
        return self.twins

    @staticmethod
    def collate(samples: Any) -> dict[str, Any]:
        tokens = torch.nn.utils.rnn.pad_sequence([sample.pop("tokens") for sample in samples], batch_first=True)
        return {"tokens": tokens, **TransferDataModule.collate(samples)}


class Recorder(LightningModule):
    """Notes its training batches."""

    def __init__(self, uses_unlabelled: bool = False) -> None:
        super().__init__()
        self.head = torch.nn.Linear(1, 1)
        self.uses_unlabelled = uses_unlabelled
        self.batches: list[dict[str, Any]] = []

    def training_step(self, batch: dict[str, Any], number: int) -> Tensor:
        self.batches.append(batch)
        return self.head(batch["tokens"][:, :1].float()).mean()

    def validation_step(self, batch: dict[str, Any], number: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def seen(self, name: str) -> list[Any]:
        return torch.cat([batch[name] for batch in self.batches]).tolist()


def fit(task: Recorder, data: TransferDataModule) -> Recorder:
    data.use_unlabelled(task.uses_unlabelled)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(task, datamodule=data)
    return task


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """Writes the files 1 to n, and a table of them with these cells."""

    def write(*rows: str, header: str = "label") -> str:
        lines = [f"file,{header}"]
        for number, row in enumerate(rows, start=1):
            (tmp_path / f"{number}.txt").write_text("")
            lines.append(f"{number}.txt,{row}")
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines))
        return str(path)

    return write


def test_another_modality_says_how_samples_are_read_and_collated(table: Callable[..., str]) -> None:
    data = Sequences(table(*"abababababab"))
    task = fit(Recorder(), data)
    assert len(task.seen("index")) == 4 and set(task.seen("index")) <= set(data.splits["train"].tolist())
    for batch in task.batches:
        lengths = batch["index"] + 1
        assert batch["tokens"].shape == (len(lengths), int(lengths.max()))
        assert torch.equal(batch["tokens"][:, 0], 2 * lengths) and set(batch) == {"tokens", "index", "label"}
    (batch,) = data.val_dataloader()
    assert torch.equal(batch["tokens"][:, 0], batch["index"] + 1)  # plain


def test_batches_of_several_targets_hold_a_label_of_each(table: Callable[..., str]) -> None:
    source = table(*[f"{'ab'[k % 2]},{'' if k == 3 else k}" for k in range(24)], header="kind,size")
    data = Sequences(source, problem_type={"kind": "multiclass", "size": "regression"}, label_column="unused")
    data.setup("fit")
    assert data.classes == {"kind": ["a", "b"], "size": ["size"]}
    for batch in data.plain_loader("train"):
        assert set(batch["label"]) == {"kind", "size"}
        assert torch.equal(batch["label"]["kind"], batch["index"] % 2)
        wanted = batch["index"].float()[:, None].masked_fill(batch["index"][:, None] == 3, torch.nan)
        torch.testing.assert_close(batch["label"]["size"], wanted, equal_nan=True)
    assert 3 in np.concatenate(list(data.splits.values()))  # it has a kind
    training = data.targets("train").labels
    assert training["kind"].tolist() == (data.splits["train"] % 2).tolist()
    summary = data.summary()
    assert summary["problem_type"] == {"kind": "multiclass", "size": "regression"}
    assert summary["classes"] == data.classes
    assert {split: sum(counts.values()) for split, counts in summary["class_counts"]["kind"].items()} == {
        split: len(rows) for split, rows in data.splits.items()
    }
    assert summary["class_counts"]["size"] == {"train": {}, "val": {}, "test": {}}
    digest = data.targets_digest
    assert Sequences(source, problem_type={"kind": "multiclass"}).targets_digest != digest


def test_the_first_named_target_is_kept_in_proportion(table: Callable[..., str]) -> None:
    source = table(*[f"{'ab'[k % 2]},{'xy'[k // 20]}" for k in range(40)], header="kind,other")
    for first in ("kind", "other"):
        kinds = {name: "multiclass" for name in (first, "other", "kind")}
        data = Sequences(source, problem_type=kinds)
        assert data.samples.targets[first].counts(data.splits["test"]).tolist() == [5, 5]
        with pytest.raises(UserError, match="one target, and here are several"):
            data.samples.counts(data.splits["test"])


def domains(*, blank: int = 0) -> list[str]:
    """40 labelled rows of two domains, then some without a label."""
    rows = [f"{'ab'[k % 2]},{'XY'[k // 20]}" for k in range(40)]
    return rows + [f",{'XY'[k % 2]}" for k in range(blank)]


def test_a_batch_says_the_domain_of_each_sample(table: Callable[..., str]) -> None:
    data = Sequences(table(*domains(), header="label,domain"), batch_size=16)
    task = fit(Recorder(), data)
    assert data.domains == ["X", "Y"]
    for batch in task.batches:
        assert batch["domain"].dtype == torch.int64 and torch.equal(batch["domain"], batch["index"] // 20)
    assert set(task.batches[0]["domain"].tolist()) == {0, 1}  # both in one batch
    crossing = Sequences(table(*domains(), header="label,domain"), split="X_to_Y")
    assert set(crossing.splits["test"].tolist()) == set(range(20, 40))


def test_rows_without_a_label_stop_unless_they_are_kept(table: Callable[..., str]) -> None:
    source = table(*domains(blank=6), header="label,domain")
    with pytest.raises(UserError, match=r"row 42 of .*: the column 'label' is empty"):
        Sequences(source)
    with pytest.raises(UserError, match=r"data.unlabelled 'drop' is unknown; valid are stop, keep"):
        Sequences(source, unlabelled="drop")
    labelled_alone = Sequences(table(*domains(), header="label,domain"))
    data = Sequences(table(*domains(blank=6), header="label,domain"), unlabelled="keep")
    assert data.unlabelled_rows.tolist() == list(range(40, 46))
    for name, rows in labelled_alone.splits.items():  # they move no other row
        assert data.splits[name].tolist() == rows.tolist()
    assert data.summary()["unlabelled"] == 6 and data.split_digest != labelled_alone.split_digest


@pytest.mark.parametrize("uses", [False, True])
def test_rows_without_a_label_train_where_the_task_can_use_them(table: Callable[..., str], uses: bool) -> None:
    data = Sequences(table(*domains(blank=6), header="label,domain"), unlabelled="keep", batch_size=1)
    task = fit(Recorder(uses), data)
    expected = np.union1d(data.splits["train"], data.unlabelled_rows) if uses else data.splits["train"]
    assert sorted(task.seen("index")) == expected.tolist()
    for batch in task.batches:
        assert batch["labelled"].tolist() == (batch["index"] < 40).tolist()
        assert (batch["label"][~batch["labelled"]] == -1).all()
    assert data.training_batches == len(expected)
    assert "labelled" in next(iter(data.val_dataloader()))
    said = "train too" if uses else "are left out by this task"
    assert f"6 samples without a label {said}" in data.notes()


def test_rows_that_lose_their_label_stay_where_they_are_kept(table: Callable[..., str]) -> None:
    source = table(*domains(), header="label,domain")
    whole, dropped = Sequences(source), Sequences(source, labelled_fraction=0.5)
    kept = Sequences(source, labelled_fraction=0.5, unlabelled="keep")
    for name in ("train", "val", "test"):
        assert kept.splits[name].tolist() == dropped.splits[name].tolist()
    assert len(dropped.unlabelled_rows) == 0
    used = np.union1d(dropped.splits["train"], dropped.splits["val"])
    lost = np.setdiff1d(np.union1d(whole.splits["train"], whole.splits["val"]), used)
    assert kept.unlabelled_rows.tolist() == lost.tolist() and len(lost) == 15
    task = fit(Recorder(True), kept)
    for batch in task.batches:
        assert torch.equal(batch["label"] == -1, ~batch["labelled"])
    assert (kept.samples.labels >= 0).all()


def test_unlabelled_rows_tell_nothing_of_the_held_out_ones(table: Callable[..., str]) -> None:
    stated = [f"{'ab'[k % 2]},{['train', 'val', 'test'][k % 3]}" for k in range(12)] + [",test", ",train", ",val"]
    data = Sequences(table(*stated, header="label,split"), unlabelled="keep")
    assert data.unlabelled_rows.tolist() == [13]
    grouped = [f"{'ab'[k % 2]},g{k // 4}" for k in range(40)] + [f",g{k}" for k in range(10)]
    data = Sequences(table(*grouped, header="label,group"), unlabelled="keep")
    held_out = {f"g{row // 4}" for name in ("val", "test") for row in data.splits[name]}
    expected = [40 + k for k in range(10) if f"g{k}" not in held_out]
    assert data.unlabelled_rows.tolist() == expected and 0 < len(expected) < 10
    timed = [f"{'ab'[k % 2]},{k}" for k in range(40)] + [",0", ",39"]
    data = Sequences(table(*timed, header="label,t"), unlabelled="keep", split="time", time_column="t")
    assert data.unlabelled_rows.tolist() == [40]
    blocks = [("" if k % 10 == 9 else "ab"[k % 2]) + ",x" for k in range(60)]
    data = Sequences(table(*blocks, header="label,note"), unlabelled="keep", split="blocks")
    for name in ("val", "test"):
        rows = data.splits[name]
        assert not ((data.unlabelled_rows > rows.min()) & (data.unlabelled_rows < rows.max())).any()
    assert len(data.unlabelled_rows) in (3, 4, 5)


def test_an_unlabelled_copy_of_a_test_sample_does_not_train(table: Callable[..., str]) -> None:
    data = Sequences(table(*domains(blank=2), header="label,domain"), unlabelled="keep")
    data.twins = [Duplicate(int(data.splits["test"][0]), 41, "file")]
    data.setup("fit")
    assert data.unlabelled_rows.tolist() == [40]


def test_unlabelled_samples_and_balanced_classes_do_not_go_together(table: Callable[..., str]) -> None:
    data = Sequences(table(*domains(blank=2), header="label,domain"), unlabelled="keep", sampler="balanced")
    data.setup("fit")
    data.train_dataloader()
    data.use_unlabelled(True)
    with pytest.raises(UserError, match=r"data.sampler balanced draws all classes equally often, and unlabelled"):
        data.train_dataloader()
