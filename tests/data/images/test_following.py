"""Boxes and masks follow their image: the image and the mask hold one filled box each, so what is seen says where."""

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from tl_lightning.core.randomness import seeded
from tl_lightning.data.dataset import Sample
from tl_lightning.data.images.augmentations import augmentation, evaluation, views
from tl_lightning.data.images.following import resize_to
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

HEIGHT, WIDTH = 20, 26
LEFT, TOP, RIGHT, BOTTOM = 7, 4, 12, 7
V2 = "torchvision.transforms.v2."


def boxes(*corners: tuple[int, int, int, int], size: tuple[int, int] = (HEIGHT, WIDTH)) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(torch.tensor(corners).float(), format="XYXY", canvas_size=size)


def a_sample() -> Sample:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 100, (3, HEIGHT, WIDTH), dtype=np.uint8))
    pixels[:, TOP:BOTTOM, LEFT:RIGHT] = 255
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    mask[TOP:BOTTOM, LEFT:RIGHT] = 1
    return {
        "image": pixels,
        "label": torch.tensor(1),
        "index": 5,
        "boxes": boxes((LEFT, TOP, RIGHT, BOTTOM)),
        "mask": tv_tensors.Mask(mask),
    }


def place_of(marked: Tensor) -> list[int]:
    """The corners of what is marked."""
    rows, columns = torch.nonzero(marked, as_tuple=True)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def check(sample: Sample) -> list[int]:
    """That image, mask and box say the same place; which one."""
    marked = (sample["image"] == 255).all(0)
    assert isinstance(sample["mask"], tv_tensors.Mask) and torch.equal(sample["mask"].bool(), marked)
    assert isinstance(sample["boxes"], tv_tensors.BoundingBoxes)
    assert tuple(functional.get_size(sample["boxes"])) == tuple(functional.get_size(sample["mask"])) == (16, 16)
    assert sample["boxes"].tolist() == [place_of(marked)]
    assert type(sample["image"]) is Tensor and int(sample["label"]) == 1 and sample["index"] == 5
    return place_of(marked)


def test_the_crop_moves_what_is_in_the_image(small: ImagePreprocess) -> None:
    assert check(evaluation(small)(a_sample())) == [LEFT - 5, TOP - 2, RIGHT - 5, BOTTOM - 2]


@pytest.mark.parametrize("name", ["flips", "dihedral"])
def test_boxes_and_masks_follow_every_symmetry(small: ImagePreprocess, name: str) -> None:
    fixed = [tuple(check(view.transform(a_sample()))) for view in views(name, small, count=None)]
    assert len(set(fixed)) == len(fixed) == {"flips": 2, "dihedral": 8}[name]
    drawn, transform = set(), augmentation(name, small)
    for epoch in range(60):
        with seeded(0, epoch, 0):
            drawn.add(tuple(check(transform(a_sample()))))
    assert drawn == set(fixed)


@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_keep_their_format(small: ImagePreprocess, form: str) -> None:
    for view in views("dihedral", small, count=None):
        corners, other = a_sample(), a_sample()
        form_of = tv_tensors.BoundingBoxFormat[form]
        other["boxes"] = functional.convert_bounding_box_format(other["boxes"], new_format=form_of)
        result = view.transform(other)["boxes"]
        assert result.format == form_of
        back = functional.convert_bounding_box_format(result, new_format=tv_tensors.BoundingBoxFormat.XYXY)
        assert torch.equal(back, view.transform(corners)["boxes"])


def test_the_image_is_the_same_with_and_without_boxes(small: ImagePreprocess) -> None:
    alone = {key: a_sample()[key] for key in ("image", "label", "index")}
    jitter = {"class_path": V2 + "ColorJitter", "init_args": {"brightness": 0.5, "hue": 0.1}}
    for name in ("none", "flips", "dihedral", jitter, {"class_path": V2 + "RandomPerspective"}):
        transform = augmentation(name, small)
        for epoch in range(8):
            images = []
            for sample in (alone, a_sample()):
                with seeded(0, epoch, 0):
                    images.append(transform(sample)["image"])
            assert torch.equal(*images)


def test_a_border_that_is_padded_moves_boxes_inwards(small: ImagePreprocess) -> None:
    padded = evaluation(replace(small, crop_mode="border", size=30))(a_sample())
    assert padded["boxes"].tolist() == [[LEFT + 2, TOP + 5, RIGHT + 2, BOTTOM + 5]]
    assert place_of(padded["mask"]) == padded["boxes"].tolist()[0]
    assert place_of((padded["image"] == 255).all(0)) == padded["boxes"].tolist()[0]


def test_a_box_that_is_cut_ends_at_the_edge_and_one_outside_is_empty(small: ImagePreprocess) -> None:
    sample = a_sample()
    sample["boxes"] = boxes((0, 5, 8, 9), (22, 3, 25, 9))
    cut = evaluation(small)(sample)["boxes"]
    assert cut[0].tolist() == [0, 3, 3, 7]
    assert float(cut[1][0]) == float(cut[1][2]) == 16


def test_boxes_of_the_files_size_are_resized_with_the_image_and_not_cut_to_whole_numbers(
    small: ImagePreprocess,
) -> None:
    sample = a_sample()
    whole = tv_tensors.BoundingBoxes(torch.tensor([[15, 9, 23, 13]]), format="XYXY", canvas_size=(40, 52))
    assert resize_to(whole, HEIGHT, WIDTH).tolist() == [[7.5, 4.5, 11.5, 6.5]]
    sample["boxes"] = whole
    sample["mask"] = tv_tensors.Mask(sample["mask"].repeat_interleave(2, 0).repeat_interleave(2, 1))
    seen = evaluation(small)(sample)
    assert seen["boxes"].tolist() == [[2.5, 2.5, 6.5, 4.5]]
    assert torch.equal(seen["mask"], evaluation(small)(a_sample())["mask"])


def by_class(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": V2 + name, "init_args": arguments}


@pytest.mark.parametrize(
    "configured",
    [
        by_class("RandomHorizontalFlip", p=0.5),
        by_class("RandomVerticalFlip", p=0.5),
        [by_class("RandomHorizontalFlip", p=0.5), by_class("RandomCrop", size=18)],
        [by_class("Pad", padding=3), by_class("CenterCrop", size=[20, 26])],
        by_class("RandomApply", transforms=[by_class("RandomHorizontalFlip", p=1.0)], p=0.5),
    ],
)
def test_boxes_and_masks_follow_a_configured_transform_of_torchvision(small: ImagePreprocess, configured: Any) -> None:
    # What a transform gives in another size is resized once more, and cropped last.
    transform, places = augmentation(configured, small), set()
    for epoch in range(20):
        with seeded(0, epoch, 0):
            sample = transform(a_sample())
        assert tuple(functional.get_size(sample["boxes"])) == tuple(sample["image"].shape[1:]) == (16, 16)
        near = np.array(place_of((sample["image"] > 150).all(0))) - np.array(sample["boxes"].tolist()[0])
        assert np.abs(near).max() <= 1
        assert np.abs(np.array(place_of(sample["mask"])) - np.array(sample["boxes"].tolist()[0])).max() <= 1
        places.add(tuple(sample["boxes"].tolist()[0]))
    assert len(places) > 1 or configured[0]["class_path"].endswith("Pad")


def test_a_transform_that_knows_pixels_only_gets_the_image_alone(small: ImagePreprocess) -> None:
    invert = {"class_path": "torchvision.transforms.v2.functional.invert"}
    with pytest.raises(UserError):  # a function of pixels is no class that makes a transform
        augmentation(invert, small)
    timms = [by_class("ToPILImage"), {"class_path": "timm.data.auto_augment.rand_augment_transform",
             "init_args": {"config_str": "rand-m9", "hparams": {}}}, by_class("PILToTensor")]  # fmt: skip
    moved = augmentation(timms, small)(a_sample())
    assert torch.equal(moved["boxes"], evaluation(small)(a_sample())["boxes"])


class Halves:
    """Makes tensors half as high, and knows nothing of boxes."""

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels[:, ::2]


def test_what_resizes_the_image_alone_is_refused(small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("users_own")
    module.__dict__["Halves"] = Halves
    monkeypatch.setitem(sys.modules, "users_own", module)
    transform = augmentation({"class_path": "users_own.Halves"}, small)
    with pytest.raises(UserError, match=r"^data.augmentation changes the size of the image, and not that of the boxes"):
        transform(a_sample())


@pytest.mark.parametrize("name", ["standard", "randaugment", "trivial"])
def test_augmentations_that_move_the_image_alone_are_refused(small: ImagePreprocess, name: str) -> None:
    with pytest.raises(UserError, match=r"move the image alone, and here are boxes, mask in it: use none, flips"):
        augmentation(name, small)(a_sample())
