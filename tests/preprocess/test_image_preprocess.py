from dataclasses import replace

import pytest
import torch

from tl_lightning.errors import UserError
from tl_lightning.preprocess import ImagePreprocess, Preprocess

RGB = ImagePreprocess(224, 3, 0.875, "center", "bicubic", (0.5, 0.4, 0.3), (0.1, 0.2, 0.6))


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
    assert ImagePreprocess.from_dict(ranged.to_dict()) == ranged
    older = RGB.to_dict()
    assert older.pop("kind") == "image" and older.pop("pixel_range") is None
    assert older.pop("frames") == "all" and ImagePreprocess.from_dict(older) == RGB


def test_any_kind_is_read_by_its_word_and_none_is_an_image():
    values = RGB.to_dict()
    assert values["kind"] == RGB.kind == "image"
    assert Preprocess.from_dict(values) == RGB
    del values["kind"]
    assert Preprocess.from_dict(values) == RGB
    with pytest.raises(UserError, match=r"^preprocess.kind is 'smell'; this version knows image$"):
        Preprocess.from_dict({"kind": "smell"})


def test_examples_are_what_the_model_takes_also_without_memory():
    (images,) = RGB.with_size(32).example(5, "cpu")
    assert images.shape == (5, 3, 32, 32) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert RGB.example(5, "meta")[0].device.type == "meta"


def test_bytes_become_normalised_numbers_on_the_device_and_the_batch_stays():
    batch = {"image": torch.tensor([0, 255], dtype=torch.uint8).repeat(2, 3, 4, 2), "label": torch.tensor([0, 1])}
    prepared = RGB.on_device(batch)
    assert prepared["label"] is batch["label"] and batch["image"].dtype == torch.uint8
    assert prepared["image"].is_contiguous(memory_format=torch.channels_last)
    black, white = prepared["image"][0, :, 0, 0], prepared["image"][0, :, 0, 1]
    torch.testing.assert_close(black, torch.tensor([-5.0, -2.0, -0.5]))
    torch.testing.assert_close(white, torch.tensor([5.0, 3.0, 0.7 / 0.6]))


def test_differences_are_named_in_the_order_of_this_and_the_other():
    other = replace(RGB, mean=(0.5, 0.4, 0.1), crop_mode="squash", size=99, crop_pct=1.0)
    assert other.differences(RGB) == [
        "mean [0.5, 0.4, 0.1] instead of [0.5, 0.4, 0.3]",
        "crop_mode squash instead of center",
    ]
    assert RGB.differences(RGB) == RGB.with_channels(5).differences(RGB) == []
