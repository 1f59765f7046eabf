"""Grids and draws, against formulas written down in another way."""

import math

import pytest
from scipy import stats

from tl_lightning.running.sweeping.parameters import Bell, Choice, Range, at, grid

QUANTILES = [0.001, 0.2, 0.5, 0.77, 0.999]


def test_a_grid_goes_through_all_combinations_and_the_last_parameter_changes_first():
    parameters = {"a": Choice(("x", None)), "b": Range(1, 3, integer=True), "c": Choice(([1],))}
    assert grid(parameters) == [{"a": a, "b": b, "c": [1]} for a in ("x", None) for b in (1, 2, 3)]


@pytest.mark.parametrize("parameter", [Range(0.0, 1.0), Range(0, 4, step=2, integer=True), Choice((1, 2), (0.5, 0.5))])
def test_what_has_no_list_of_equal_values_is_in_no_grid(parameter):
    with pytest.raises(ValueError, match=r"a\.b cannot be listed"):
        grid({"a.b": parameter})


def drawn(parameter, count=1000):
    return [at(parameter, (k + 0.5) / count) for k in range(count)]


def test_choices_are_drawn_evenly_exact_and_as_they_stand():
    values = (1, 1.0, None, {"a": [True]})
    assert [id(value) for value in drawn(Choice(values), 4)] == [id(value) for value in values]


def test_choices_with_probabilities_are_drawn_as_often_and_those_of_0_never():
    found = drawn(Choice(("a", "b", "c", "d"), (0.0, 0.3, 0.7, 0.0)))
    assert [found.count(name) for name in "abcd"] == [0, 300, 700, 0]
    assert at(Choice(("a", "b"), (0.9999999, 0.0)), 0.99999999) == "a"  # where they fall short of 1


def test_whole_numbers_are_drawn_evenly_both_ends_included():
    found = drawn(Range(-1, 2, integer=True), 400)
    assert [found.count(value) for value in (-2, -1, 0, 1, 2, 3)] == [0, 100, 100, 100, 100, 0]
    assert {type(value) for value in found} == {int}


@pytest.mark.parametrize("quantile", QUANTILES)
def test_ranges_and_bells_follow_the_inverse_of_their_distributions(quantile):
    close = pytest.approx
    assert at(Range(-1.0, 3.0), quantile) == close(stats.uniform(-1, 4).ppf(quantile))
    assert at(Range(1e-5, 0.1, log=True), quantile) == close(stats.loguniform(1e-5, 0.1).ppf(quantile))
    assert at(Bell("normal", 2.0, 0.5), quantile) == close(stats.norm(2, 0.5).ppf(quantile))
    assert at(Bell("log_normal", -3.0, 1.5), quantile) == close(stats.lognorm(1.5, scale=math.exp(-3)).ppf(quantile))
    assert at(Bell("beta", 2.0, 5.0), quantile) == close(stats.beta(2, 5).ppf(quantile))
    assert at(Bell("normal", 2.0, 0.0), quantile) == 2.0


def test_numbers_are_rounded_to_multiples_which_people_would_have_written():
    assert sorted(set(drawn(Range(0.0, 0.5, step=0.1)))) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert set(drawn(Range(16, 64, log=True, step=16, integer=True))) == {16, 32, 48, 64}
    assert {type(value) for value in drawn(Range(16, 64, log=True, step=16, integer=True))} == {int}
    assert at(Bell("normal", 10.0, 3.0, step=2), 0.5) == 10 and type(at(Bell("normal", 0.0, 3.0, step=2), 0.9)) is int
    assert at(Bell("normal", 0.0, 1.0, step=0.1), 0.9) == 1.3


def test_as_with_wandb_rounding_makes_the_ends_of_a_range_half_as_likely():
    found = drawn(Range(0, 4, step=2, integer=True))
    assert [found.count(value) for value in (0, 2, 4)] == [250, 500, 250]


@pytest.mark.parametrize("parameter", [Range(0.03, 0.7, log=True), Range(0.1, 0.3), Range(0.25, 0.75, step=0.25)])
def test_a_draw_is_never_out_of_its_range_by_rounding(parameter):
    found = drawn(parameter)
    assert parameter.low <= at(parameter, 0.0) == min([at(parameter, 0.0), *found])
    assert max([at(parameter, 1 - 2**-53), *found]) <= parameter.high
