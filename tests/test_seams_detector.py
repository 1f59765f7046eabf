"""What a detector adds, by having tried it: the centres and sizes of boxes on the last map of a backbone.

To learn boxes of images, these are written, and nothing else is touched:

- ``tasks/objectives/boxes.py``: an `Objective` (here `Boxes`): losses, predictions, metrics, ``score_each`` and
  ``rows_each`` (a row for each box); named in `OBJECTIVES`, and its kind in `ProblemType`;
- ``tasks/detection.py``: a task (here `Detector`) whose `features` are the maps of a `DenseBackbone`, with a head of
  its own, as `HeadPlan.build` makes it; named in `TASKS` or, as here, by its class path;
- ``data/images/boxes.py``: an `ImageDataModule` (here `BoxesDataModule`) with `list_samples` (a real one reads COCO
  files in ``data/sources/``), `transform` (boxes ride along and follow the image) and `collate`.

Mended for it: heads of any form (`HeadPlan.build`), several rows for one file, `list_samples`, targets without counts.

Still missing for a real one: rows say shares of the square that the model sees, as an objective does not know the size
of the file; layers that no map depends on (``conv_head`` here) have to be left out with ``regex:``; ``tl show_data``
draws no boxes; maps are not cached.
"""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning import Callback
from PIL import Image, ImageDraw
from tiny import TINY, write_tiny
from torch import nn
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from torchvision.ops import box_convert, box_iou
from torchvision.tv_tensors import BoundingBoxes

from tl_lightning.cli import main
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.samples import Samples, Target
from tl_lightning.tasks.base import TARGET, HeadPlan, TransferTask
from tl_lightning.tasks.objectives import OBJECTIVES, Objective

MOST = 2  # boxes of one image

# tasks/objectives/boxes.py: targets are (N, MOST, 4), left, top, right and bottom as shares of the image, or -1


class Found(MeanMetric):
    """The mean overlap of each box with the prediction that overlaps it most."""

    def update(self, predictions, targets):
        super().update(overlaps(predictions, targets))


def overlaps(predictions, targets):
    """``(N,)``, the mean over the boxes of each image."""
    found = []
    for boxes, wanted in zip(predictions[..., 1:], targets, strict=True):
        found.append(box_iou(wanted[wanted[:, 0] >= 0], boxes).amax(dim=1).mean())
    return torch.stack(found)


class Boxes(Objective):
    """A map of how likely a box has its centre in each place, and its width and height there."""

    problem_type: ClassVar = "boxes"
    metrics: ClassVar = {"overlap": "max"}
    monitor = headline = score = "overlap"
    noun, nouns, counts = "box", "boxes", False
    solvers: ClassVar = ("sgd",)

    @property
    def outputs(self):
        return 3

    def losses(self, outputs, targets):
        heat, size = outputs[:, 0], outputs[:, 1:].sigmoid()
        side, wanted, loss = heat.shape[-1], torch.zeros_like(heat), heat.new_zeros(len(heat))
        for row, boxes in enumerate(targets):
            for x, y, w, h in box_convert(boxes[boxes[:, 0] >= 0], "xyxy", "cxcywh"):
                place = row, int(y * side), int(x * side)
                wanted[place] = 1
                loss[row] += (size[row, :, place[1], place[2]] - torch.stack([w, h])).abs().sum()
        weight = 1 + 10 * wanted
        return loss + functional.binary_cross_entropy_with_logits(heat, wanted, weight, reduction="none").mean((1, 2))

    def predictions(self, outputs):
        """``(N, MOST, 5)``: how sure, and the box."""
        heat, size = outputs[:, 0].sigmoid(), outputs[:, 1:].sigmoid().flatten(2)
        side = heat.shape[-1]
        sure, places = heat.flatten(1).topk(MOST)
        w, h = size.gather(2, places[:, None].expand(-1, 2, -1)).unbind(1)
        centres = (places % side + 0.5) / side, (places // side + 0.5) / side
        return torch.cat([sure[..., None], box_convert(torch.stack([*centres, w, h], -1), "cxcywh", "xyxy")], -1)

    def make_metrics(self, prefix=""):
        return MetricCollection({"overlap": Found()}, prefix=prefix)

    def score_each(self, predictions, targets):
        return overlaps(predictions, targets).double()

    def rows_each(self, predictions):
        columns = ("sure", "left", "top", "right", "bottom")
        return [
            [dict(zip(columns, box, strict=True)) for box in boxes.tolist() if box[0] >= 0.1] for boxes in predictions
        ]

    @classmethod
    def target_in_words(cls, target, classes):
        return f"{int((target >= 0).sum()) // 4} boxes"


# tasks/detection.py


def build_head(backbone, outputs):
    with torch.no_grad():
        width = backbone.maps(*backbone.preprocess.example(1, "cpu"))[-1].shape[1]
    return nn.Sequential(nn.Conv2d(width, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, outputs, 1))


class Detector(TransferTask):
    objective_class: ClassVar = Boxes

    def __init__(self, backbone: str, classes: list[str], **shared: Any) -> None:
        super().__init__(backbone, classes, planned={TARGET: HeadPlan(Boxes(classes), build=build_head)}, **shared)

    def features(self, batch):
        return self.transferred.maps(*self.inputs_of(batch))[-1]


# data/images/boxes.py


def with_boxes(sample, *, inner):
    """Boxes ride along as torchvision's own, so that they go where the image goes."""
    if "label" not in sample:  # of a file to predict
        return inner(sample)
    height, width = sample["image"].shape[-2:]
    boxes = sample["label"].reshape(MOST, 4)
    boxes = boxes[boxes[:, 0] >= 0] * torch.tensor([width, height, width, height])
    return inner({**sample, "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))})


class BoxesDataModule(ImageDataModule):
    def __init__(self, source: str, preprocess: dict, *, problem_type: str = "boxes", **shared: Any) -> None:
        super().__init__(source, preprocess, problem_type=problem_type, **shared)

    def list_samples(self, source, **asked):
        with Path(source).open() as file:
            rows = list(csv.DictReader(file))
        labels = np.full((len(rows), MOST * 4), -1, dtype=np.float32)
        for label, row in zip(labels, rows, strict=True):
            numbers = [float(number) for number in row["boxes"].split()]
            label[: len(numbers)] = numbers
        return Samples(
            paths=[Path(source).parent / row["image"] for row in rows],
            targets={"boxes": Target(labels, ["box"], "boxes")},
            split=np.array([row["split"] for row in rows]),
            strata=np.zeros(len(rows), dtype=np.int64),
        )

    def transform(self, view):
        return partial(with_boxes, inner=super().transform(view))

    @staticmethod
    def collate(samples):
        if "boxes" not in samples[0]:
            return ImageDataModule.collate(samples)
        labels = torch.full((len(samples), MOST, 4), -1.0)
        for label, sample in zip(labels, samples, strict=True):
            boxes = sample.pop("boxes")
            label[: len(boxes)] = torch.as_tensor(boxes) / boxes.canvas_size[0]
        return {**ImageDataModule.collate(samples), "label": labels}


class Watch(Callback):
    """Remembers where boxes were, and presses Ctrl-C once where that is asked for."""

    seen: ClassVar[list] = []
    stop: ClassVar[tuple[int, int] | None] = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for index, image, boxes in zip(batch["index"].tolist(), batch["image"], batch["label"], strict=True):
            left, top, right, bottom = (boxes[0] * image.shape[-1]).round().int().tolist()
            inside = image[:, top:bottom, left:right].mean()
            Watch.seen.append((index, left, float(inside - image.mean())))
        if (trainer.current_epoch, batch_idx) == Watch.stop:
            Watch.stop = None
            raise KeyboardInterrupt


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A table of 44 grey images of 64 x 64 pixels with one or two bright rectangles each."""
    monkeypatch.chdir(write_tiny(tmp_path))
    monkeypatch.setitem(OBJECTIVES, "boxes", Boxes)
    Watch.seen, Watch.stop = [], None
    rng = np.random.default_rng(0)
    Path("drawn").mkdir()
    table = [("image", "boxes", "split")]
    for number in range(44):
        image = Image.fromarray(rng.normal(60, 10, (64, 64, 3)).clip(0, 255).astype(np.uint8))
        boxes = []
        for half in range(1 + number % 2):  # the first in the left half, the second in the right
            left, top = 2 + 32 * half + int(rng.integers(0, 10)), 2 + int(rng.integers(0, 40))
            right, bottom = left + 16, top + 16
            ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=(230, 230, 230))
            boxes += [left / 64, top / 64, right / 64, bottom / 64]
        image.save(f"drawn/{number}.png")
        split = "train" if number < 32 else "val" if number < 38 else "test"
        table.append((f"drawn/{number}.png", " ".join(f"{share:.6f}" for share in boxes), split))
    with Path("table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)


OPTIONS = [
    *(*TINY, "--data", f"{__name__}.BoxesDataModule", "--data.source", "table.csv", "--data.image_size", "64"),
    *("--model", f"{__name__}.Detector", "--data.augmentation", "flips", "--data.num_workers", "0"),
    *("--phases", '[{epochs: 1, train: head}, {epochs: 6, train: "regex:^(conv_stem|bn1|blocks)"}]'),
    *("--trainer.max_epochs", "7", f"--trainer.callbacks+={__name__}.Watch", "--model.backbone_lr_scale", "1.0"),
]


def rows(path):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def test_it_trains_in_phases_is_scored_predicts_a_row_for_each_box_and_resumes(here):
    assert main(["fit", *OPTIONS, "--run_dir", "whole"]) == 0
    lost = [float(row["val/loss"]) for row in rows("whole/metrics.csv") if row.get("val/loss")]
    assert len(lost) >= 7 and lost[6] < 0.2 * lost[0]
    places = {index: {left for other, left, _ in Watch.seen if other == index} for index, _, _ in Watch.seen}
    assert any(len(found) == 2 for found in places.values())  # mirrored in some of the epochs
    assert min(brighter for _, _, brighter in Watch.seen) > 0.5  # the rectangle is where its box is
    told = json.loads(Path("whole/summary.json").read_text())
    assert 0 < told["test"]["overlap"] <= 1 and told["data"]["problem_type"] == "boxes"

    assert main(["test", "--run_dir", "whole", "--output", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["test"] == pytest.approx(told["test"])
    assert main(["predict", "--run_dir", "whole", "--input", "drawn", "--output", "all.csv"]) == 0
    found = rows("all.csv")
    assert list(found[0]) == ["path", "sure", "left", "top", "right", "bottom"]
    counts = [sum(row["path"] == path for row in found) for path in {row["path"] for row in found}]
    assert max(counts) == 2
    assert all(0.1 <= float(row["sure"]) <= 1 for row in found)

    Watch.stop = (2, 1)
    assert main(["fit", *OPTIONS, "--run_dir", "killed"]) == 130
    assert main(["resume", "--run_dir", "killed"]) == 0
    one, other = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("killed", "whole")
    )
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert json.loads(Path("killed/summary.json").read_text())["test"] == told["test"]


def test_an_image_without_a_box_has_no_row():
    predictions = torch.tensor([[[0.05, 0, 0, 1, 1], [0.0, 0, 0, 1, 1]], [[0.9, 0, 0, 0.5, 0.5], [0.5, 0, 0, 1, 1]]])
    assert [len(found) for found in Boxes(["box"]).rows_each(predictions)] == [0, 2]
