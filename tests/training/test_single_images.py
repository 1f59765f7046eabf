"""BatchNorm and batches of one image."""

import torch
from torch import nn

from tl_lightning.training.single_images import layers_of_one_value


def test_a_layer_that_sees_one_pixel_of_one_image_is_found_and_nothing_changes():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)
    ).train()
    assert list(layers_of_one_value(net, [torch.zeros(1, 3, 8, 8)])) == ["4"]
    assert net.training and net[4].training
    assert not net[4].num_batches_tracked
