from dataclasses import replace

import pytest

from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import Preprocess

RGB = Preprocess(224, 3, 0.875, "center", "bicubic", (0.5, 0.4, 0.3), (0.1, 0.2, 0.6))


def test_channels_repeat_the_weights_means_and_one_has_their_average():
    five = RGB.with_channels(5)
    assert five == replace(RGB, channels=5, mean=(0.5, 0.4, 0.3, 0.5, 0.4), std=(0.1, 0.2, 0.6, 0.1, 0.2))
    two = RGB.with_channels(2)
    assert (two.mean, two.std) == ((0.5, 0.4), (0.1, 0.2))
    one = RGB.with_channels(1)
    assert one.channels == 1 and one.mean == pytest.approx((0.4,)) and one.std == pytest.approx((0.3,))
    assert RGB.with_channels(3) is RGB.with_channels(None) is RGB
    with pytest.raises(UserError, match="channels is 0; it must be 1 or more"):
        RGB.with_channels(0)


def test_a_range_is_two_numbers_the_lower_one_first():
    assert RGB.with_pixel_range([0, 4095]) == replace(RGB, pixel_range=(0.0, 4095.0))
    assert RGB.with_pixel_range(None) is RGB
    for wrong in ([1], [0, 1, 2], [5, 5], [1, 0], [0, float("inf")], [float("nan"), 1]):
        with pytest.raises(UserError, match="it must be two numbers, what is black and what is white"):
            RGB.with_pixel_range(wrong)


def test_plain_values_come_back_and_older_ones_have_no_range():
    ranged = RGB.with_pixel_range([-1, 1])
    assert ranged.to_dict()["pixel_range"] == [-1.0, 1.0]
    assert Preprocess.from_dict(ranged.to_dict()) == ranged
    older = RGB.to_dict()
    assert older.pop("pixel_range") is None and Preprocess.from_dict(older) == RGB
