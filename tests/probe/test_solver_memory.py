"""However many rows there are, only a chunk of them is in memory."""

import pytest

from tl_lightning.probe import features as features_module
from tl_lightning.probe import logistic_path, ridge_classifier, score_path
from tl_lightning.probe import problem as problem_module


class Watched:
    """Remembers the largest slice that was asked for."""

    def __init__(self, features):
        self.shape = features.shape
        self.largest = 0
        self._features = features

    def __getitem__(self, rows):
        self.largest = max(self.largest, rows.stop - rows.start)
        return self._features[rows]


@pytest.fixture(autouse=True)
def chunks_of_seven_rows(monkeypatch):
    monkeypatch.setattr(features_module, "CHUNK_BYTES", 7 * 6 * 8)
    monkeypatch.setattr(problem_module, "KEPT_BYTES", 7 * 6 * 8)


def test_a_path_reads_chunk_by_chunk(draw):
    features, labels = draw(100, 6, 2)
    watched = Watched(features)
    path = logistic_path(watched, labels, classes=2, strengths=(0.1, 1.0))
    score_path(path, watched, labels)
    assert watched.largest == 7


def test_ridge_reads_chunk_by_chunk(draw):
    features, labels = draw(100, 6, 2)
    watched = Watched(features)
    ridge_classifier(watched, labels, classes=2)
    assert watched.largest == 7


def test_narrow_features_are_read_in_chunks_too(draw, monkeypatch):
    monkeypatch.setattr(features_module, "CHUNK_BYTES", 2**20)
    monkeypatch.setattr(features_module, "CHUNK_ROWS", 10)
    monkeypatch.setattr(problem_module, "CHUNK_ROWS", 10)
    monkeypatch.setattr(problem_module, "KEPT_BYTES", 2**20)
    features, labels = draw(64, 6, 3)
    watched = Watched(features)
    logistic_path(watched, labels, classes=3, strengths=(1.0,))
    assert watched.largest == 10
