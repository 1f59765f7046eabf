import numpy as np
import pytest
import torch
from torch import Tensor

from tl_lightning.data.images.mixing import check_mixing, mix
from tl_lightning.errors import UserError

IMAGE = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABEL = torch.tensor([0, 1, 2, 2])
ONE_HOT = torch.eye(3)[LABEL]


def mixed(mixup: float, cutmix: float, *place: int) -> tuple[Tensor, Tensor]:
    return mix(IMAGE, LABEL, classes=3, mixup=mixup, cutmix=cutmix, place=place)


def is_cut(image: Tensor) -> bool:
    """Whether every pixel comes from one image or the other."""
    return bool(((image == IMAGE) | (image == IMAGE.flip(0))).all())


def test_mixup_blends_each_image_with_its_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "beta", lambda *alpha: {(0.2, 0.2): 0.25}[alpha])
    before = IMAGE.clone()
    image, target = mixed(0.2, 0.0, 1, 2, 3)
    assert torch.equal(image, 0.25 * IMAGE + 0.75 * IMAGE.flip(0))
    assert torch.equal(target, 0.25 * ONE_HOT + 0.75 * ONE_HOT.flip(0))
    assert target.dtype == torch.float32 and target.tolist()[0] == [0.25, 0.0, 0.75]
    assert torch.equal(IMAGE, before)


def test_cutmix_answers_by_the_area_that_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "beta", lambda *alpha: {(1.0, 1.0): 0.75}[alpha])
    before = IMAGE.clone()
    shares = set()
    for number in range(40):
        image, target = mixed(0.0, 1.0, 0, 0, number)
        assert is_cut(image)
        own = float((image[0] == IMAGE[0]).float().mean())
        assert torch.allclose(target, own * ONE_HOT + (1 - own) * ONE_HOT.flip(0), atol=1e-6)
        shares.add(own)
    assert min(shares) == 0.75 < max(shares)  # a rectangle over the edge covers less
    assert torch.equal(IMAGE, before)


def test_both_take_turns_by_chance() -> None:
    cut = sum(is_cut(mixed(1.0, 1.0, 0, 0, number)[0]) for number in range(200))
    assert 70 < cut < 130


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0)])
def test_the_mix_is_a_function_of_the_place_alone(mixup: float, cutmix: float) -> None:
    np.random.seed(0)
    first = mixed(mixup, cutmix, 1, 2, 3, 0)
    again = mixed(mixup, cutmix, 1, 2, 3, 0)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    for other in ((2, 2, 3, 0), (1, 3, 3, 0), (1, 2, 4, 0), (1, 2, 3, 1)):
        assert not torch.equal(mixed(mixup, cutmix, *other)[0], first[0])
    drawn = np.random.rand()
    np.random.seed(0)
    assert drawn == np.random.rand()


def test_rows_add_up_to_one() -> None:
    for number in range(20):
        assert torch.allclose(mixed(0.3, 0.7, 0, number)[1].sum(1), torch.ones(4), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((-0.1, 0.0, 4), "data.mixup is -0.1; it must be 0 (off) or a positive number"),
        ((0.0, float("inf"), 4), "data.cutmix is inf; it must be 0 (off) or a positive number"),
        ((float("nan"), 0.0, 4), "data.mixup is nan; it must be 0 (off) or a positive number"),
        ((0.0, 1.0, 5), "data.batch_size is 5; data.cutmix 1.0 pairs the images of a batch: use an even one"),
    ],
)
def test_wrong_settings_are_named(settings: tuple[float, float, int], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_mixing(*settings)
    assert str(error.value) == message


def test_an_odd_batch_is_fine_where_nothing_is_mixed() -> None:
    check_mixing(0.0, 0.0, 5)
