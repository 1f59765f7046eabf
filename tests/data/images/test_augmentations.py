from dataclasses import replace

import numpy as np
import pytest
import torch

from tl_lightning.core.randomness import seeded
from tl_lightning.data.dataset import Transform
from tl_lightning.data.images.augmentations import augmentation, evaluation, views
from tl_lightning.data.images.policies import CROP_SCALE
from tl_lightning.data.images.preparing import crop
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 26), dtype=np.uint8))


def seen(transform: Transform, pixels: torch.Tensor) -> torch.Tensor:
    """What becomes of the image of a sample."""
    sample = transform({"image": pixels, "index": 3})
    assert set(sample) == {"image", "index"} and sample["index"] == 3
    image: torch.Tensor = sample["image"]
    return image


def outcomes(name: str, preprocess: ImagePreprocess, pixels: torch.Tensor = PIXELS) -> list[bytes]:
    transform = augmentation(name, preprocess)
    results = []
    for epoch in range(200):
        with seeded(0, epoch, 0):
            result = seen(transform, pixels)
        assert result.shape == (3, 16, 16) and result.dtype == torch.uint8
        results.append(result.numpy().tobytes())
    return results


def test_none_is_the_evaluation_crop(small: ImagePreprocess) -> None:
    assert set(outcomes("none", small)) == {crop(PIXELS, small).numpy().tobytes()}
    assert torch.equal(seen(evaluation(small), PIXELS), crop(PIXELS, small))


def test_flips_mirror_half_of_the_time(small: ImagePreprocess) -> None:
    plain = crop(PIXELS, small)
    results = outcomes("flips", small)
    assert set(results) == {plain.numpy().tobytes(), plain.flip(-1).numpy().tobytes()}
    assert 70 < results.count(plain.numpy().tobytes()) < 130


def test_dihedral_has_the_eight_symmetries_of_the_square(small: ImagePreprocess) -> None:
    plain = crop(PIXELS, small)
    turned = [plain.rot90(k, (1, 2)) for k in range(4)]
    assert set(outcomes("dihedral", small)) == {t.numpy().tobytes() for a in turned for t in (a, a.flip(-1))}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["standard", "randaugment", "trivial"])
def test_endless_augmentations_vary_with_the_seed_alone(small: ImagePreprocess, name: str, channels: int) -> None:
    first = outcomes(name, small, PIXELS[:channels])
    assert len(set(first)) > 190
    assert first == outcomes(name, small, PIXELS[:channels])


@pytest.mark.parametrize("name", ["randaugment", "trivial"])
def test_the_operations_come_behind_a_crop_and_a_mirror(small: ImagePreprocess, name: str) -> None:
    transform = augmentation(name, small)
    crop, mirror, policy = transform.keywords["chain"]  # type: ignore[attr-defined]
    assert (crop.size, crop.scale, mirror.p) == ((16, 16), CROP_SCALE, 0.5)
    assert type(policy).__name__ == {"randaugment": "RandAugment", "trivial": "TrivialAugmentWide"}[name]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_crop_knows_the_interpolations_of_all_weights(small: ImagePreprocess, interpolation: str) -> None:
    outcomes("trivial", replace(small, interpolation=interpolation))


@pytest.mark.parametrize("name", ["standard", "randaugment", "trivial"])
def test_augmentations_of_colour_are_refused_for_other_numbers_of_channels(small: ImagePreprocess, name: str) -> None:
    with pytest.raises(UserError, match=rf"^data.augmentation {name} is for images of 1 or 3 channels, and .* takes 5"):
        augmentation(name, replace(small, channels=5))
    assert seen(augmentation("dihedral", replace(small, channels=5)), PIXELS[:1]).shape == (5, 16, 16)


def test_unknown_augmentation_is_named(small: ImagePreprocess) -> None:
    with pytest.raises(UserError, match=r"data.augmentation 'flip' is unknown; .*; did you mean flips\?"):
        augmentation("flip", small)


def test_the_versions_are_exactly_what_the_augmentation_draws(small: ImagePreprocess) -> None:
    plain = crop(PIXELS, small)
    turned = [plain.rot90(k, (1, 2)) for k in range(4)]
    expected = {"none": [plain], "flips": [plain, plain.flip(-1)], "dihedral": turned + [t.flip(-1) for t in turned]}
    for name, images in expected.items():
        found = [seen(view.transform, PIXELS) for view in views(name, small, count=None)]
        assert len(found) == len(images)
        assert all(torch.equal(one, other) for one, other in zip(found, images, strict=True))
        assert {image.numpy().tobytes() for image in found} == set(outcomes(name, small))


def test_versions_with_equal_pixels_have_equal_names(small: ImagePreprocess) -> None:
    named = {
        view.name: seen(view.transform, PIXELS)
        for name in ("dihedral", "flips", "none")
        for view in views(name, small, count=None)
    }
    assert len(named) == 8
    for name in ("flips", "none"):
        for view in views(name, small, count=None):
            assert torch.equal(named[view.name], seen(view.transform, PIXELS))


def test_an_endless_augmentation_has_as_many_versions_as_are_asked_for(small: ImagePreprocess) -> None:
    assert views("standard", small, count=None) == []
    four = views("standard", small, count=4)
    assert len({view.name for view in four}) == 4
    assert [view.draw for view in four] == [0, 1, 2, 3]
    assert [view.name for view in views("standard", small, count=2)] == [view.name for view in four[:2]]


@pytest.mark.parametrize(("name", "count", "most"), [("none", 2, 1), ("flips", 3, 2), ("dihedral", 9, 8)])
def test_more_versions_than_there_are_is_an_error(small: ImagePreprocess, name: str, count: int, most: int) -> None:
    with pytest.raises(UserError, match=rf"views is {count}, but data.augmentation {name} has only {most}$"):
        views(name, small, count=count)
