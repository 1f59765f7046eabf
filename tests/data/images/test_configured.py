"""Tests of transforms by class; the image is of noise, 20 x 26, of which the model sees 16 x 16."""

import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import Namespace
from torch import Tensor

from tl_lightning.core.randomness import seeded
from tl_lightning.data.dataset import Transform
from tl_lightning.data.images.augmentations import augmentation, evaluation, title, views
from tl_lightning.data.images.configured import plain
from tl_lightning.data.images.decoding import DecodedImage
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.images.preparing import resize
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 26), dtype=np.uint8))


def seen(transform: Transform, pixels: torch.Tensor) -> torch.Tensor:
    """What becomes of the image of a sample."""
    sample = transform({"image": pixels, "index": 3})
    assert set(sample) == {"image", "index"} and sample["index"] == 3
    image: torch.Tensor = sample["image"]
    return image


V2 = "torchvision.transforms.v2."


def by_class(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": V2 + name, "init_args": arguments}


class Threads:
    """Writes into its image how many threads it had."""

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.fill_(torch.get_num_threads())


class Unlucky:
    """Cuts all but a column from images that are wider than high, which no trial is."""

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels[0] if pixels.shape[2] > pixels.shape[1] else pixels


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("users_own")
    module.__dict__.update(Threads=Threads, Unlucky=Unlucky, number=3)
    monkeypatch.setitem(sys.modules, "users_own", module)
    yield


def test_a_transform_sees_the_whole_stored_image_and_the_crop_comes_last(small: ImagePreprocess) -> None:
    turned = augmentation(by_class("RandomHorizontalFlip", p=1.0), small)
    assert torch.equal(seen(turned, PIXELS), seen(evaluation(small), PIXELS.flip(-1)))


def test_a_transform_may_crop_to_the_models_size_itself(small: ImagePreprocess) -> None:
    transform = augmentation(by_class("RandomCrop", size=16), small)
    squares = {
        square.numpy().tobytes()
        for square in PIXELS.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    }
    drawn = set()
    for epoch in range(50):
        with seeded(0, epoch, 0):
            drawn.add(seen(transform, PIXELS).numpy().tobytes())
    assert drawn <= squares and len(drawn) > 20


def test_a_result_of_another_size_is_prepared_like_any_image(small: ImagePreprocess) -> None:
    transform = augmentation(by_class("CenterCrop", size=10), small)
    middle = DecodedImage(PIXELS[:, 5:15, 8:18].permute(1, 2, 0).contiguous().numpy(), (10, 10), (0, 0, 10, 10))
    expected = torch.from_numpy(resize(middle, small).copy()).permute(2, 0, 1)
    assert expected.shape == (3, 20, 20)
    assert torch.equal(seen(transform, PIXELS), seen(evaluation(small), expected))


def test_a_list_is_applied_in_its_order(small: ImagePreprocess) -> None:
    flip, crop = by_class("RandomHorizontalFlip", p=1.0), by_class("Pad", padding=[0, 0, 10, 0])
    both, reverse = augmentation([flip, crop], small), augmentation([crop, flip], small)
    assert not torch.equal(seen(both, PIXELS), seen(reverse, PIXELS))
    assert torch.equal(seen(augmentation([flip, flip], small), PIXELS), seen(evaluation(small), PIXELS))


def test_objects_within_the_arguments_are_made_too(small: ImagePreprocess) -> None:
    nested = by_class("RandomApply", transforms=[by_class("RandomHorizontalFlip", p=1.0)], p=1.0)
    assert torch.equal(seen(augmentation(nested, small), PIXELS), seen(evaluation(small), PIXELS.flip(-1)))


def test_transforms_of_pil_images_can_be_wrapped(small: ImagePreprocess) -> None:
    policy = {
        "class_path": "timm.data.auto_augment.rand_augment_transform",
        "init_args": {"config_str": "rand-m9-mstd0.5", "hparams": {}},
    }
    transform = augmentation([by_class("ToPILImage"), policy, by_class("PILToTensor")], small)
    drawn = set()
    for epoch in range(20):
        with seeded(0, epoch, 0):
            drawn.add(seen(transform, PIXELS).numpy().tobytes())
    assert len(drawn) > 5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transform_sees_the_models_channels_and_may_write_into_them(small: ImagePreprocess, channels: int) -> None:
    transform = augmentation({"class_path": "users_own.Threads"}, replace(small, channels=channels))
    for given in (PIXELS, PIXELS[:1]):
        assert seen(transform, given.clone()).shape == (channels, 16, 16)


def test_it_is_picklable_for_workers_that_are_spawned(small: ImagePreprocess) -> None:
    transform = augmentation(by_class("RandomPerspective", distortion_scale=0.3), small)
    again = pickle.loads(pickle.dumps(transform))
    results = []
    for one in (transform, again):
        with seeded(0, 1, 2):
            results.append(seen(one, PIXELS))
    assert torch.equal(*results)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_prepared_by_one_thread(folder: Path, small: ImagePreprocess, workers: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        data = ImageDataModule(
            str(folder), small.to_dict(), augmentation={"class_path": "users_own.Threads"}, num_workers=workers
        )
        data.setup("fit")
        assert {int(value) for batch in data.train_dataloader() for value in batch["image"].unique()} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_views_tell_configurations_apart_whatever_the_order_of_their_keys(small: ImagePreprocess) -> None:
    one = {"class_path": V2 + "RandomRotation", "init_args": {"degrees": 9, "expand": True}}
    same = {"init_args": {"expand": True, "degrees": 9}, "class_path": V2 + "RandomRotation"}
    others = [by_class("RandomRotation", degrees=8, expand=True), [one], [one, one]]
    assert views(one, small, count=None) == []
    names = [[view.name for view in views(each, small, count=2)] for each in (one, same, *others)]
    assert names[0] == names[1]
    assert len({name for pair in names for name in pair}) == 8
    assert [view.draw for view in views(one, small, count=2)] == [0, 1]
    assert title(one) == title(same) != title("trivial") == "trivial"


def test_what_jsonargparse_makes_of_nested_classes_is_plain_again() -> None:
    parsed = {
        "class_path": "a.B",
        "init_args": {"parts": [Namespace(class_path="c.D", init_args=Namespace(size=(1, 2)))]},
    }
    parts = [{"class_path": "c.D", "init_args": {"size": [1, 2]}}]
    assert plain(parsed) == {"class_path": "a.B", "init_args": {"parts": parts}}
    assert plain("flips") == "flips"


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({}, "here.class_path is None; give an import path such as torchvision.transforms.v2.ColorJitter"),
        ({"class_path": "ColorJitter"}, "here.class_path is 'ColorJitter'; give an import path"),
        (
            {"class_path": "no_such.Class"},
            "here.class_path is 'no_such.Class', which cannot be imported (ModuleNotFoundError",
        ),
        ({"class_path": V2 + "ColorJiter"}, "has no 'ColorJiter'; did you mean ColorJitter"),
        ({"class_path": "users_own.number"}, "here.class_path is 'users_own.number', which is no class"),
        ({"class_path": V2 + "ColorJitter", "args": {}}, "here: unknown key 'args'"),
        ({"class_path": V2 + "ColorJitter", "init_args": 3}, "here.init_args is 3; it must be a mapping"),
        (by_class("ColorJitter", hu=1), "here: torchvision.transforms.v2.ColorJitter refuses its init_args; TypeError"),
        (
            by_class("ColorJitter", hue=7),
            "here: torchvision.transforms.v2.ColorJitter refuses its init_args; ValueError",
        ),
        (
            by_class("RandomApply", transforms=[by_class("No")]),
            "here.init_args.transforms[0].class_path is 'torchvision.transforms.v2.No', but",
        ),
        ({"class_path": "collections.OrderedDict"}, "here: collections.OrderedDict is no transform"),
        ([], "here is an empty list"),
        ([by_class("RandomHorizontalFlip"), 3], "here[1] is 3; it must be a mapping with class_path"),
        (
            [by_class("RandomHorizontalFlip"), by_class("RandomCrop", size=90)],
            "here[1] fails on uint8 pixels (3, 20, 20)",
        ),
        (by_class("Normalize", mean=[0.5], std=[0.5]), "here fails on uint8 pixels (3, 20, 20); TypeError"),
        (
            {"class_path": V2 + "ConvertImageDtype"},
            "here gives torch.float32; it must give uint8 pixels: leave out ToDtype, ToTensor and Normalize",
        ),
        (by_class("ToPILImage"), "here gives Image; it must give a tensor of pixels, as PILToTensor does"),
        (by_class("Grayscale"), "here gives shape (1, 20, 20); it must be (3, height, width)"),
    ],
)
def test_mistakes_are_named_before_anything_trains(small: ImagePreprocess, configured: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        augmentation(configured, small, key="here")
    assert str(error.value).startswith(message) or message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_fails_on_some_images_only_is_named_when_it_does(small: ImagePreprocess) -> None:
    transform = augmentation({"class_path": "users_own.Unlucky"}, small)
    with pytest.raises(UserError, match=r"^data.augmentation gives shape \(20, 26\); it must be \(3, height, width\)$"):
        seen(transform, PIXELS)
