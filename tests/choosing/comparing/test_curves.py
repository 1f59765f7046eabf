import math
import re

import numpy as np
import pytest
from pages import check_page
from scipy.optimize import nnls

from tl_lightning.choosing.comparing.charts import draw_curves
from tl_lightning.choosing.comparing.curves import catches_up, forecast, gain_in_words, gain_of
from tl_lightning.choosing.comparing.differences import Difference
from tl_lightning.choosing.comparing.growth import Line
from tl_lightning.choosing.comparing.power_law import EXPONENTS, fit_curve
from tl_lightning.core.pages.page import Charts, to_html

SIZES = [100, 200, 490, 980, 1960]


def law(floor, scale, exponent):
    return lambda n: 1 - floor - scale * (np.asarray(n) / 100) ** -exponent


def fitted(scores, error=0.001, sizes=SIZES, **options):
    return fit_curve(sizes, scores(sizes) if callable(scores) else scores, [error] * len(sizes), **options)


def test_a_planted_power_law_is_found_again():
    truth = law(0.05, 0.23, 0.5)
    curve = fitted(truth)
    assert curve.floor == pytest.approx(0.05, abs=0.003)
    assert curve.exponent == pytest.approx(0.5, rel=0.04)
    assert forecast(curve, 3920).value == pytest.approx(truth(3920), abs=0.001)
    assert gain_of(curve, 1960, 200).value == pytest.approx(truth(2160) - truth(1960), rel=0.05)


def test_the_fit_is_the_best_with_no_parameter_below_0():
    rng = np.random.default_rng(0)
    for scores in rng.uniform(0.6, 0.95, size=(20, 4)):
        sizes, errors = np.array([50, 100, 300, 1000]), np.array([0.02, 0.01, 0.02, 0.005])
        curve = fit_curve(sizes, scores, errors, draws=1)
        if curve.smallest > 50:  # left out, as the four are implausible
            sizes, scores, errors = sizes[1:], scores[1:], errors[1:]
        best = math.inf
        for exponent in EXPONENTS:
            columns = np.stack([np.ones(len(sizes)), sizes**-exponent], axis=1)
            best = min(best, nnls(columns / errors[:, None], (1 - scores) / errors)[1] ** 2)
        missed = 1 - scores - curve.floor - curve.scale * sizes**-curve.exponent
        assert ((missed / errors) ** 2).sum() == pytest.approx(best, rel=1e-6, abs=1e-9)
        assert curve.floor >= 0 and curve.scale >= 0


def test_fewer_than_three_sizes_give_no_curve():
    assert fit_curve([100, 100, 200, 200], [0.7, 0.72, 0.8, 0.79], [0.01] * 4) is None
    assert gain_in_words(None, 200, 50, name="full") == (
        "what 50 more labels would bring full cannot be said: that needs 3 different sizes"
    )


@pytest.mark.parametrize("error", [math.inf, math.nan])
def test_an_error_that_is_not_finite_gives_no_curve(error):
    assert fit_curve([100, 200, 400], [0.7, 0.8, 0.9], [0.01, error, 0.01]) is None


def test_small_sizes_that_follow_no_power_law_are_left_out():
    def s_shaped(n):
        return 0.9 - 0.3 / (1 + (np.asarray(n) / 800) ** 1.5)

    curve = fitted(s_shaped, error=0.005, sizes=[50, 100, 200, 400, 800, 1600])
    assert curve.smallest > 50
    assert fitted(law(0.05, 0.23, 0.5), error=0.005).smallest == 100


def test_points_far_off_the_curve_widen_the_forecast():
    smooth, rough = [0.70, 0.75, 0.80], [0.72, 0.90, 0.80]
    sizes = [100, 200, 400] * 2
    calm = fit_curve(sizes, smooth * 2, [0.01] * 6)
    wild = fit_curve(sizes, [*rough, *(score - 0.1 for score in rough)], [0.01] * 6)
    assert calm.misfit < 1.5 < 3 < wild.misfit
    assert np.ptp(forecast(wild, 800)[1:]) > 2 * np.ptp(forecast(calm, 800)[1:])
    assert gain_in_words(wild, 400, 100, name="full").endswith("; the points follow no power law, so this is rough")


def test_a_score_without_noise_does_not_rule():
    curve = fit_curve(SIZES, [0.80, 0.85, 0.90, 0.93, 1.0], [0.016, 0.014, 0.012, 0.01, 0.0])
    assert math.isfinite(curve.misfit)
    assert forecast(curve, 100).value < 0.9


def test_errors_in_their_own_units_fall_too():
    curve = fitted(lambda n: -(0.2 + 3 * np.asarray(n) ** -0.5), perfect=0.0)
    assert forecast(curve, 4000).value == pytest.approx(-0.2 - 3 * 4000**-0.5, abs=0.002)
    text = gain_in_words(curve, 1960, 200, name="full", points=False)
    assert text.startswith("200 more labels than 1,960 would bring full about an error smaller by 0.00")


def test_what_more_labels_bring_is_told_with_its_interval():
    curve = fitted(law(0.05, 0.23, 0.5), error=0.01)
    value, low, high = (100 * number for number in gain_of(curve, 1960, 200))
    assert 0 <= low < value < high < 1
    assert gain_in_words(curve, 1960, 200, name="full") == (
        f"200 more labels than 1,960 would bring full about {value:.1f} points (95 % CI {low:.1f} to {high:.1f})"
    )


def test_forecasts_hold_the_truth_about_as_often_as_they_say():
    truth, rng, held = law(0.05, 0.23, 0.5), np.random.default_rng(0), np.zeros(3)
    scores = truth(SIZES)
    errors = np.sqrt(scores * (1 - scores) / 656)
    for _ in range(100):
        curve = fit_curve(SIZES, scores + errors * rng.normal(size=5), errors, draws=100)
        estimates = forecast(curve, 2160), forecast(curve, 3920), gain_of(curve, 1960, 200)
        truths = truth(2160), truth(3920), truth(2160) - truth(1960)
        held += [low <= true <= high for (_, low, high), true in zip(estimates, truths, strict=True)]
    assert (held >= 88).all()
    assert held[0] < 100


def apart(*values, half=0.02):
    return [Difference(value, value - half, value + half, half / 2) for value in values]


def test_catching_up_is_measured_first():
    found = catches_up(None, None, SIZES, apart(0.2, 0.1, 0.05, 0.015, 0.01), names=("scratch", "full"))
    assert (found.labels, found.low, found.high) == (980, 980, 980)
    assert found.text == "scratch cannot be told from full from 980 labels on"


def test_a_size_that_is_far_apart_again_counts():
    differences = apart(0.2, 0.01, 0.05, 0.03, 0.01)
    assert catches_up(None, None, SIZES, differences, names=("scratch", "full")).labels == 1960
    reverse = catches_up(None, None, SIZES[::-1], differences[::-1], names=("scratch", "full"))
    assert reverse.labels == 1960


def test_a_reference_that_is_ahead_is_said_to_be():
    names = ("scratch", "full")
    found = catches_up(None, None, SIZES, apart(0.1, 0.01, -0.1, -0.2, -0.2), names=names)
    assert found.labels == 200
    assert found.text == "scratch cannot be told from full from 200 labels on, and is ahead of it from 490 labels on"
    found = catches_up(None, None, SIZES, apart(0.1, 0.1, -0.1, -0.2, -0.2), names=names)
    assert found.text == "scratch is ahead of full from 490 labels on"
    found = catches_up(None, None, SIZES[:2], apart(-0.1, -0.1), names=names)
    assert found.text == "scratch is ahead of full from 100 labels on, the fewest that were tried"


def test_strategies_that_never_were_apart():
    found = catches_up(None, None, SIZES, apart(0.01, 0, 0, -0.1, 0), names=("scratch", "full"))
    assert found.text == "scratch cannot be told from full with 100 labels, the fewest that were tried"


def test_catching_up_is_foretold_where_it_was_not_measured():
    slow, fast = law(0.05, 0.45, 0.5), law(0.05, 0.20, 0.5)
    differences = apart(*(fast(SIZES) - slow(SIZES)))
    found = catches_up(fitted(slow), fitted(fast), SIZES, differences, names=("scratch", "full"))
    # 0.25 (n / 100)^-0.5 = 0.02 where n is 15,625
    assert found.labels == pytest.approx(15625, rel=0.1)
    assert found.low <= found.labels <= found.high
    assert found.text.startswith(
        "full is still ahead of scratch with 1,960 labels; by the fitted curves they could not be told apart "
        "from about 1"
    )


def test_where_curves_meet_is_as_unsure_as_both_of_them():
    slow, fast = law(0.05, 0.45, 0.5), law(0.05, 0.20, 0.5)
    differences = apart(*(fast(SIZES) - slow(SIZES)))
    sure, unsure = (
        catches_up(fitted(slow, error), fitted(fast, error), SIZES, differences, names=("scratch", "full"))
        for error in (0.001, 0.01)
    )
    assert unsure.low < sure.low < sure.labels < sure.high <= unsure.high == math.inf
    assert "(95 % CI " in unsure.text
    assert unsure.text.endswith("to more than 19,600)")


def test_what_does_not_catch_up_within_ten_times_the_labels_is_said_so():
    slow, fast = law(0.20, 0.30, 0.5), law(0.05, 0.20, 0.5)
    differences = apart(*(fast(SIZES) - slow(SIZES)))
    found = catches_up(fitted(slow), fitted(fast), SIZES, differences, names=("scratch", "full"))
    assert (found.labels, found.high) == (None, math.inf)
    assert found.text == (
        "full is still ahead of scratch with 1,960 labels, and by the fitted curves scratch does not catch up within "
        "10 times as many"
    )


def test_without_curves_nothing_is_foretold():
    found = catches_up(None, None, [100, 200], apart(0.2, 0.1), names=("scratch", "full"))
    assert found.labels is None
    assert found.text.endswith("where scratch would catch up cannot be said: that needs 3 different sizes")


def test_curves_are_drawn():
    scores = law(0.05, 0.23, 0.5)(SIZES)
    lines = [
        Line("scratch", SIZES, scores, [0.01] * 5, fitted(scores, error=0.01)),
        Line("full", SIZES[:2], [0.8, 0.85], [0.01] * 2, None),
    ]
    chart = draw_curves(lines, metric="accuracy", perfect=1.0, until=2 * SIZES[-1])
    page = check_page(to_html("curves", [Charts("", [chart])]))
    written = re.findall(r">([^<>]+)</text>", page.charts[0])
    assert {"scratch", "full", f"{2 * SIZES[-1]:,}", "labelled images", "test accuracy (± 1 s.e.)"} <= {*written}
    assert len(re.findall("stroke-dasharray", page.charts[0])) == 1  # the fitted curve; full has none
