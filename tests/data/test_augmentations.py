import numpy as np
import pytest
import torch

from tl_lightning.data.augmentations import augmentation, evaluation
from tl_lightning.data.pictures import crop
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess
from tl_lightning.randomness import seeded

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 26), dtype=np.uint8))


def outcomes(name: str, preprocess: Preprocess, pixels: torch.Tensor = PIXELS) -> list[bytes]:
    transform = augmentation(name, preprocess)
    results = []
    for epoch in range(200):
        with seeded(0, epoch, 0):
            result = transform(pixels)
        assert result.shape == (3, 16, 16) and result.dtype == torch.uint8
        results.append(result.numpy().tobytes())
    return results


def test_none_is_the_evaluation_crop(small: Preprocess) -> None:
    assert set(outcomes("none", small)) == {crop(PIXELS, small).numpy().tobytes()}
    assert torch.equal(evaluation(small)(PIXELS), crop(PIXELS, small))


def test_flips_mirror_half_of_the_time(small: Preprocess) -> None:
    plain = crop(PIXELS, small)
    results = outcomes("flips", small)
    assert set(results) == {plain.numpy().tobytes(), plain.flip(-1).numpy().tobytes()}
    assert 70 < results.count(plain.numpy().tobytes()) < 130


def test_dihedral_has_the_eight_symmetries_of_the_square(small: Preprocess) -> None:
    plain = crop(PIXELS, small)
    turned = [plain.rot90(k, (1, 2)) for k in range(4)]
    assert set(outcomes("dihedral", small)) == {t.numpy().tobytes() for a in turned for t in (a, a.flip(-1))}


@pytest.mark.parametrize("channels", [1, 3])
def test_standard_varies_with_the_seed_alone(small: Preprocess, channels: int) -> None:
    first = outcomes("standard", small, PIXELS[:channels])
    assert len(set(first)) > 190
    assert first == outcomes("standard", small, PIXELS[:channels])


def test_unknown_augmentation_is_named(small: Preprocess) -> None:
    with pytest.raises(UserError, match=r"data.augmentation 'flip' is unknown; .*; did you mean flips\?"):
        augmentation("flip", small)
