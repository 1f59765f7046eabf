"""A pretraining that is known to harm is called negative, one that is known to help is not."""

import importlib.util
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks/negative_transfer.py"


@pytest.mark.slow
def test_harmful_weights_are_called_negative_and_useful_ones_helpful(tmp_path):
    spec = importlib.util.spec_from_file_location("negative_transfer", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.make_weights(tmp_path)
    code, kind, text = benchmark.compare(tmp_path, "harmful")
    assert (code, kind) == (3, "negative")
    assert text.startswith("negative transfer: it cost ")
    code, kind, text = benchmark.compare(tmp_path, "useful", seeds=3)
    assert (code, kind) == (0, "helped")
    assert text.startswith("transfer helped by ")
