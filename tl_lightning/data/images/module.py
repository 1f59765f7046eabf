"""The data module of images: decoded once, augmented, mixed, and normalised on the device."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.dataset import Sample, Store, Transform, View
from tl_lightning.data.images.augmentations import Augmentation, evaluation, views
from tl_lightning.data.images.augmentations import augmentation as make_augmentation
from tl_lightning.data.images.configured import plain
from tl_lightning.data.images.containers import look_into, open_parts
from tl_lightning.data.images.image_files import quiet_decoders
from tl_lightning.data.images.mixing import check_mixing, mix
from tl_lightning.data.images.preparing import prepare
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.leaks import Duplicate, find_duplicates
from tl_lightning.data.resume import progress
from tl_lightning.data.samples import Samples
from tl_lightning.data.sources.read import find_files
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess


class ImageDataModule(TransferDataModule):
    """Images and their targets.

    In its batches ``image`` is ``uint8`` ``(n, channels, size, size)``, and normalised ``float32`` on the device. A
    training batch that was mixed also has ``target`` (``float32`` ``(n, classes)``, rows adding up to 1).
    """

    noun: ClassVar[str] = "images"
    reading: ClassVar[Callable[[], AbstractContextManager[None]]] = staticmethod(quiet_decoders)

    def __init__(
        self,
        source: str,
        preprocess: dict[str, Any],
        *,
        image_size: int | None = None,
        channels: int | None = None,
        pixel_range: list[float] | None = None,
        interpolation: str | None = None,
        frames: str | None = None,
        group_by: Literal["patient", "study", "file"] = "patient",
        image_column: str = "image",
        augmentation: str | dict[str, Any] | list[dict[str, Any]] = "flips",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        **shared: Any,  # noqa: ANN401 - the arguments of the base, which the command line shows by name
    ) -> None:
        """Lists the images and splits them; no image is read yet.

        Args:
            source: A folder with one sub-folder per class (optionally under train/, val/, test/), a .csv or .parquet
                table, a zip or tar archive, WebDataset shards, an export of Label Studio, CVAT or Roboflow,
                torchvision/NAME, datasets/NAME[:CONFIG] or datasets/FOLDER (of the Hugging Face library), or elpv.
            preprocess: What the weights were pretrained with; comes from the backbone.
            image_size: Side in pixels of the square that the model sees; by default the weights' own.
            channels: Number of channels of the images; by default the weights' own. Others than theirs change the
                first layer, as timm does.
            pixel_range: The numbers in the files that become black and white, as [0, 4095] for 12 bits; by default
                0 to 255 for bytes, 0 to 65535 for larger integers, and 0 to 1 for floating-point numbers; in DICOM and
                NIfTI the file's own window, or from its smallest number to its largest.
            interpolation: How images are resized: nearest, bilinear, bicubic or lanczos; by default as in the
                pretraining.
            frames: Which frames of a DICOM file, pages of a TIFF file and slices of a NIfTI volume become images: all
                (the default), first, middle, or a slice such as 20:-20:4; behind axial (the default), coronal or
                sagittal and a colon, how a volume is cut.
            group_by: What is not on two sides of a split where the source states no groups: all images of a DICOM
                patient, of a study, or of a file.
            image_column: Column of the table with the images' paths, relative to the table or absolute.
            augmentation: none, flips (left-right), dihedral (mirrors and quarter turns), standard (timm's: crop, flip,
                colour), randaugment or trivial (TrivialAugment), both behind a crop and a flip; or any transform of
                uint8 tensors, such as {class_path: torchvision.transforms.v2.ColorJitter, init_args: {hue: 0.1}}, or a
                list of such. Normalisation comes last and is the weights' own.
            mixup: Alpha of mixup, which blends pairs of images in training; 0 is off, 0.1 to 0.4 is usual.
            cutmix: Alpha of CutMix, which swaps a rectangle within pairs; 0 is off, 1 is usual. With both on, each
                batch gets one of them by chance.
            **shared: See `TransferDataModule`.

        Raises:
            UserError: If the source or one of the settings cannot be used.
        """
        self.mixup, self.cutmix = mixup, cutmix  # which the batch size has to suit
        weights_own = ImagePreprocess.from_dict(preprocess)
        own_size = weights_own.with_size(image_size).with_interpolation(interpolation)
        ranged = own_size.with_channels(channels).with_pixel_range(pixel_range)
        self._preprocess = ranged.with_frames(frames)
        self._group_by = group_by
        self._inherited_range = weights_own.pixel_range if pixel_range is None else None
        super().__init__(source, self._preprocess.to_dict(), input_column=image_column, **shared)
        if self.mixes and shared.get("problem_type", "multiclass") != "multiclass":
            raise UserError("data.mixup and data.cutmix blend classes, and these images have none: leave them")
        if self.mixes and len(self.unlabelled_rows):
            raise UserError("data.mixup and data.cutmix blend classes, and unlabelled images have none: leave them")
        if self.mixes and self.samples.weights is not None:
            raise UserError(
                "data.mixup and data.cutmix blend images, which the weight column has count differently: leave one"
            )
        self.augmentation: Augmentation = plain(augmentation)
        self._augment = make_augmentation(self.augmentation, self._preprocess)

    def list_samples(self, source: str, **asked: Any) -> Samples:  # noqa: ANN401 - as in the base
        """Lists the images of a source with their targets, and those in a file with several one by one."""
        return open_parts(super().list_samples(source, **asked), self._preprocess, self._group_by, source)

    def open_store(self) -> ImageStore:
        """Decodes the images, where no earlier run has, and opens them."""
        return ImageStore.open(self.samples.paths, self._preprocess)

    def transform(self, view: Literal["training", "plain"]) -> Transform:
        """From stored pixels to the square that the model sees; see `TransferDataModule.transform`."""
        return self._augment if view == "training" else evaluation(self._preprocess)

    @staticmethod
    def find_files(path: Path) -> list[Path]:
        """Lists the image at a path, all images below a folder, sorted, or those that a table names."""
        return find_files(str(path))

    @staticmethod
    def parts_of(paths: Sequence[Path], preprocess: ImagePreprocess) -> list[Path]:  # type: ignore[override]
        """The images in files, one by one; see `look_into`."""
        return [part for contents in look_into(paths, preprocess.frames) for part in contents.parts]

    @staticmethod
    def read_file(path: Path, preprocess: ImagePreprocess) -> Sample:  # type: ignore[override]  # an image's own kind
        """Reads an image file, prepared as evaluation sees the stored ones; raises `BrokenImage`."""
        return {"image": prepare(path, preprocess)}

    def find_duplicates(
        self, store: Store, indices: NDArray[np.int64], features: NDArray[np.float32] | None
    ) -> list[Duplicate]:
        """Looks for copies, also re-encoded, mirrored or turned, and with features for sections of other images."""
        assert isinstance(store, ImageStore)
        return find_duplicates(self.samples.paths, store, indices=indices, features=features)

    def set_batch_size(self, batch_size: int, micro_batch_size: int | Literal["auto"] | None) -> None:
        """Says how many images a step of one process has; see `TransferDataModule.set_batch_size`.

        Raises:
            UserError: If the parts do not divide the batch, or mixing cannot pair the images of either.
        """
        super().set_batch_size(batch_size, micro_batch_size)
        check_mixing(self.mixup, self.cutmix, self.batch_size)
        check_mixing(self.mixup, self.cutmix, self.loaded_batch_size)

    @property
    def mixes(self) -> str:
        """The settings that mix images in pairs, anew in each epoch; empty where both are off."""
        return "data.mixup and data.cutmix" if self.mixup or self.cutmix else ""

    def set_augmentation(self, name: Augmentation | None) -> None:
        """Changes what the next `train_dataloader` does to the images; a phase may have its own.

        Args:
            name: An augmentation, as the argument ``augmentation`` takes it; `None` for the configured one.

        Raises:
            UserError: If the name is unknown; the message begins with ``augmentation``, for a caller to say whose.
        """
        if name is None:
            self._augment = make_augmentation(self.augmentation, self._preprocess)
        else:
            self._augment = make_augmentation(name, self._preprocess, key="augmentation")

    def views(self, name: Augmentation | None, count: int | None) -> list[View]:
        """Fixed versions of the training images that stand for an augmentation; see `augmentations.views`.

        Args:
            name: An augmentation, as the argument ``augmentation`` takes it; `None` for the configured one.
            count: How many; `None` for all that there are.
        """
        return views(name or self.augmentation, self._preprocess, count=count, key="augmentation")

    def notes(self) -> list[str]:
        """What a user should know, from how pixels are read to classes that a part of the split lacks."""
        if self._inherited_range is None:
            return super().notes()
        black, white = self._inherited_range
        inherited = (
            f"pixels are read from {black:g} (black) to {white:g} (white), as in the run of the weights; "
            "--data.pixel_range says otherwise"
        )
        return [inherited, *super().notes()]

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Normalises on the device, as the images crossed over as bytes, and mixes training batches.

        Args:
            batch: As the loaders make it.
            dataloader_idx: Unused.

        Returns:
            The batch as `normalized` makes it, with ``target`` where it was mixed.
        """
        prepared = super().on_after_batch_transfer(batch, dataloader_idx)
        if not self.mixes or self.trainer is None or not self.trainer.training or "image" not in prepared:
            return prepared
        if len(batch["label"]) % 2:  # the only batch of a set smaller than data.batch_size
            return prepared
        epochs, batches = progress(self.trainer)
        # Lightning counts a batch as ready after this hook, so `ready` is its number from 0, also after a resume.
        place = (self.seed, epochs.processed, batches.ready, self.trainer.global_rank)
        image, target = mix(
            prepared["image"],
            prepared["label"],
            classes=len(self.classes),
            mixup=self.mixup,
            cutmix=self.cutmix,
            place=place,
        )
        return {**prepared, "image": image, "target": target}
