"""What a new modality adds, by having tried it: a transformer of token ids, with a mask, that no room knows.

To take text, sound or anything else, and have all of the package work on it (phases, freezing, cutting, the feature
cache, solved heads, exact resume, ranking, probing), these are written, and nothing else is touched:

- ``preprocess/KIND.py``: a frozen dataclass with the methods of `Preprocess` (here `IdsPreprocess`), named in `KINDS`;
- ``backbones/LIBRARY.py``: a `Provider` (here `provider`), named in `PROVIDERS`, whose `build` hands back a `Backbone`:
  its module, its stages, the names of its inputs, and the packages on whose versions its features depend;
- ``data/KIND/``: a `TransferDataModule` (here `IdsDataModule`) with `open_store`, `transform`, `find_duplicates`,
  `find_files` and `read_file` (what to predict), and a store of its samples.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning import Callback
from torch import nn

from tl_lightning.backbones import PROVIDERS, Backbone, Stage, build_backbone
from tl_lightning.cli import main
from tl_lightning.core.predictions_file import load_predictions
from tl_lightning.data.base import TransferDataModule
from tl_lightning.errors import UserError
from tl_lightning.preprocess import KINDS, Preprocess

NAME = f"{__name__}.IdsDataModule"
LENGTH, WORDS, WIDTH = 6, 20, 8


# preprocess/ids.py


@dataclass(frozen=True)
class IdsPreprocess:
    """How many ids a sample is filled up to, with 0."""

    kind: ClassVar[str] = "ids"
    length: int

    @classmethod
    def from_dict(cls, values):
        return cls(values["length"])

    def to_dict(self):
        return {"kind": self.kind, **asdict(self)}

    def example(self, n, device):
        shape = (n, self.length)
        return torch.ones(shape, dtype=torch.int64, device=device), torch.ones(shape, dtype=torch.bool, device=device)

    def on_device(self, batch):
        return dict(batch)

    def differences(self, other):
        return [] if self == other else [f"length {self.length} instead of {other.length}"]


# backbones/toy.py


class Block(nn.Module):
    """Attention among the positions that count, and one layer on each."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x, mask):
        queries, keys, values = self.mix(x).chunk(3, dim=-1)
        scores = (queries @ keys.transpose(1, 2)).masked_fill(~mask[:, None, :], -1e4)
        return self.norm(x + scores.softmax(dim=-1) @ values)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, ids, mask, also=None):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, mask)
        counts = mask.unsqueeze(2).to(x.dtype)
        return (x * counts).sum(1) / counts.sum(1)


def build(name, weights, *, preprocess=None, drop_path_rate=0.0, gradient_checkpointing=False):
    with torch.random.fork_rng():
        torch.manual_seed({"pretrained": 0, "none": 1}[weights])
        module = Encoder()
    names = [name for name, _ in module.named_parameters()]
    stages = tuple(
        Stage(stage, tuple(name for name in names if name.startswith(f"{stage}.")), ())
        for stage in ("embed", "blocks.0", "blocks.1")
    )
    lineage = (name,) if weights == "pretrained" else ()
    return Backbone(
        module=module,
        num_features=WIDTH,
        stages=stages,
        preprocess=preprocess or IdsPreprocess(LENGTH),
        inputs=("ids", "mask"),
        name=name,
        weights=weights,
        lineage=lineage,
        packages=("numpy",),
    )


provider = SimpleNamespace(
    VALID_NAMES="toy/<name>",
    preprocess_of=lambda name, weights: IdsPreprocess(LENGTH),
    build=build,
    weights_problem=lambda name: None,
    load_source_model=lambda name, weights: build(name, weights).module,
    source_classifier=lambda model: None,
)


# data/ids/


class IdsStore:
    """Files of numbers, read when asked for."""

    def __init__(self, paths, length):
        self._paths, self._length = paths, length
        self.folder, self.broken = paths[0].parent.absolute(), {}
        self.key = f"{[path.name for path in paths]} {length}"

    def __len__(self):
        return len(self._paths)

    def sample(self, index):
        ids = [int(word) for word in self._paths[index].read_text().split()]
        filled = torch.tensor(ids + [0] * (self._length - len(ids)))
        return {"ids": filled, "mask": torch.arange(self._length) < len(ids)}


class IdsDataModule(TransferDataModule):
    def __init__(self, source: str, preprocess: dict, *, file_column: str = "file", **shared):
        super().__init__(source, preprocess, input_column=file_column, **shared)

    def open_store(self):
        return IdsStore(self.samples.paths, self.preprocess.length)

    def transform(self, view):
        return dict

    def find_duplicates(self, store, indices, features):
        return []

    @staticmethod
    def find_files(path):
        return sorted(path.glob("*.txt"))

    @staticmethod
    def read_file(path, preprocess):
        return IdsStore([path], preprocess.length).sample(0)


class Stop(Callback):
    """Presses Ctrl-C once, in the middle of an epoch."""

    epoch: int | None = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (Stop.epoch, 1):
            Stop.epoch = None
            raise KeyboardInterrupt


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A table of 40 files of ids, of which the first one tells the class, and the new modality."""
    monkeypatch.setitem(PROVIDERS, "toy", provider)
    monkeypatch.setitem(KINDS, "ids", IdsPreprocess)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [("file", "label")]
    for number in range(40):
        label = number % 2
        ids = [1 + label, *rng.integers(3, WORDS, rng.integers(1, LENGTH))]
        Path(f"{number}.txt").write_text(" ".join(map(str, ids)))
        rows.append((f"{number}.txt", ("odd", "even")[label]))
    with Path("table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


OPTIONS = [
    *("--data", NAME, "--data.source", "table.csv", "--data.batch_size", "4", "--data.num_workers", "0"),
    *("--model.backbone", "toy/encoder", "--model.lr", "0.01"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
]
PHASES = [
    *("--phases", '[{epochs: 1, train: head}, {epochs: 3, train: "last:1"}, {epochs: 2, train: all}]'),
    *("--trainer.max_epochs", "6"),
]


def summary(run):
    return json.loads(Path(run, "summary.json").read_text())


def table(name):
    return list(csv.DictReader(Path(name).read_text().splitlines()))


def some_inputs():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, WORDS, (5, LENGTH), generator=generator)
    mask = torch.arange(LENGTH) < torch.tensor([6, 1, 3, 5, 2])[:, None]
    return ids, mask


def test_it_is_built_by_its_name_and_a_wrong_one_is_one_line_that_lists_the_providers(here):
    assert build_backbone("toy/encoder").inputs == ("ids", "mask")
    with pytest.raises(UserError, match=r"^model.backbone is 'tooy/x': it has to be timm/<.*; or toy/<name>; did you"):
        build_backbone("tooy/x")


def test_it_is_cut_at_every_stage_exactly_and_the_mask_crosses(here):
    backbone = build_backbone("toy/encoder")
    inputs = some_inputs()
    whole = backbone.module(*inputs)
    for cut in (1, 2, 3):
        split = backbone.split(cut)
        crossing = split.prefix(*inputs)
        assert {tensor.dtype for tensor in crossing} == ({torch.float32, torch.bool} if cut < 3 else {torch.float32})
        assert torch.equal(split.suffix(*crossing), whole)


def test_the_means_of_its_stages_leave_out_what_the_mask_does(here):
    backbone = build_backbone("toy/encoder")
    ids, mask = some_inputs()
    with torch.no_grad():
        outputs = backbone.stage_outputs()(ids, mask)
        others = backbone.stage_outputs()(ids.where(mask, 0), mask)
        assert [tuple(output.shape) for output in outputs] == [(5, WIDTH)] * 3
        assert all(torch.equal(output, other) for output, other in zip(outputs, others, strict=True))
        assert torch.equal(outputs[-1], backbone.module(ids, mask))
        first = backbone.module.embed(ids)
        torch.testing.assert_close(outputs[0][2], first[2, :3].mean(0))


def test_it_trains_in_phases_on_cached_activations_and_a_killed_run_ends_with_the_same_weights(
    here, capsys, monkeypatch
):
    monkeypatch.setenv("TL_CACHE_DIR", str(Path("cache").absolute()))
    assert main(["fit", *OPTIONS, *PHASES, "--cache", "auto", "--run_dir", "whole"]) == 0
    shown = capsys.readouterr().out
    assert [line.split(" (")[0] for line in shown.splitlines() if line.startswith("cached ")] == [
        "cached     30 samples after blocks.1",
        "cached     30 samples after blocks.0",
    ]
    told = summary("whole")
    assert told["backbone"]["preprocess"] == {"kind": "ids", "length": LENGTH}
    assert [phase["solved"] for phase in told["phases"]] == [True, False, False]

    for epoch in (2, 4):
        Stop.epoch = epoch
        run = f"killed-{epoch}"
        assert main(["fit", *OPTIONS, *PHASES, f"--trainer.callbacks+={__name__}.Stop", "--run_dir", run]) == 130
        assert main(["resume", "--run_dir", run]) == 0
        one, other = (torch.load(f"{each}/checkpoints/last.ckpt", weights_only=True) for each in (run, "whole"))
        assert one["state_dict"].keys() == other["state_dict"].keys()
        assert all(torch.equal(tensor, other["state_dict"][key]) for key, tensor in one["state_dict"].items())
        assert summary(run)["test"] == told["test"]

    capsys.readouterr()
    assert main(["test", "--run_dir", "whole"]) == 0

    assert main(["predict", "--run_dir", "whole", "--input", ".", "--output", "predictions.csv"]) == 0
    tested = load_predictions(Path("whole/test_predictions.npz"))
    predicted = {row["path"]: row for row in table("predictions.csv")}
    rows = [predicted[f"{index}.txt"] for index in tested.indices.tolist()]  # the table lists them by number
    given = [[float(row[f"probability_{name}"]) for name in ("even", "odd")] for row in rows]
    torch.testing.assert_close(torch.tensor(given), tested.predictions, rtol=0, atol=1e-6)


def test_it_is_ranked_beside_random_weights_and_probed_at_every_stage(here, capsys):
    assert main(["rank", "--backbones", "toy/encoder", *OPTIONS, "--output", "rank"]) == 0
    names = [row["backbone"] for row in table("rank.csv")]
    assert names.count("toy/encoder") == 2  # pretrained, and the control
    assert main(["probe", *OPTIONS, "--output", "probe"]) == 0
    assert [(row["stage"], row["features"]) for row in table("probe.csv")] == [
        ("embed", str(WIDTH)),
        ("blocks.0", str(WIDTH)),
        ("blocks.1", str(WIDTH)),
    ]


def test_its_preparation_fulfils_the_protocol():
    kinds: dict[str, type[Preprocess]] = {"ids": IdsPreprocess}
    assert kinds["ids"].from_dict(IdsPreprocess(3).to_dict()) == IdsPreprocess(3)
