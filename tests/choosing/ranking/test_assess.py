"""A candidate's scores for every kind of answer, and when one candidate is said to be better than another."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tl_lightning.choosing.ranking import solved
from tl_lightning.choosing.ranking.assess import Assessment, assess, titles
from tl_lightning.choosing.ranking.candidates import Candidate
from tl_lightning.choosing.ranking.evidence import log_me, log_me_numbers
from tl_lightning.choosing.ranking.measure import Measured
from tl_lightning.choosing.ranking.neighbours import nearest_neighbours
from tl_lightning.choosing.ranking.scores import h_score, leep, nce
from tl_lightning.choosing.ranking.solved import STRENGTHS
from tl_lightning.metrics.noise import standard_error
from tl_lightning.probe import left_out, out_of_fold
from tl_lightning.tasks.objectives import OBJECTIVES


def measured(labels, problem_type, *, classes=("a", "b"), source=None, groups=None, kin=None):
    generator = torch.Generator().manual_seed(0)
    rows = len(labels)
    single = labels if labels.ndim == 1 else labels[:, 0]
    features = torch.randn(rows, 5, generator=generator)
    features[:, 0] += single
    return Measured(
        candidate=Candidate("timm/x"),
        rows=np.arange(rows),
        features=features,
        labels=labels,
        problem_type=problem_type,
        classes=classes,
        fold_of=torch.arange(rows) % 5 if kin is None else kin % 5,
        kin=kin,
        groups=groups,
        source=source,
        image_size=32,
        parameters=10,
        macs=20,
        speed=30.0,
        computed=rows,
        seconds=2.0,
        line="data",
    )


@pytest.mark.parametrize("problem_type", ["multiclass", "ordinal"])
def test_classes_and_levels_get_every_score(problem_type):
    labels = torch.arange(30) % 2
    source = torch.rand(30, 4, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    given = measured(labels, problem_type, source=source)
    found, features = assess(given), given.features
    expected = out_of_fold(features, labels, classes=2, strengths=STRENGTHS, fold_of=given.fold_of)
    assert found.right.tolist() == (expected.predicted == labels).double().tolist()
    assert found.accuracy == pytest.approx(float((expected.predicted == labels).double().mean()))
    assert found.neighbours == float(nearest_neighbours(features, labels, classes=2).double().mean())
    assert (found.log_me, found.h_score) == (log_me(features, labels, classes=2), h_score(features, labels, classes=2))
    assert found.leep == leep(source, labels, classes=2)
    assert found.nce == nce(source.argmax(dim=1), labels)
    assert (found.image_size, found.parameters, found.macs, found.speed) == (32, 10, 20, 30.0)
    assert found.seconds > 2.0
    assert OBJECTIVES[problem_type].probe_baseline(labels) == 0.5


def test_without_a_source_classifier_its_scores_are_left_out():
    found = assess(measured(torch.arange(30) % 2, "multiclass"))
    assert (found.leep, found.nce) == (None, None)


def test_numbers_get_r2_of_what_was_left_out_and_log_me():
    numbers = torch.randn(40, 2, generator=torch.Generator().manual_seed(2))
    given = measured(numbers, "regression")
    found = assess(given)
    outputs, _ = left_out(given.features, numbers)
    exact = numbers.double()
    unexplained = (outputs - exact).square().sum(dim=0) / (exact - exact.mean(dim=0)).square().sum(dim=0)
    assert found.accuracy == pytest.approx(float((1 - unexplained).mean()), rel=1e-9)
    assert found.log_me == log_me_numbers(given.features, exact)
    assert (found.neighbours, found.h_score, found.leep, found.nce) == (None, None, None, None)
    assert OBJECTIVES["regression"].probe_baseline(numbers) is None


def test_labels_get_the_mean_of_their_accuracies_and_one_that_no_image_has_is_left_out():
    generator = torch.Generator().manual_seed(3)
    labels = (torch.rand(40, 3, generator=generator) < 0.4).float()
    labels[:, 1] = 0
    given = measured(labels, "multilabel", classes=("a", "b", "c"))
    found = assess(given)
    kept = labels[:, [0, 2]].double()
    outputs, _ = left_out(given.features, 2 * kept - 1)
    assert found.accuracy == pytest.approx(float(((outputs > 0) == (kept > 0.5)).double().mean()))
    shares = kept.mean(dim=0)
    assert OBJECTIVES["multilabel"].probe_baseline(labels) == pytest.approx(
        float(torch.maximum(shares, 1 - shares).mean())
    )


@pytest.mark.parametrize("problem_type", ["regression", "multilabel", "multiclass"])
def test_images_of_one_group_say_nothing_of_each_other(problem_type):
    generator = torch.Generator().manual_seed(0)
    kin = torch.arange(40).repeat_interleave(6)
    groups = torch.randn(40, 12, generator=generator)
    features = groups[kin] + 0.05 * torch.randn(240, 12, generator=generator)
    drawn = torch.randn(40, 1, generator=generator)[kin]  # for each group, and nothing in the features tells it
    labels = drawn if problem_type == "regression" else (drawn > 0).float()
    labels = (drawn[:, 0] > 0).long() if problem_type == "multiclass" else labels
    given = replace(measured(labels, problem_type, kin=kin), features=features)
    alone = assess(replace(given, kin=None, fold_of=torch.arange(240) % 5))
    found = assess(given)
    constant = OBJECTIVES[problem_type].probe_baseline(labels) or 0.0
    assert found.accuracy < constant + 0.1 and alone.accuracy > found.accuracy + 0.1
    if problem_type == "multiclass":
        assert alone.neighbours == 1.0 and found.neighbours < 0.65


def assessment(right, *, rows=None, groups=None, macs=1, backbone="timm/x", weights="pretrained", images=None):
    rows = np.arange(len(right)) if rows is None else np.array(rows)
    scores = {"neighbours": 0.5, "log_me": 0.1, "h_score": 0.2, "leep": None, "nce": None}
    costs = {"image_size": 32, "parameters": 5, "macs": macs, "speed": 1.0, "seconds": 1.0}
    about = Candidate(backbone, weights), images or len(right), rows
    return Assessment(*about, np.array(right, dtype=np.float64), groups=groups, **scores, **costs)


def test_of_many_images_some_are_probed_and_no_fold_is_lost(monkeypatch):
    monkeypatch.setattr(solved, "PROBED", 20)
    fold_of = torch.tensor([0] * 96 + [1, 2, 3, 4])
    some = solved.probed(fold_of)
    assert len(some) == 20 and some.diff().min() > 0 and set(fold_of[some].tolist()) == {0, 1, 2, 3, 4}
    given = replace(measured(torch.arange(100) % 2, "multiclass", groups=np.arange(100).astype(str)), fold_of=fold_of)
    found = assess(given)
    assert found.images == 100 and found.rows.tolist() == some.tolist() and len(found.right) == 20
    assert found.groups.tolist() == some.numpy().astype(str).tolist()
    assert found.log_me == log_me(given.features, given.labels, classes=2)


def test_the_noise_of_a_difference_is_that_of_the_same_images():
    one, other = assessment([1, 1, 0, 0]), assessment([1, 1, 1, 0])
    assert (one.accuracy, one.error) == (0.5, 0.25)
    distance, error = one.behind(other)
    assert distance == 0.25
    assert error == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
    assert one.within_noise_of(other) and other.within_noise_of(one)
    assert one.behind(one) == (0.0, 0.0) and one.within_noise_of(one)


def test_a_difference_beyond_two_standard_errors_is_no_noise():
    one = assessment([0] * 10 + [1] * 90)
    assert not one.within_noise_of(assessment([1] * 100))
    assert assessment([0] * 3 + [1] * 97).within_noise_of(assessment([1] * 100))
    assert assessment([1] * 100).within_noise_of(one)


def test_images_that_only_one_candidate_has_are_left_out():
    one, other = assessment([1, 0, 1], rows=[0, 4, 7]), assessment([1, 1, 0, 0], rows=[0, 4, 5, 6])
    assert one.behind(other)[0] == 0.5


def test_images_of_one_group_count_as_one():
    values, groups = np.array([1.0, 1.0, 0.0, 0.0]), np.array(["a", "a", "b", "b"])
    assert standard_error(values) == 0.25
    assert standard_error(values, groups) == pytest.approx(math.sqrt(2) / 4)
    assert standard_error(values, np.array(["a", "b", "c", "d"])) == 0.25
    assert assessment(values, groups=groups).error == pytest.approx(math.sqrt(2) / 4)


def test_two_weights_of_one_backbone_are_told_apart():
    named = [Candidate("timm/a"), Candidate("timm/b", "one.pth"), Candidate("timm/b", "two.pth")]
    assert titles(named) == ["a", "b=one.pth", "b=two.pth"]
