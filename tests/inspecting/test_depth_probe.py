"""``tl probe``: accuracy against depth, from one forward pass."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, write_tiny

from tl_lightning.backbones import Backbone, CannotSplit, build_backbone
from tl_lightning.cli import main
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.data.splits import fold_numbers
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.feature_cache import activation_store as activations
from tl_lightning.inspecting import depth_probe
from tl_lightning.inspecting.depth_probe import STRENGTHS, StageProbe, advice
from tl_lightning.probe import choose, cross_validate, logistic_path

STAGES = ["conv_stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


def figures(file="probe.csv"):
    with Path(file).open() as lines:
        return list(csv.DictReader(lines))


def test_every_stage_gets_a_row_and_the_last_one_is_the_backbones_own_features(here, capsys):
    assert main(["probe", *TINY]) == 0
    shown = capsys.readouterr().out
    rows = figures()
    assert [row["stage"] for row in rows] == STAGES
    assert all(stage in shown for stage in [*STAGES, "majority class", "behind the best", "best after"])
    assert not Path("run").exists()

    data = Configuration(TINY, folder=None).datamodule
    data.prepare_data()
    data.setup("fit")
    backbone = build_backbone("timm/test_efficientnet", "start.pth").module.eval()

    def features(split):
        loader = data.plain_loader(split)
        with torch.no_grad():
            batches = [(backbone(data.normalized(batch)["image"]), batch["label"]) for batch in loader]
        return torch.cat([batch for batch, _ in batches]).double(), torch.cat([labels for _, labels in batches])

    training, answers = features("train")
    held_out, expected = features("val")
    fold_of = torch.from_numpy(fold_numbers(data.samples, data.splits["train"], data.split, folds=3))
    scores = cross_validate(training, answers, classes=2, folds=3, strengths=STRENGTHS, fold_of=fold_of)
    strength = STRENGTHS[choose(scores)]
    path = logistic_path(training, answers, classes=2, strengths=(strength,))
    logits = held_out @ path.weights[0].T + path.biases[0]
    loss = torch.nn.functional.cross_entropy(logits, expected)
    assert (int(rows[-1]["features"]), float(rows[-1]["strength"])) == (256, strength)
    assert float(rows[-1]["loss"]) == pytest.approx(float(loss), rel=1e-3)
    right = float((logits.argmax(dim=1) == expected).double().mean())
    assert float(rows[-1]["accuracy"]) == pytest.approx(right)
    assert float(rows[-1]["standard_error"]) == pytest.approx((right * (1 - right) / len(expected)) ** 0.5)


def test_images_of_one_group_are_in_one_fold(here, monkeypatch, capsys):
    lines = [f"images/{name}/{k}.png,{name},{name}{k // 2}" for name in ("cat", "dog") for k in range(12)]
    Path("table.csv").write_text("\n".join(["image,label,patient", *lines]) + "\n")
    seen = []

    def watched(*args, fold_of, **options):
        seen.append(fold_of.tolist())
        return cross_validate(*args, fold_of=fold_of, **options)

    monkeypatch.setattr(depth_probe, "cross_validate", watched)
    options = [*TINY, "--data.source", "table.csv", "--data.group_column", "patient"]
    assert main(["probe", *options]) == 0
    data = Configuration(options, folder=None).datamodule
    patients = data.samples.groups[data.splits["train"]]
    assert len(seen) == len(STAGES) and set(seen[0]) == {0, 1, 2}
    assert len(set(zip(patients, seen[0], strict=True))) == len(set(patients)) < len(patients)


def test_a_second_look_computes_nothing_and_gives_the_same(here, monkeypatch):
    assert main(["probe", *TINY, "--output", "first"]) == 0

    def fail(*args, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr(depth_probe.Extractor, "_compute", fail)
    assert main(["probe", *TINY, "--output", "second"]) == 0
    assert figures("first.csv") == figures("second.csv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run_dir", "run"], "--run_dir has no effect here"),
        (["--run_dir=run"], "--run_dir has no effect here"),
        (["--output", "nowhere/probe"], "--output nowhere/probe: there is no folder nowhere"),
        (["--model.backbone", "timm/test_efficientne"], "did you mean"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, words):
    assert main(["probe", *TINY, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def cannot_split(*args):
    raise CannotSplit("blocks go round in circles")


def no_room(needed):
    raise NoRoom("the cache is full")


@pytest.mark.parametrize(
    ("module", "name", "broken", "words"),
    [
        (Backbone, "stage_outputs", cannot_split, "cannot be probed stage by stage: blocks go round in circles"),
        (activations, "make_room", no_room, "the activations cannot be cached: the cache is full"),
    ],
)
def test_what_makes_it_impossible_is_one_line(here, capsys, monkeypatch, module, name, broken, words):
    monkeypatch.setattr(module, name, broken)
    assert main(["probe", *TINY]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_name_with_a_dot_stays_whole(here, capsys):
    assert main(["probe", *TINY, "--output", "resnet50.a1"]) == 0
    assert {path.name for path in Path().glob("resnet50*")} == {"resnet50.a1.csv", "resnet50.a1.png"}
    assert "metrics in resnet50.a1.csv, chart in resnet50.a1.png" in capsys.readouterr().out


def test_a_full_disk_is_one_line(here, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    assert main(["probe", *TINY]) == 2
    assert "No space left on device" in capsys.readouterr().err


def probe(name, *right):
    return StageProbe(name, 4, 1.0, 0.5, torch.tensor(right, dtype=torch.bool))


def test_the_noise_of_a_difference_is_that_of_the_same_images():
    one, other = probe("a", 1, 1, 0, 0), probe("b", 1, 1, 1, 0)
    assert (one.accuracy, other.accuracy) == (0.5, 0.75)
    assert one.error == 0.25
    distance, error = one.behind(other)
    assert distance == 0.25
    assert error == pytest.approx((0.25 * 0.75 / 4) ** 0.5)
    assert other.behind(other) == (0.0, 0.0)


def test_advice_names_the_first_stage_that_does_as_well_as_the_best():
    many = [
        probe("a", *[1] * 50, *[0] * 50),
        probe("b", *[1] * 80, *[0] * 20),
        probe("c", *[0] * 5, *[1] * 81, *[0] * 14),
    ]
    assert advice(many) == (
        "best after c: 0.810 ± 0.039; b is the first that does as well within the noise; what is above may serve the "
        "source more than you: --phases '[{train: \"from:c\"}]' trains it"
    )
    assert advice(many[:2]) == "best after b: 0.800 ± 0.040"


def test_images_of_one_group_count_as_one():
    groups = np.array(["a", "a", "b", "b"])
    one = StageProbe("a", 4, 1.0, 0.5, torch.tensor([True, True, False, False]), groups)
    other = StageProbe("b", 4, 1.0, 0.5, torch.tensor([True, True, True, True]), groups)
    assert one.error == pytest.approx(2**0.5 / 4)
    assert one.behind(other) == (0.5, pytest.approx(2**0.5 / 4))
