import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch import Tensor

import tl_lightning.data
from tl_lightning.data.images.mixing import mix
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess


def module(folder: Path, preprocess: ImagePreprocess, **settings: Any) -> ImageDataModule:
    return ImageDataModule(str(folder), preprocess.to_dict(), **{"batch_size": 4, "num_workers": 0, **settings})


def epochs(data: ImageDataModule, *numbers: int) -> list[dict[str, Tensor]]:
    data.setup("fit")
    loader = data.train_dataloader()
    batches = []
    for number in numbers:
        loader.sampler.set_epoch(number)
        batches += list(loader)
    return batches


def trainer(epoch: int = 0, batch: int = 0, *, training: bool = True, rank: int = 0, world_size: int = 1) -> Any:
    """What the data module asks of a trainer before batch `batch` of an epoch."""
    epochs = SimpleNamespace(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
    batches = SimpleNamespace(ready=batch, started=batch, processed=batch, completed=batch)
    return SimpleNamespace(
        training=training,
        global_rank=rank,
        world_size=world_size,
        num_training_batches=2,
        fit_loop=SimpleNamespace(
            epoch_progress=SimpleNamespace(current=epochs),
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=batches)),
        ),
    )


def equal(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in ("image", "label", "index"))


def test_listing_comes_before_decoding(folder: Path, small: ImagePreprocess, cache_of_its_own: Path) -> None:
    data = module(folder, small, image_size=8)
    assert data.classes == ["cat", "dog"]
    assert data.prepared == {**small.to_dict(), "size": 8}
    assert list(cache_of_its_own.iterdir()) == []


def test_the_digest_of_a_split_changes_with_the_split_and_not_with_its_place(
    folder: Path, small: ImagePreprocess, image: Callable[..., Path], tmp_path: Path
) -> None:
    first = module(folder, small).split_digest
    assert module(folder, small, split_seed=1).split_digest != first
    shutil.copytree(folder, tmp_path / "moved")
    assert module(tmp_path / "moved", small).split_digest == first
    image(folder / "dog" / "more.png")
    assert module(folder, small).split_digest != first


def test_the_summary_is_exact(folder: Path, small: ImagePreprocess, image: Callable[..., Path]) -> None:
    for number in range(8):
        image(folder / "dog" / f"more{number}.png")
    data = module(folder, small, on_leak="ignore")
    data.setup("fit")
    assert data.summary() == {
        "source": str(folder),
        "problem_type": "multiclass",
        "classes": ["cat", "dog"],
        "train": 15,
        "validation": 3,
        "test": 6,
        "unlabelled": 0,
        "skipped": 0,
        "split": "auto",
        "split_seed": 0,
        "fold": None,
        "groups": None,
        "split_digest": data.split_digest,
        "targets_digest": data.targets_digest,
        "contents_digest": data.contents_digest,
        "leaks": None,
        "class_counts": {
            "train": {"cat": 5, "dog": 10},
            "val": {"cat": 1, "dog": 2},
            "test": {"cat": 2, "dog": 4},
        },
    }
    assert data.targets("test").labels.bincount().tolist() == [2, 4]


@pytest.mark.parametrize(
    "augmentation",
    ["dihedral", "standard", "randaugment", "trivial", {"class_path": "torchvision.transforms.v2.RandomPerspective"}],
)
def test_batches_are_equal_for_any_number_of_workers(
    folder: Path, small: ImagePreprocess, augmentation: object
) -> None:
    alone, helped = (
        epochs(module(folder, small, augmentation=augmentation, num_workers=workers, seed=5), 0, 1)
        for workers in (0, 2)
    )
    assert equal(alone, helped)


def test_order_and_augmentation_follow_seed_and_epoch(folder: Path, small: ImagePreprocess) -> None:
    first, again, other = (epochs(module(folder, small, seed=seed), 3) for seed in (1, 1, 2))
    assert equal(first, again) and not equal(first, other)
    assert not equal(epochs(module(folder, small, seed=1), 4), first)


def test_balanced_training_images_come_from_all_classes_equally_often(
    tmp_path: Path, small: ImagePreprocess, image: Callable[..., Path]
) -> None:
    for number in range(20):
        image(tmp_path / "p" / ("rare" if number < 4 else "usual") / f"{number:02}.png", seed=number)
    data = module(tmp_path / "p", small, sampler="balanced", batch_size=2)
    assert data.targets("train").labels.bincount().tolist() == [2, 10]
    drawn = [batch["label"] for batch in epochs(data, 0)]
    assert torch.cat(drawn).bincount().tolist() == [6, 6]
    held_out = [batch["label"] for batch in data.val_dataloader()]
    assert torch.cat(held_out).bincount().tolist() == np.bincount(data.samples.labels[data.splits["val"]]).tolist()


def test_the_default_number_of_workers_is_decided_beside_the_trainer(
    folder: Path, small: ImagePreprocess, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ImageDataModule(str(folder), small.to_dict())
    data.setup("fit")
    assert data.train_dataloader().num_workers == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("tl_lightning.data.base.default_workers", lambda **asked: 3 if asked["beside_gpu"] else 0)
    assert data._workers() == 3
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert data._workers() == 0


def test_loading_leaves_the_global_generator_alone(folder: Path, small: ImagePreprocess) -> None:
    before = torch.get_rng_state()
    epochs(module(folder, small), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_in_order_and_not_augmented(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small, batch_size=3)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == data.splits["test"].tolist()
    assert batches[0]["image"].shape == (3, 3, 16, 16) and batches[0]["image"].dtype == torch.uint8
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batches, data.test_dataloader(), strict=True))


def test_last_batch_is_dropped_in_training_unless_it_is_the_only_one(folder: Path, small: ImagePreprocess) -> None:
    assert [len(batch["label"]) for batch in epochs(module(folder, small), 0)] == [4, 4]  # of 10
    assert [len(batch["label"]) for batch in epochs(module(folder, small, batch_size=64), 0)] == [10]


def test_normalisation_happens_after_the_transfer(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small)
    batch = epochs(data, 0)[0]
    moved = data.on_after_batch_transfer(batch, 0)
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(moved["image"], batch["image"] / 127.5 - 1, atol=1e-6)
    assert batch["image"].dtype == torch.uint8


def test_mixing_adds_the_targets_to_training_batches_alone(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small, mixup=0.4, seed=1)
    batch = epochs(data, 0)[0]
    pixels = batch["image"].clone()
    plain = data.normalized(batch)

    def prepared(*place: int, **settings: Any) -> dict[str, Tensor]:
        data.trainer = trainer(*place, **settings)
        return data.on_after_batch_transfer(batch, 0)

    first = prepared(1, 1)
    assert set(first) == {"image", "label", "index", "target"}
    image, target = mix(plain["image"], batch["label"], classes=2, mixup=0.4, cutmix=0.0, place=(1, 1, 1, 0))
    assert torch.equal(first["image"], image) and torch.equal(first["target"], target)
    assert first["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(first["label"], batch["label"]) and torch.equal(batch["image"], pixels)
    assert torch.equal(prepared(1, 1)["image"], first["image"])
    for other in (prepared(1, 0), prepared(0, 1), prepared(1, 1, rank=1)):
        assert not torch.equal(other["image"], first["image"])
    untouched = prepared(1, 1, training=False)
    assert set(untouched) == set(batch) and torch.equal(untouched["image"], plain["image"])


def test_nothing_is_mixed_unless_asked_for_or_where_images_do_not_pair_up(folder: Path, small: ImagePreprocess) -> None:
    batch = epochs(module(folder, small), 0)[0]
    odd = {key: value[:3] for key, value in batch.items()}
    for settings, given in (({}, batch), ({"mixup": 0.4, "cutmix": 1.0}, odd)):
        data = module(folder, small, **settings)
        data.trainer = trainer()
        moved = data.on_after_batch_transfer(given, 0)
        assert "target" not in moved and torch.equal(moved["image"], data.normalized(given)["image"])


def test_a_plain_loader_shows_training_images_as_evaluation_would(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small, augmentation="standard")
    data.setup("fit")
    batches = list(data.plain_loader("train"))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == data.splits["train"].tolist()
    assert [len(batch["label"]) for batch in batches] == [4, 4, 2]
    crop = module(folder, small, augmentation="none", batch_size=10)
    expected = {int(i): image for b in epochs(crop, 0) for i, image in zip(b["index"], b["image"], strict=True)}
    assert all(
        torch.equal(image, expected[int(index)])
        for batch in batches
        for index, image in zip(batch["index"], batch["image"], strict=True)
    )


def test_processes_share_the_images(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small, batch_size=2)
    data.setup("fit")
    shares: dict[str, list[int]] = {"train": [], "val": []}
    for rank in range(2):
        data.trainer = trainer(rank=rank, world_size=2)
        for name, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
            shares[name].append([batch["index"].tolist() for batch in loader])
    alone = [batch["index"].tolist() for batch in epochs(module(folder, small), 0)]
    assert [first + second for first, second in zip(*shares["train"], strict=True)] == alone
    assert sorted(index for share in shares["val"] for batch in share for index in batch) == data.splits["val"].tolist()


def test_more_processes_than_images_is_an_error(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small)
    data.setup("fit")
    data.trainer = trainer(world_size=3)
    with pytest.raises(UserError, match=r"^the val split has 2 images, too few for 3 processes: use fewer devices"):
        data.val_dataloader()
    assert len(list(data.test_dataloader())) == 1


def test_a_loader_starts_in_the_epoch_of_the_trainer(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small)
    data.setup("fit")
    data.trainer = trainer(2)
    assert equal(list(data.train_dataloader()), epochs(module(folder, small), 2))


def test_a_restored_place_holds_for_one_loader(folder: Path, small: ImagePreprocess) -> None:
    assert module(folder, small).state_dict() == {}
    before, after = module(folder, small), module(folder, small)
    before.trainer = trainer(2, 1)
    assert before.state_dict() == {"epoch": 2, "batches": 1}
    after.load_state_dict(before.state_dict())
    whole = epochs(module(folder, small), 2)
    assert equal(epochs(after, 2), whole[1:])
    assert equal(epochs(after, 2), whole)


@pytest.mark.parametrize(("stage", "batches"), [("fit", 1), ("test", 2)])
def test_only_training_goes_on_where_a_checkpoint_stopped(
    folder: Path, small: ImagePreprocess, stage: str, batches: int
) -> None:
    data = module(folder, small)
    data.trainer = trainer(2)
    data.trainer.state = SimpleNamespace(fn=TrainerFn.FITTING if stage == "fit" else TrainerFn.TESTING)
    data.load_state_dict({"epoch": 2, "batches": 1})
    assert len(epochs(data, 2)) == batches


def test_a_phase_may_have_an_augmentation_of_its_own(folder: Path, small: ImagePreprocess) -> None:
    plain, turned = (epochs(module(folder, small, augmentation=name), 1) for name in ("none", "dihedral"))
    assert not equal(plain, turned)
    data = module(folder, small, augmentation="none")
    for name, expected in ((None, plain), ("dihedral", turned), (None, plain)):
        data.set_augmentation(name)
        assert equal(epochs(data, 1), expected)
    with pytest.raises(UserError, match=r"^augmentation 'flip' is unknown; valid are .*; did you mean flips\?$"):
        data.set_augmentation("flip")


def test_no_test_split_gives_no_loader(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small, test_fraction=0.0)
    data.setup("fit")
    assert data.test_dataloader() == []


def test_broken_images_stop_before_training(folder: Path, small: ImagePreprocess) -> None:
    for number in range(12):
        (folder / "cat" / f"x{number:02}.png").touch()
    with pytest.raises(UserError) as error:
        module(folder, small).setup("fit")
    message = str(error.value)
    assert message.startswith(f"12 of 28 images of {folder} cannot be read: {folder}/cat/x00.png (empty file), ")
    assert message.endswith("x09.png (empty file) and 2 more; mend them, or leave them out with --data.on_error skip")


def test_broken_images_can_be_left_out_and_move_no_other(folder: Path, small: ImagePreprocess) -> None:
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


def test_a_class_that_vanishes_is_an_error(folder: Path, small: ImagePreprocess) -> None:
    for path in (folder / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class 'dog' is left without images: 8 of 16 images"):
        module(folder, small, on_error="skip").setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"image_size": 0}, "data.image_size is 0"),
        ({"on_error": "ignore"}, "data.on_error 'ignore' is unknown"),
        ({"sampler": "balance"}, "data.sampler 'balance' is unknown; valid are shuffled, balanced"),
        ({"augmentation": "flip"}, "data.augmentation 'flip' is unknown"),
        ({"mixup": -1.0}, "data.mixup is -1.0"),
        ({"cutmix": 1.0, "batch_size": 3}, "data.batch_size is 3; data.cutmix 1.0 pairs"),
        ({"split": "block"}, "data.split 'block' is unknown"),
        ({"target": "level"}, "data.target 'level' is only for the source elpv"),
    ],
)
def test_wrong_settings_are_named_at_once(
    folder: Path, small: ImagePreprocess, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        module(folder, small, **settings)


def test_only_the_data_modules_import_lightning() -> None:
    package = Path(tl_lightning.data.__file__).parent
    files = [path.relative_to(package.parents[1]).with_suffix("") for path in sorted(package.rglob("*.py"))]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files]
    modules = ("data.base", "data.module", "data.resume", "data.images.module", "data.prediction")
    imports = ", ".join(name for name in names if name.removeprefix("tl_lightning.") not in modules)
    check = f"import sys, {imports}; assert not {{'lightning', 'timm', 'torchvision'}} & set(sys.modules)"
    assert "tl_lightning.data.images.store" in imports
    subprocess.run([sys.executable, "-c", check], check=True)


def test_channels_and_range_are_part_of_the_preparation(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small, channels=1, pixel_range=[0, 127], augmentation="none")
    assert data.prepared == small.with_channels(1).with_pixel_range([0, 127]).to_dict()
    batch = epochs(data, 0)[0]
    assert batch["image"].shape == (4, 1, 16, 16) and batch["image"].max() == 255
    assert module(folder, ImagePreprocess.from_dict(data.prepared)).prepared == data.prepared


@pytest.fixture
def leaking(folder: Path) -> Path:
    """Two classes in three splits; a test image is a training one mirrored, one of val the same file."""
    root = folder.parent / "leaking"
    for number, name in enumerate(("train", "train", "train", "train", "train", "val", "val", "test")):
        for kind, first in (("cat", 0), ("dog", 8)):
            (root / name / kind).mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(first + number)
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            coarse.resize((48, 40), Image.Resampling.BICUBIC).save(root / name / kind / f"{number}.png")
    Image.open(root / "train/cat/0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "test/cat/7.png")
    shutil.copy(root / "train/dog/1.png", root / "val/dog/5.png")
    return root


def test_leaks_are_warned_of_and_stay(
    leaking: Path, small: ImagePreprocess, capsys: pytest.CaptureFixture[str]
) -> None:
    data = module(leaking, small)
    digest = data.split_digest
    data.setup("fit")
    assert data.leaks is not None
    assert data.leaks.across == {"val in train": {"file": 1}, "test in train": {"near": 1}, "test in val": {}}
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [10, 4, 2]
    assert data.split_digest == digest
    assert "1 image of test is also in train" in capsys.readouterr().out.replace("\n", " ")


def test_leaks_are_moved_out_of_the_test_and_make_another_split(leaking: Path, small: ImagePreprocess) -> None:
    data = module(leaking, small, on_leak="move")
    digest = data.split_digest
    data.setup("fit")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [12, 3, 1]
    assert data.split_digest != digest
    again = module(leaking, small, on_leak="move")
    again.setup("test")
    assert again.split_digest == data.split_digest


def test_leaks_stop_a_run_where_they_have_to(leaking: Path, small: ImagePreprocess) -> None:
    with pytest.raises(UserError, match=r"1 image of val is also in train \(1 file\).*--data.on_leak move"):
        module(leaking, small, on_leak="stop").setup("fit")
    ignoring = module(leaking, small, on_leak="ignore")
    ignoring.setup("fit")
    assert ignoring.leaks is None
    with pytest.raises(UserError, match=r"data.on_leak 'shout' is unknown; valid are warn, stop, move, ignore"):
        module(leaking, small, on_leak="shout")


def test_a_range_of_pixels_that_comes_with_the_weights_is_said(folder: Path, small: ImagePreprocess) -> None:
    ranged = small.with_pixel_range([0, 4095])
    (note,) = module(folder, ranged).notes()
    assert note.startswith("pixels are read from 0 (black) to 4095 (white), as in the run of the weights")
    assert module(folder, ranged, pixel_range=[0, 255]).notes() == module(folder, small).notes() == []


def test_weights_have_the_mean_1_over_the_images_that_train(folder: Path, small: ImagePreprocess) -> None:
    paths = sorted(folder.rglob("*.png"))
    rows = [f"{path},{path.parent.name},{1 + number}" for number, path in enumerate(paths)]
    table = folder.parent / "weights.csv"
    table.write_text("\n".join(["image,label,weight", *rows]))
    broken = [int(index) for index in module(table, small).splits["train"][:2]]
    for index in broken:
        paths[index].write_bytes(b"")
    data = module(table, small, on_error="skip")
    data.setup("fit")
    weights = data.targets("train").weights
    assert weights is not None and data.skipped == 2
    assert float(weights.mean()) == pytest.approx(1)
    kept = torch.from_numpy(1.0 + data.splits["train"]).float()
    torch.testing.assert_close(weights, kept / kept.mean())


def test_the_digest_of_the_targets_changes_with_them_and_not_with_the_images(
    folder: Path, small: ImagePreprocess, tmp_path: Path
) -> None:
    images = [path.resolve() for path in sorted(folder.rglob("*.png"))]
    table = tmp_path / "table.csv"
    digests = []
    for labels in ("ab", "ab", "ba"):
        rows = (f"{path},{labels[number % 2]}" for number, path in enumerate(images))
        table.write_text("\n".join(["image,label", *rows]))
        data = module(table, small)
        digests.append((data.split_digest, data.targets_digest, data.summary()["targets_digest"]))
    assert digests[0] == digests[1]
    assert digests[0][1] != digests[2][1] == digests[2][2]


def test_the_way_to_resize_can_be_another_than_the_weights_own(folder: Path, small: ImagePreprocess) -> None:
    data = module(folder, small, interpolation="nearest")
    assert data.prepared == {**small.to_dict(), "interpolation": "nearest"}
    with pytest.raises(UserError, match=r"data\.interpolation 'cubic' is unknown"):
        module(folder, small, interpolation="cubic").prepare_data()
