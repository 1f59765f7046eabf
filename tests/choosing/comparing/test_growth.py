"""Learning curves from the rows of a comparison."""

import pytest

from tl_lightning.choosing.comparing.differences import Difference
from tl_lightning.choosing.comparing.growth import grow
from tl_lightning.choosing.comparing.outcome import Outcome, Row
from tl_lightning.choosing.comparing.results import Measure

ACCURACY = Measure("accuracy", "accuracy", "max", None)
ERROR = Measure("mean_absolute_error", "mean_absolute_error", "min", None, is_error=True)
SIZES = {0.1: 100, 0.25: 250, 0.5: 500, 1.0: 1000}


def outcome(metric, fractions=tuple(SIZES)):
    """Scratch follows a power law, and full another one; each row's difference is that of the two."""
    rows = []
    for fraction in fractions:
        size = SIZES[fraction]
        scratch, full = metric(4 * size**-0.5), metric(0.8 * size**-0.4)
        gain = abs(full - scratch)
        for name, value, difference in (
            ("scratch", scratch, None),
            ("full", full, Difference(gain, gain - 0.01, gain + 0.01, 0.005)),
        ):
            rows.append(Row(name, fraction, (0,), (), value, 0.002, 0.5, difference, labelled=size))
    return Outcome({}, tuple(rows), "scratch", "full", None, None)


def test_curves_are_fitted_and_said_in_words():
    growth = grow(outcome(lambda error: 1 - error), ACCURACY, more=200)
    assert [(line.name, line.sizes) for line in growth.lines] == [
        (name, [100, 250, 500, 1000]) for name in ("scratch", "full")
    ]
    assert (growth.now, growth.more) == (1000, 200)
    assert growth.sentences[0].startswith("full is still ahead of scratch with 1,000 labels")
    assert growth.sentences[1].startswith("200 more labels than 1,000 would bring full about")
    plain = growth.to_dict()
    fitted = plain["strategies"][0]
    assert fitted["scores"] == pytest.approx([1 - 4 * size**-0.5 for size in SIZES.values()])
    law = fitted["power_law"]
    assert law["floor"] + law["scale"] * 1000 ** -law["exponent"] == pytest.approx(4 * 1000**-0.5, abs=0.005)
    assert fitted["gain"]["low"] <= fitted["gain"]["value"] <= fitted["gain"]["high"]


def test_errors_become_scores_with_their_sign_turned():
    growth = grow(outcome(lambda error: error), ERROR, more=200)
    assert growth.lines[1].scores == pytest.approx([-0.8 * size**-0.4 for size in SIZES.values()])
    assert "an error smaller by" in growth.sentences[1]


def test_one_share_has_no_curve_and_two_have_no_forecast():
    assert grow(outcome(lambda error: 1 - error, [1.0]), ACCURACY, more=10) is None
    growth = grow(outcome(lambda error: 1 - error, [0.5, 1.0]), ACCURACY, more=10)
    assert "cannot be said: that needs 3 different sizes" in growth.sentences[1]
    assert growth.to_dict()["strategies"][0]["gain"] is None
