import numpy as np
import pytest

from tl_lightning.choosing.comparing.differences import Difference
from tl_lightning.choosing.comparing.verdict import McNemar, holm, mcnemar, smallest_difference, verdict


def said(value, low, high, *, error=0.01, seeds=3, **words):
    return verdict(Difference(value, low, high, error), seeds=seeds, what="full", reference="scratch", **words)


def test_transfer_that_helped():
    found = said(0.0712, 0.0491, 0.0918)
    assert found.kind == "helped"
    assert found.text == "transfer helped by 7.1 points (95 % CI 4.9 to 9.2), accuracy of full against scratch"


def test_negative_transfer_tells_what_it_cost():
    found = said(-0.031, -0.05, -0.012, metric="macro F1")
    assert found.kind == "negative"
    assert found.text == (
        "negative transfer: it cost 3.1 points (95 % CI 1.2 to 5.0), macro F1 of full against scratch"
    )


def test_no_evidence_says_what_would_have_been_found():
    found = said(0.004, -0.012, 0.020, error=0.0082)
    assert found.kind == "no_evidence"
    assert found.text == (
        "no evidence that transfer helped: 0.4 points (95 % CI -1.2 to 2.0), accuracy of full against scratch; "
        "a true difference of 2.3 points would have been found in four cases of five, a smaller one less often"
    )


def test_an_interval_that_ends_at_nothing_is_no_evidence():
    assert said(0.01, 0.0, 0.02).kind == "no_evidence"
    assert said(-0.01, -0.02, 0.0).kind == "no_evidence"


def test_one_run_is_about_the_trained_models():
    helped, unclear = said(0.0712, 0.0491, 0.0918, seeds=1).text, said(0.0, -0.01, 0.01, seeds=1).text
    tail = "; --seeds 3 would count training noise, too"
    assert helped.endswith("accuracy of full against scratch, of these trained models" + tail)
    assert "against scratch, of these trained models; a true difference of" in unclear
    assert unclear.endswith("less often" + tail)


def test_errors_are_told_in_their_own_units():
    words = {"metric": "mean absolute error", "points": False}
    assert said(0.123, 0.0512, 0.19, **words).text == (
        "transfer helped: the mean absolute error fell by 0.123 (95 % CI 0.0512 to 0.19), full against scratch"
    )
    assert said(-0.123, -0.19, -0.0512, **words).text == (
        "negative transfer: the mean absolute error rose by 0.123 (95 % CI 0.0512 to 0.19), full against scratch"
    )
    assert said(-0.02, -0.09, 0.05, error=0.04, **words).text == (
        "no evidence that transfer helped: the mean absolute error rose by 0.02 (95 % CI -0.05 to 0.09), full against "
        "scratch; a true difference of 0.104 would have been found in four cases of five, a smaller one less often"
    )


def test_errors_that_differ_by_the_same_everywhere_have_no_smallest_difference():
    assert "four cases" not in said(0.0, 0.0, 0.0, error=0.0, metric="mean absolute error", points=False).text


def test_where_both_transfer_the_words_are_neutral():
    better = said(0.012, 0.003, 0.021, both_transfer=True)
    assert (better.kind, better.text) == (
        "better",
        "full is better than scratch by 1.2 points (95 % CI 0.3 to 2.1), accuracy",
    )
    worse = said(-0.012, -0.021, -0.003, both_transfer=True)
    assert (worse.kind, worse.text) == (
        "worse",
        "full is worse than scratch by 1.2 points (95 % CI 0.3 to 2.1), accuracy",
    )
    unclear = said(0.004, -0.012, 0.020, both_transfer=True)
    assert unclear.kind == "no_evidence"
    assert unclear.text.startswith(
        "no evidence of a difference of full to scratch: 0.4 points (95 % CI -1.2 to 2.0), accuracy; a true difference"
    )
    words = {"metric": "mean absolute error", "points": False, "both_transfer": True}
    assert said(-0.123, -0.19, -0.0512, **words).text == (
        "full is worse than scratch by 0.123 (95 % CI 0.0512 to 0.19), more mean absolute error"
    )


def test_a_rounded_zero_has_no_sign():
    assert "0.0 points (95 % CI -1.0 to 1.0)" in said(-0.0001, -0.01, 0.01).text


def test_the_smallest_difference_has_80_percent_power():
    # 2.8 standard errors, where the interval is normal.
    assert smallest_difference(Difference(0.0, -0.0196, 0.0196, 0.01)) == pytest.approx(0.028, rel=0.01)


def test_mcnemar_is_the_exact_binomial_test():
    one = np.array([True] * 10 + [False] * 2 + [True] * 5)
    other = np.array([False] * 10 + [True] * 2 + [True] * 5)
    expected = 2 * (1 + 12 + 66) / 2**12  # 2 or fewer heads of 12, either way
    assert mcnemar(one, other) == McNemar(10, 2, pytest.approx(expected))
    assert mcnemar(other, one).p == pytest.approx(expected)


def test_models_that_agree_everywhere_are_no_surprise():
    assert mcnemar(np.array([True, False]), np.array([True, False])) == McNemar(0, 0, 1.0)


def test_holm_multiplies_the_smallest_most():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
