import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tl_lightning.data.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess


def module(folder: Path, preprocess: Preprocess, **settings: Any) -> ImageDataModule:
    return ImageDataModule(str(folder), preprocess.to_dict(), **{"batch_size": 4, "num_workers": 0, **settings})


def epochs(data: ImageDataModule, *numbers: int) -> list[dict[str, Tensor]]:
    data.setup("fit")
    loader = data.train_dataloader()
    batches = []
    for number in numbers:
        loader.sampler.set_epoch(number)
        batches += list(loader)
    return batches


def equal(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in ("image", "label", "index"))


def test_listing_comes_before_decoding(folder: Path, small: Preprocess, cache_of_its_own: Path) -> None:
    data = module(folder, small, image_size=8)
    assert data.classes == ["cat", "dog"]
    assert data.prepared == {**small.to_dict(), "size": 8}
    assert list(cache_of_its_own.iterdir()) == []


def test_the_digest_of_a_split_changes_with_the_split_and_not_with_its_place(
    folder: Path, small: Preprocess, picture: Callable[..., Path], tmp_path: Path
) -> None:
    first = module(folder, small).split_digest
    assert module(folder, small, split_seed=1).split_digest != first
    shutil.copytree(folder, tmp_path / "moved")
    assert module(tmp_path / "moved", small).split_digest == first
    picture(folder / "dog" / "more.png")
    assert module(folder, small).split_digest != first


def test_summary_and_majority_are_exact(folder: Path, small: Preprocess, picture: Callable[..., Path]) -> None:
    for number in range(8):
        picture(folder / "dog" / f"more{number}.png")
    data = module(folder, small)
    data.setup("fit")
    assert data.summary() == {
        "source": str(folder),
        "classes": ["cat", "dog"],
        "train": 15,
        "validation": 3,
        "test": 6,
        "skipped": 0,
        "split": "auto",
        "split_seed": 0,
        "split_digest": data.split_digest,
        "class_counts": {
            "train": {"cat": 5, "dog": 10},
            "val": {"cat": 1, "dog": 2},
            "test": {"cat": 2, "dog": 4},
        },
    }
    assert data.class_counts == [5, 10]
    assert data.majority_accuracy("test") == pytest.approx(4 / 6)


@pytest.mark.parametrize("augmentation", ["dihedral", "standard"])
def test_batches_are_equal_for_any_number_of_workers(folder: Path, small: Preprocess, augmentation: str) -> None:
    alone, helped = (
        epochs(module(folder, small, augmentation=augmentation, num_workers=workers, seed=5), 0, 1)
        for workers in (0, 2)
    )
    assert equal(alone, helped)


def test_order_and_augmentation_follow_seed_and_epoch(folder: Path, small: Preprocess) -> None:
    first, again, other = (epochs(module(folder, small, seed=seed), 3) for seed in (1, 1, 2))
    assert equal(first, again) and not equal(first, other)
    assert not equal(epochs(module(folder, small, seed=1), 4), first)


def test_loading_leaves_the_global_generator_alone(folder: Path, small: Preprocess) -> None:
    before = torch.get_rng_state()
    epochs(module(folder, small), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_in_order_and_not_augmented(folder: Path, small: Preprocess) -> None:
    data = module(folder, small, batch_size=3)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == data.splits["test"].tolist()
    assert batches[0]["image"].shape == (3, 3, 16, 16) and batches[0]["image"].dtype == torch.uint8
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batches, data.test_dataloader(), strict=True))


def test_last_batch_is_dropped_in_training_unless_it_is_the_only_one(folder: Path, small: Preprocess) -> None:
    assert [len(batch["label"]) for batch in epochs(module(folder, small), 0)] == [4, 4]  # of 10
    assert [len(batch["label"]) for batch in epochs(module(folder, small, batch_size=64), 0)] == [10]


def test_normalisation_happens_after_the_transfer(folder: Path, small: Preprocess) -> None:
    data = module(folder, small)
    batch = epochs(data, 0)[0]
    moved = data.on_after_batch_transfer(batch, 0)
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(moved["image"], batch["image"] / 127.5 - 1, atol=1e-6)
    assert batch["image"].dtype == torch.uint8


def test_no_test_split_gives_no_loader(folder: Path, small: Preprocess) -> None:
    data = module(folder, small, test_fraction=0.0)
    data.setup("fit")
    assert data.test_dataloader() == []


def test_broken_pictures_stop_before_training(folder: Path, small: Preprocess) -> None:
    for number in range(12):
        (folder / "cat" / f"x{number:02}.png").touch()
    with pytest.raises(UserError) as error:
        module(folder, small).setup("fit")
    message = str(error.value)
    assert message.startswith(f"12 of 28 pictures of {folder} cannot be read: {folder}/cat/x00.png (empty file), ")
    assert message.endswith("x09.png (empty file) and 2 more; mend them, or leave them out with --data.on_error skip")


def test_broken_pictures_can_be_left_out_and_move_no_other(folder: Path, small: Preprocess) -> None:
    before = module(folder, small).splits
    broken = [int(before["train"][0]), int(before["test"][0])]
    for index in broken:
        module(folder, small).samples.paths[index].write_text("broken")
    data = module(folder, small, on_error="skip")
    for stage in ("fit", "fit", "test"):
        data.setup(stage)
    assert data.summary()["skipped"] == 2
    for name, indices in before.items():
        assert data.splits[name].tolist() == [i for i in indices if i not in broken]
    assert len(list(data.train_dataloader())) == 2


def test_a_class_that_vanishes_is_an_error(folder: Path, small: Preprocess) -> None:
    for path in (folder / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class 'dog' is left without pictures: 8 of 16 pictures"):
        module(folder, small, on_error="skip").setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"image_size": 0}, "data.image_size is 0"),
        ({"on_error": "ignore"}, "data.on_error 'ignore' is unknown"),
        ({"augmentation": "flip"}, "data.augmentation 'flip' is unknown"),
        ({"split": "block"}, "data.split 'block' is unknown"),
        ({"target": "level"}, "data.target 'level' is only for the source elpv"),
    ],
)
def test_wrong_settings_are_named_at_once(
    folder: Path, small: Preprocess, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        module(folder, small, **settings)


def test_only_the_module_imports_lightning() -> None:
    names = "samples sources splits pictures store augmentations dataset".split()
    imports = ", ".join(f"tl_lightning.data.{name}" for name in names)
    check = f"import sys, {imports}; assert not {{'lightning', 'timm', 'torchvision'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
