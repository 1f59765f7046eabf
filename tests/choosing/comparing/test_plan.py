"""What is wrong with a comparison before its first run."""

import numpy as np
import pytest

from tl_lightning.choosing.comparing.plan import Yardstick
from tl_lightning.errors import UserError


@pytest.mark.parametrize(
    ("groups", "message"),
    [(None, "images has one test image, which"), (np.array(["a"]), "images has one test group, which")],
)
def test_one_test_image_or_group_cannot_say_how_it_would_be_elsewhere(groups, message):
    tested = Yardstick("multiclass", ("a", "b"), np.arange(1), np.zeros(1, dtype=np.int64), groups)
    with pytest.raises(UserError, match=message):
        tested.check_several("images")


@pytest.mark.parametrize("groups", [None, np.array(["a", "a", "b"])])
def test_several_test_images_or_groups_can(groups):
    Yardstick("multiclass", ("a", "b"), np.arange(3), np.zeros(3, dtype=np.int64), groups).check_several("images")
