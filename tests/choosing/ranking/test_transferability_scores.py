"""Transferability scores are those of the papers' formulas, and put informative features above meaningless ones."""

import math

import pytest
import torch

from tl_lightning.choosing.ranking import evidence, neighbours
from tl_lightning.choosing.ranking.evidence import log_me, log_me_numbers
from tl_lightning.choosing.ranking.neighbours import nearest_neighbours
from tl_lightning.choosing.ranking.scores import h_score, leep, nce
from tl_lightning.probe import features as features_module

SHAPES = [(90, 12, 3), (40, 60, 2), (30, 30, 4)]  # more rows than columns, fewer, and as many


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(features_module, "CHUNK_ROWS", 17)


def draw(rows, width, classes, *, signal=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=generator)
    labels[:classes] = torch.arange(classes)
    centres = torch.randn(classes, width, generator=generator)
    scales = torch.linspace(0.2, 2, width)
    return (signal * centres[labels] + torch.randn(rows, width, generator=generator)) * scales + 0.5, labels


def evidence_of(features, target):
    """Algorithm 1 of You et al. 2021, with explicit inverses and determinants."""
    rows, width = features.shape
    alpha = beta = 1.0
    for _ in range(20_000):
        precision = alpha * torch.eye(width).double() + beta * features.T @ features
        mean = beta * torch.linalg.solve(precision, features.T @ target)
        gamma = float((beta * torch.linalg.eigvalsh(features.T @ features) / torch.linalg.eigvalsh(precision)).sum())
        missed = float((features @ mean - target).square().sum())
        before = alpha / beta
        alpha, beta = gamma / float(mean.square().sum()), (rows - gamma) / missed
        if abs(alpha / beta - before) < 1e-10 * before:
            break
    precision = alpha * torch.eye(width).double() + beta * features.T @ features
    mean = beta * torch.linalg.solve(precision, features.T @ target)
    missed = float((features @ mean - target).square().sum())
    value = rows / 2 * math.log(beta) + width / 2 * math.log(alpha) - rows / 2 * math.log(2 * math.pi)
    value += -beta / 2 * missed - alpha / 2 * float(mean.square().sum()) - float(torch.logdet(precision)) / 2
    return value / rows


@pytest.mark.parametrize(("rows", "width", "classes"), SHAPES)
def test_log_me_is_the_evidence_that_the_papers_iteration_ends_at(rows, width, classes):
    features, labels = draw(rows, width, classes)
    expected = [evidence_of(features.double(), (labels == name).double()) for name in range(classes)]
    assert log_me(features, labels, classes=classes) == pytest.approx(sum(expected) / classes, abs=1e-6)


def test_log_me_of_numbers_is_that_of_each_column():
    features, _ = draw(50, 8, 2)
    generator = torch.Generator().manual_seed(3)
    targets = features[:, :2] @ torch.tensor([[1.0, 0.5], [-2.0, 0.0]]) + torch.randn(50, 2, generator=generator)
    expected = [evidence_of(features.double(), column.double()) for column in targets.T]
    assert log_me_numbers(features, targets) == pytest.approx(sum(expected) / 2, abs=1e-6)
    with_zeros = torch.cat([targets, torch.zeros(50, 1)], dim=1)
    assert log_me_numbers(features, with_zeros) == pytest.approx(log_me_numbers(features, targets), rel=1e-12)


def test_log_me_of_one_hot_targets_is_that_of_the_labels():
    features, labels = draw(60, 9, 3)
    one_hot = torch.nn.functional.one_hot(labels, 3)
    assert log_me_numbers(features, one_hot) == pytest.approx(log_me(features, labels, classes=3), rel=1e-10)


def test_a_class_without_rows_changes_nothing():
    features, labels = draw(60, 9, 3)
    assert log_me(features, labels, classes=5) == pytest.approx(log_me(features, labels, classes=3), rel=1e-12)
    assert h_score(features, labels, classes=5) == pytest.approx(h_score(features, labels, classes=3), rel=1e-12)


def test_the_evidence_at_the_fixed_point_is_a_maximum_over_both_precisions():
    features, labels = draw(70, 6, 2)
    rows, target = features.double(), (labels == 1).double()
    data = evidence._project(features, lambda p, part, x: p.addmm_(target[None, part], x), target.sum()[None], slice(1))
    ratio = float(evidence._fixed_points(data)[0])

    def at(alpha, beta):
        covariance = torch.eye(70).double() / beta + rows @ rows.T / alpha
        return float(torch.distributions.MultivariateNormal(torch.zeros(70).double(), covariance).log_prob(target)) / 70

    lengths, missed = (
        float(value) for value in evidence._lengths(data, data.squares, data.left, torch.tensor([ratio]))
    )
    beta = 70 / (missed + ratio * lengths)
    best = at(ratio * beta, beta)
    assert evidence._mean_evidence(data) == pytest.approx(best, abs=1e-9)
    for factor in (0.8, 1.25):
        assert at(factor * ratio * beta, beta) < best and at(ratio * beta, factor * beta) < best


def test_features_that_are_all_zero_or_rank_deficient_have_an_evidence():
    features, labels = draw(50, 5, 2)
    features = features.double()
    assert math.isfinite(log_me(torch.zeros(50, 5), labels, classes=2))
    twice = torch.cat([features, features], dim=1) / 2**0.5
    assert log_me(twice, labels, classes=2) == pytest.approx(log_me(features, labels, classes=2), abs=1e-9)


def ledoit_wolf_h_score(features, labels, classes):
    from sklearn.covariance import LedoitWolf

    found = LedoitWolf().fit(features.numpy())
    means = torch.stack([features[labels == labels[row]].mean(dim=0) for row in range(len(labels))])
    between = torch.cov(means.T, correction=0)
    return (1 - found.shrinkage_) * float(torch.trace(torch.linalg.solve(torch.from_numpy(found.covariance_), between)))


@pytest.mark.parametrize(("rows", "width", "classes"), SHAPES)
def test_the_h_score_is_that_of_scikit_learns_covariance(rows, width, classes):
    features, labels = draw(rows, width, classes)
    expected = ledoit_wolf_h_score(features.double(), labels, classes)
    assert h_score(features, labels, classes=classes) == pytest.approx(expected, rel=1e-9)
    assert 0 < expected < classes - 1


def test_the_h_score_of_constant_features_is_zero_and_of_one_column_its_share_of_explained_variance():
    features, labels = draw(50, 1, 2)
    assert h_score(torch.ones(50, 3), labels, classes=2) == 0
    column = features[:, 0].double()
    means = torch.stack([column[labels == name].mean() for name in range(2)])[labels]
    expected = float(means.var(correction=0) / column.var(correction=0))
    assert h_score(features, labels, classes=2) == pytest.approx(expected, rel=1e-9)


def voted(features, labels, classes, k):
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    right = []
    for row in range(len(unit)):
        similar = {other: float(unit[row] @ unit[other]) for other in range(len(unit)) if other != row}
        votes = [0.0] * classes
        for other in sorted(similar, key=similar.__getitem__, reverse=True)[:k]:
            votes[int(labels[other])] += math.exp(similar[other] / 0.07)
        right.append(votes.index(max(votes)) == int(labels[row]))
    return right


@pytest.mark.parametrize("k", [1, 5, 100])
def test_neighbours_vote_as_a_naive_loop_has_them_vote(monkeypatch, k):
    monkeypatch.setattr(neighbours, "BLOCK", 11)
    features, labels = draw(60, 10, 3, signal=0.3)
    right = nearest_neighbours(features, labels, classes=3, k=k)
    assert right.tolist() == voted(features, labels, 3, k)
    assert right.any() and not right.all()


def test_kin_do_not_vote_for_each_other(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 11)
    features, labels = draw(60, 10, 3, signal=0.3)
    kin = torch.arange(60) // 25
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    right = nearest_neighbours(features, labels, classes=3, k=40, kin=kin)
    for row in range(60):
        others = (kin != kin[row]).nonzero()[:, 0]  # at times fewer than 40
        similar, best = (unit[others] @ unit[row]).topk(min(40, len(others)))
        votes = torch.zeros(3).double().index_add_(0, labels[others[best]], (similar / 0.07).exp())
        assert bool(right[row]) == (int(votes.argmax()) == int(labels[row]))
    assert right.any() and right.tolist() != nearest_neighbours(features, labels, classes=3, k=40).tolist()
    with pytest.raises(ValueError, match="not all may be kin"):
        nearest_neighbours(features, labels, classes=3, kin=torch.zeros(60).long())


def test_of_many_rows_the_same_sample_is_asked_about(monkeypatch):
    features, labels = draw(60, 10, 3, signal=0.3)
    whole = nearest_neighbours(features, labels, classes=3)
    monkeypatch.setattr(neighbours, "QUERIES", 25)
    asked = neighbours.queries(60)
    assert len(asked) == 25 and torch.equal(asked, neighbours.queries(60))
    assert torch.equal(nearest_neighbours(features, labels, classes=3), whole[asked])


def test_leep_is_the_formula_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(40, 6, generator=generator).softmax(dim=1)
    labels = torch.randint(3, (40,), generator=generator)
    total = 0.0
    for row in range(40):
        inner = 0.0
        for source in range(6):
            both = sum(float(chances[i, source]) for i in range(40) if labels[i] == labels[row])
            inner += both / float(chances[:, source].sum()) * float(chances[row, source])
        total += math.log(inner)
    assert leep(chances, labels, classes=3) == pytest.approx(total / 40, abs=1e-6)


def test_nce_is_the_negative_conditional_entropy():
    generator = torch.Generator().manual_seed(0)
    source, labels = torch.randint(5, (80,), generator=generator), torch.randint(3, (80,), generator=generator)
    total = 0.0
    for z in range(5):
        for y in range(3):
            both = int(((source == z) & (labels == y)).sum())
            total += both / 80 * math.log(both / int((source == z).sum())) if both else 0.0
    assert nce(source, labels) == pytest.approx(total, rel=1e-12)
    assert nce(labels, labels) == 0.0
    assert leep(torch.nn.functional.one_hot(source), labels, classes=3) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_every_score_puts_informative_features_above_shuffled_ones(seed):
    features, labels = draw(120, 16, 3, seed=seed)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(seed))
    chances = (2 * features[:, :5]).softmax(dim=1)
    for score in (
        lambda rows: log_me(rows, labels, classes=3),
        lambda rows: h_score(rows, labels, classes=3),
        lambda rows: float(nearest_neighbours(rows, labels, classes=3).double().mean()),
    ):
        assert score(features) > score(features[order])
    assert leep(chances, labels, classes=3) > leep(chances[order], labels, classes=3)
    assert nce(chances.argmax(dim=1), labels) > nce(chances.argmax(dim=1)[order], labels)


def test_more_signal_scores_higher():
    few = [draw(200, 16, 3, signal=signal) for signal in (0.1, 0.4, 1.5)]
    for score in (log_me, h_score):
        values = [score(features, labels, classes=3) for features, labels in few]
        assert values == sorted(values)


def test_what_is_no_data_is_refused():
    features, labels = draw(20, 4, 2)
    for score in (log_me, h_score, leep, nearest_neighbours):
        with pytest.raises(ValueError, match=r"label"):
            score(features, labels[:10], classes=2)
    features[3, 1] = torch.nan
    for score in (log_me, h_score):
        with pytest.raises(ValueError, match="finite"):
            score(features, labels, classes=2)
    with pytest.raises(ValueError, match="targets"):
        log_me_numbers(features, torch.zeros(20, 2))
    with pytest.raises(ValueError, match="source labels"):
        nce(labels, labels[:3])
